//! `--dry-run`, `--all-active` and `--all-revoked`.

use super::fixture::Authority;

#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let authority = Authority::start("pro");
    authority.register(&["a", "b"]);
    assert_eq!(authority.run(&["revoke", "b"]).code, 0);
    let before = authority.listed(&["--active"]);

    let ran = authority.run(&["revoke", "--dry-run", "a", "b", "ghost"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines, ["a      would be revoked", "b      unchanged (already revoked)", "ghost  not found"]);
    assert!(ran.err.contains("1 device would be affected; nothing was changed"), "{ran:?}");

    let json = authority.run(&["revoke", "--dry-run", "--all-active", "--json"]).json();
    assert_eq!(
        json,
        serde_json::json!({"dryRun": true, "affected": 1,
            "results": [{"deviceId": "a", "status": "active", "effect": "revoke"}]})
    );
    let json = authority.run(&["unrevoke", "--dry-run", "--all-revoked", "--json"]).json();
    assert_eq!(json["results"][0], serde_json::json!({"deviceId": "b", "status": "revoked", "effect": "unrevoke"}));
    let json = authority.run(&["remove", "--dry-run", "a", "ghost", "--json"]).json();
    assert_eq!((&json["results"][0]["effect"], &json["results"][1]["effect"]), (&"remove".into(), &"not_found".into()));

    assert_eq!(authority.listed(&["--active"]), before);
    assert_eq!(authority.listed(&["--revoked"]), ["b"]);
}

#[test]
fn the_whole_fleet_is_stopped_and_restored_as_far_as_the_plan_goes() {
    let authority = Authority::start("free");
    authority.register(&["a", "b", "c"]);
    let ran = authority.run(&["revoke", "--all-active", "--yes"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "revoked 3 devices\n"), "{ran:?}");
    assert_eq!(authority.run(&["validate", "a", "b", "c"]).code, 77);
    let json = authority.run(&["revoke", "--all-active", "--yes", "--json"]).json();
    assert_eq!(json, serde_json::json!({"revokedCount": 0}));

    authority.register(&["d"]);
    let ran = authority.run(&["unrevoke", "--all-revoked", "--yes", "--json"]);
    assert_eq!(ran.code, 1, "one has no place: {ran:?}");
    let json = ran.json();
    assert_eq!(json["unrevokedCount"], 2);
    assert_eq!(json["unrevokedSample"].as_array().unwrap().len(), 2);
    assert_eq!(json["stillRevoked"].as_array().unwrap().len(), 1);
    let ran = authority.run(&["unrevoke", "--all-revoked", "--yes"]);
    assert!(ran.code == 1 && ran.out.contains("still revoked"), "{ran:?}");

    assert_eq!(authority.run(&["remove", "d"]).code, 0);
    assert_eq!(authority.run(&["unrevoke", "--all-revoked", "--yes"]).code, 0);
    let ran = authority.run(&["unrevoke", "--all-revoked", "--yes", "--json"]);
    assert_eq!((ran.code, &ran.json()["reason"]), (0, &"none_revoked".into()), "{ran:?}");
}

#[test]
fn all_and_ids_at_once_are_a_contradiction() {
    let authority = Authority::start("free");
    authority.register(&["a"]);
    for args in [
        &["revoke", "--all-active", "a", "--yes"][..],
        &["revoke", "--all-active", "--from", "x", "--yes"],
        &["unrevoke", "--all-revoked", "a", "--yes"],
    ] {
        assert_eq!(authority.run(args).code, 2, "{args:?}");
    }
    assert_eq!(authority.listed(&["--active"]), ["a"]);
}
