//! Registering, revoking, unrevoking, removing; and the places of a plan.

use std::thread;

use serde_json::json;

use crate::harness::authority::Authority;

#[test]
fn registering_is_idempotent_and_tells_the_plan() {
    let authority = Authority::start();
    let org = authority.org("free");
    let first = org.device("register", " a ").json();
    assert_eq!(
        (&first["status"], &first["handler"], &first["deviceId"]),
        (&json!("ok"), &json!("devices/register"), &json!("a"))
    );
    let again = org.device("register", "a");
    assert_eq!((again.status, &again.json()["status"]), (200, &json!("exists")));
    let plan = again.json();
    for (field, value) in [
        ("planTier", json!("free")),
        ("planState", json!("active")),
        ("accessUntil", json!(null)),
        ("limit", json!(3)),
        ("devicesUsed", json!(1)),
        ("remaining", json!(2)),
        ("overLimit", json!(false)),
        ("softGraceWindow", json!(null)),
    ] {
        assert_eq!(plan.get(field), Some(&value), "{field}");
    }
}

#[test]
fn a_full_plan_takes_no_new_device_until_one_is_revoked_or_removed() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a", "b", "c"]);
    let blocked = org.device("register", "d");
    let answer = blocked.json();
    assert_eq!(
        (blocked.status, &answer["status"], &answer["error"]),
        (403, &json!("blocked"), &json!("device_limit_reached"))
    );
    assert_eq!((&answer["remaining"], &answer["devicesUsed"]), (&json!(0), &json!(3)));
    assert_eq!(org.device("register", "a").json()["status"], "exists");
    assert_eq!(org.device("revoke", "a").json()["remaining"], 1);
    org.register(&["d"]);
    let blocked = org.device("unrevoke", "a");
    assert_eq!(
        (blocked.status, &blocked.json()["status"], &blocked.json()["error"]),
        (403, &json!("blocked"), &json!("device_limit_reached"))
    );
    assert_eq!(org.code("a"), "DEVICE_REVOKED");
    assert_eq!(org.device("remove", "d").json()["status"], "ok");
    assert_eq!(org.device("unrevoke", "a").json()["status"], "ok");
    assert_eq!(org.code("a"), "ALLOW");
}

#[test]
fn every_plan_ends_at_its_limit() {
    let authority = Authority::start();
    for (plan, limit) in [("free", 3), ("pro", 25), ("scale", 250), ("max", 1000)] {
        let org = authority.org(plan);
        assert_eq!(org.get("/usage").json()["limit"], limit, "{plan}");
        // The larger ones are filled through the store's own tests.
        if limit <= 25 {
            for number in 0..limit {
                assert_eq!(org.device("register", &format!("d{number}")).status, 200, "{plan} {number}");
            }
            assert_eq!(org.device("register", "one-more").status, 403, "{plan}");
        }
    }
}

#[test]
fn registering_does_not_restore_a_revoked_device() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    org.device("revoke", "a");
    let refused = org.device("register", "a");
    assert_eq!(
        (refused.status, &refused.json()["status"], &refused.json()["error"]),
        (403, &json!("revoked"), &json!("device_revoked"))
    );
    assert_eq!(org.code("a"), "DEVICE_REVOKED");
}

#[test]
fn revoking_and_unrevoking_are_idempotent_and_need_a_known_device() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    for (verb, code) in [("revoke", "DEVICE_REVOKED"), ("unrevoke", "ALLOW")] {
        for _ in 0..2 {
            let reply = org.device(verb, "a");
            assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("ok")), "{verb}");
            assert_eq!(reply.json()["handler"], format!("devices/{verb}"));
            assert_eq!(org.code("a"), code);
        }
    }
    for verb in ["revoke", "unrevoke", "remove"] {
        let reply = org.device(verb, "unknown");
        assert_eq!((reply.status, &reply.json()["error"]), (404, &json!("not_found")), "{verb}");
    }
    assert_eq!(org.device("remove", "a").status, 200);
    assert_eq!(org.code("a"), "DEVICE_NOT_FOUND");
    assert_eq!(org.device("remove", "a").status, 404);
}

#[test]
fn a_smaller_plan_keeps_its_active_devices_and_takes_no_more() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b", "c", "d"]);
    org.admin("set-plan", &["free"]);
    let usage = org.get("/usage").json();
    assert_eq!((&usage["overLimit"], &usage["remaining"], &usage["limit"]), (&json!(true), &json!(0), &json!(3)));
    assert_eq!(org.code("d"), "ALLOW");
    org.device("revoke", "d");
    assert_eq!(org.device("unrevoke", "d").status, 403);
}

#[test]
fn a_frozen_disabled_or_expired_organisation_still_registers_within_its_plan() {
    let authority = Authority::start();
    let org = authority.org("free");
    for (verb, id) in [("freeze", "a"), ("expire", "b"), ("disable", "c")] {
        org.admin(verb, &[]);
        org.register(&[id]);
    }
    assert_eq!(org.device("register", "d").status, 403);
    assert_eq!(org.get("/usage").json()["planState"], "frozen");
    assert_eq!(org.code("a"), "ORG_DISABLED");
}

#[test]
fn racing_for_the_last_place_never_exceeds_the_plan() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a", "b"]);
    let won: usize = thread::scope(|scope| {
        let racers: Vec<_> = (0..16)
            .map(|number| {
                let org = &org;
                scope.spawn(move || usize::from(org.device("register", &format!("racer-{number}")).status == 200))
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
    assert_eq!(org.get("/usage").json()["devicesUsed"], 3);
}

#[test]
fn a_management_call_checks_key_organisation_and_request_in_that_order() {
    let authority = Authority::start();
    let org = authority.org("free");
    let calls = [
        ("POST", "/devices/register"),
        ("POST", "/devices/revoke"),
        ("POST", "/devices/unrevoke"),
        ("POST", "/devices/remove"),
        ("POST", "/devices/revoke_batch"),
        ("POST", "/devices/unrevoke_batch"),
        ("POST", "/billing/checkout"),
        ("GET", "/devices/list?limit=nonsense"),
        ("GET", "/usage"),
    ];
    let see = |method: &str, path: &str, key: Option<&str>| {
        let reply = authority.call(method, path, key, b"nonsense");
        let answer = reply.json();
        assert_eq!(answer["request_id"].as_str().map(str::len), Some(36), "{path}");
        (reply.status, answer["status"].clone(), answer["error"].clone(), answer["code"].clone())
    };
    for (method, path) in calls {
        let bad_key = (401, json!("error"), json!("invalid_org_key"), json!("INVALID_ORG_KEY"));
        assert_eq!(see(method, path, None), bad_key, "{path}");
        assert_eq!(see(method, path, Some("org_wrong")), bad_key, "{path}");
        if path != "/usage" {
            let malformed = (400, json!("error"), json!("missing_params"), json!(null));
            assert_eq!(see(method, path, Some(&org.key)), malformed, "{path}");
        }
    }
    for verb in ["register", "revoke", "unrevoke", "remove"] {
        let reply = org.device(verb, "not valid");
        assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("INVALID_DEVICE_ID")), "{verb}");
    }
    org.admin("delete", &["--yes"]);
    for (method, path) in calls {
        let gone = (404, json!("error"), json!("org_not_found"), json!("ORG_NOT_FOUND"));
        assert_eq!(see(method, path, Some(&org.key)), gone, "{path}");
    }
}
