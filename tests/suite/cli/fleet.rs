//! Every fleet verb once, in people's words and in JSON.

use super::fixture::{Authority, RunToEnd, machineid};

#[test]
fn a_device_lives_from_register_to_remove() {
    let authority = Authority::start("free");
    let ran = authority.run(&["register", "worker:1"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "worker:1  new\n", ""));
    assert_eq!(authority.run(&["register", "worker:1"]).out, "worker:1  exists\n");

    let ran = authority.run(&["validate", "worker:1"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("worker:1  allowed  ALLOW  "), "{ran:?}");

    let ran = authority.run(&["revoke", "worker:1"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "worker:1  revoked\n", ""));
    let ran = authority.run(&["validate", "worker:1"]);
    assert_eq!(ran.code, 77, "{ran:?}");
    assert!(ran.out.starts_with("worker:1  denied  DEVICE_REVOKED  "), "{ran:?}");

    let ran = authority.run(&["register", "worker:1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("revoked") && ran.out.contains("machineid unrevoke"), "{ran:?}");

    let ran = authority.run(&["unrevoke", "worker:1"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "worker:1  ok\n"));
    assert_eq!(authority.run(&["revoke", "worker:1"]).code, 0);
    assert_eq!(authority.run(&["restore", "worker:1"]).code, 0);
    assert_eq!(authority.run(&["validate", "worker:1"]).code, 0);

    let ran = authority.run(&["remove", "worker:1"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "worker:1  removed\n"));
    let ran = authority.run(&["validate", "worker:1"]);
    assert!(ran.code == 77 && ran.out.contains("DEVICE_NOT_FOUND"), "{ran:?}");
    let ran = authority.run(&["remove", "worker:1"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "worker:1  not_found\n"));
}

#[test]
fn the_json_of_each_verb_has_the_documented_shape() {
    let authority = Authority::start("pro");
    let register = authority.run(&["register", "--json", "a", "b"]).json();
    assert_eq!(
        register,
        serde_json::json!({"results": [
            {"deviceId": "a", "result": "new", "error": null},
            {"deviceId": "b", "result": "new", "error": null},
        ], "succeeded": 2, "failed": 0})
    );

    let ran = authority.run(&["validate", "--json", "a", "ghost"]);
    assert_eq!(ran.code, 77);
    let results = ran.json()["results"].clone();
    assert_eq!(
        (&results[0]["deviceId"], &results[0]["allowed"], &results[0]["code"]),
        (&"a".into(), &true.into(), &"ALLOW".into())
    );
    assert_eq!((&results[1]["allowed"], &results[1]["code"]), (&false.into(), &"DEVICE_NOT_FOUND".into()));
    assert!(results[1]["request_id"].is_string() && results[1]["error"].is_null(), "{results}");

    let ran = authority.run(&["revoke", "--json", "a", "b", "ghost"]);
    assert_eq!(ran.code, 1);
    let pair = |id: &str, result: &str| (id.to_owned(), result.to_owned());
    assert_eq!(ran.results(), [pair("a", "revoked"), pair("b", "revoked"), pair("ghost", "not_found")]);
    assert_eq!((&ran.json()["succeeded"], &ran.json()["failed"]), (&2.into(), &1.into()));

    let list = authority.run(&["list", "--json", "--revoked"]).json();
    assert_eq!(list["devices"].as_array().unwrap().len(), 2);
    assert_eq!(list["devices"][0]["status"], "revoked");
    assert!(list["devices"][0]["createdAt"].is_string() && list["devices"][0]["revokedAt"].is_string(), "{list}");
    assert_eq!((&list["planTier"], &list["limit"]), (&"pro".into(), &25.into()));

    let ran = authority.run(&["unrevoke", "--json", "a", "b"]);
    assert_eq!(ran.results(), [pair("a", "ok"), pair("b", "ok")]);
    let ran = authority.run(&["remove", "--json", "b"]);
    assert_eq!(ran.results(), [pair("b", "removed")]);

    let usage = authority.run(&["usage", "--json"]).json();
    assert_eq!(
        (&usage["planTier"], &usage["devicesUsed"], &usage["limit"], &usage["remaining"]),
        (&"pro".into(), &1.into(), &25.into(), &24.into())
    );
    let checkout = authority.run(&["checkout", "--plan", "scale", "--json"]).json();
    assert!(checkout["url"].as_str().unwrap().starts_with("http"), "{checkout}");
}

#[test]
fn lists_are_tables_with_filters() {
    let authority = Authority::start("pro");
    let ran = authority.run(&["list"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", "no devices\n"));
    authority.register(&["worker:1", "worker:2", "cron:1"]);
    assert_eq!(authority.run(&["revoke", "worker:2"]).code, 0);

    let ran = authority.run(&["list"]);
    let lines: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["DEVICE", "STATUS", "LAST", "SEEN", "REGISTERED"]);
    let rows: Vec<_> = lines[1..].iter().map(|words| (words[0], words[1])).collect();
    assert!(rows.contains(&("worker:2", "revoked")) && rows.contains(&("cron:1", "active")), "{ran:?}");
    assert!(ran.err.contains("2 of 25 places in use"), "{ran:?}");

    assert_eq!(authority.listed(&["--active", "-q", "worker"]), ["worker:1"]);
    assert_eq!(authority.listed(&["--revoked"]), ["worker:2"]);
    assert_eq!(authority.listed(&["-q", "cron"]), ["cron:1"]);
    assert_eq!(authority.run(&["list", "--active", "--revoked"]).code, 2);
}

#[test]
fn usage_and_checkout_are_for_people_too() {
    let authority = Authority::start("free");
    authority.register(&["a"]);
    let ran = authority.run(&["usage"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("free (active)") && ran.out.contains("1 of 3 active, 2 left"), "{ran:?}");
    let ran = authority.run(&["checkout", "--plan", "pro"]);
    assert!(ran.code == 0 && ran.out.starts_with("http") && ran.out.lines().count() == 1, "{ran:?}");
    assert_eq!(authority.run(&["checkout"]).code, 2);
    assert_eq!(authority.run(&["checkout", "--plan", "gold"]).code, 2);
}

#[test]
fn a_new_organisation_prints_its_key_alone() {
    let authority = Authority::start_with("free", &["--sign-up"]);
    let ran = machineid(&["org", "create", "--url", &authority.url]).ran();
    assert_eq!(ran.code, 0, "{ran:?}");
    let key = ran.out.trim_end();
    assert!(key.starts_with("org_") && ran.out.lines().count() == 1, "{ran:?}");
    assert!(!ran.err.contains(key));
    let ran = machineid(&["register", "a", "--url", &authority.url]).env("MACHINEID_ORG_KEY", key).ran();
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = machineid(&["org", "create", "--json", "--url", &authority.url]).ran().json();
    assert!(json["orgApiKey"].as_str().unwrap().starts_with("org_"), "{json}");
}

#[test]
fn a_full_plan_blocks_registering_and_unrevoking() {
    let authority = Authority::start("free");
    authority.register(&["a", "b", "c"]);
    let ran = authority.run(&["register", "a", "d"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("a  exists") && ran.out.contains("d  blocked  device_limit_reached"), "{ran:?}");
    assert_eq!(authority.run(&["revoke", "a"]).code, 0);
    authority.register(&["d"]);
    let ran = authority.run(&["unrevoke", "a"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "a  blocked  device_limit_reached\n"), "{ran:?}");
}

#[test]
fn every_code_of_the_authority_reaches_validate() {
    let authority = Authority::start("free");
    authority.register(&["a"]);
    let org = authority.admin(&["list"]);
    let id = org.pointer("/organisations/0/orgId").or(org.pointer("/0/orgId")).unwrap_or_else(|| panic!("{org}"));
    let id = id.as_str().unwrap();
    for (change, code, back) in [
        (&["disable"][..], "ORG_DISABLED", Some("enable")),
        (&["freeze"], "PLAN_FROZEN", Some("unfreeze")),
        (&["expire"], "ENTITLEMENT_EXPIRED", None),
        (&["delete", "--yes"], "ORG_NOT_FOUND", None),
    ] {
        authority.admin(&[change, &[id]].concat());
        let ran = authority.run(&["validate", "a"]);
        assert!(ran.code == 77 && ran.out.contains(code), "{change:?}: {ran:?}");
        if let Some(back) = back {
            authority.admin(&[back, id]);
            assert_eq!(authority.run(&["validate", "a"]).code, 0, "{back}");
        }
    }
}
