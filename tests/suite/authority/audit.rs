//! Who changed what, when and why.

use serde_json::{Value, json};

use crate::harness::authority::Authority;

#[test]
fn a_reason_is_in_the_denial_the_list_and_the_audit() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a", "b"]);
    let reply = org.post("/devices/revoke", &json!({"deviceId": "a", "reason": " leaks <secrets> "}));
    let request_id = reply.json()["request_id"].clone();
    assert_eq!(reply.status, 200);
    let denial = org.device("validate", "a").json();
    assert_eq!((&denial["code"], &denial["allowed"]), (&json!("DEVICE_REVOKED"), &json!(false)));
    assert_eq!(denial["reason"], "The device is revoked: leaks <secrets>");
    let all = org.post("/devices/revoke_batch", &json!({"scope": "all_active", "reason": "drill"}));
    assert_eq!(all.json()["revokedCount"], 1);
    assert_eq!(org.device("validate", "b").json()["reason"], "The device is revoked: drill");
    let devices = org.get("/devices/list").json()["devices"].clone();
    assert_eq!(
        (&devices[0]["revokeReason"], &devices[1]["revokeReason"]),
        (&json!("leaks <secrets>"), &json!("drill"))
    );

    let audit = org.get("/org/audit").json();
    assert_eq!((&audit["handler"], &audit["nextCursor"]), (&json!("org/audit"), &Value::Null));
    let entries = audit["entries"].as_array().unwrap();
    let verbs: Vec<_> = entries.iter().map(|entry| entry["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["devices/revoke_batch", "devices/revoke", "devices/register", "devices/register", "org/create"]);
    let revoke = &entries[1];
    assert_eq!(revoke["request_id"], request_id);
    assert_eq!((&revoke["deviceId"], &revoke["outcome"]), (&json!("a"), &json!("revoked")));
    assert_eq!(revoke["reason"], "leaks <secrets>");
    assert!(revoke["actor"].as_str().unwrap().starts_with("key:"));
    assert!(!audit.to_string().contains(&org.key));
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(entries[4]["actor"], format!("uid:{uid}"));
    let page = org.get("/org/audit?limit=2").json();
    assert_eq!(page["entries"].as_array().unwrap().len(), 2);
    let next = org.get(&format!("/org/audit?limit=2&cursor={}", page["nextCursor"])).json();
    assert_eq!(next["entries"][0]["verb"], "devices/register");
    assert_eq!(org.get("/org/audit?device=b").json()["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn a_reason_that_is_none_changes_nothing() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    for reason in ["", "two\nlines", &"x".repeat(201)] {
        let reply = org.post("/devices/revoke", &json!({"deviceId": "a", "reason": reason}));
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_reason")), "{reason:?}");
    }
    let reply = org.post("/devices/revoke_batch", &json!({"scope": "all_active", "reason": ""}));
    assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_reason")));
    assert_eq!(org.code("a"), "ALLOW");
    assert_eq!(org.get("/org/audit").json()["entries"].as_array().unwrap().len(), 2);
}

#[test]
fn an_organisation_sees_its_own_audit_and_nobody_elses() {
    let authority = Authority::start();
    let (one, two) = (authority.org("free"), authority.org("free"));
    one.register(&["a"]);
    assert_eq!(two.get("/org/audit").json()["entries"].as_array().unwrap().len(), 1);
    assert_eq!(authority.call("GET", "/org/audit", None, b"").status, 401);
    for query in ["limit=0", "limit=1001", "cursor=x"] {
        assert_eq!(one.get(&format!("/org/audit?{query}")).status, 400, "{query}");
    }
}

#[test]
fn the_operator_reads_the_audit_of_all_at_the_command_line() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    org.admin("disable", &["--reason", "unpaid"]);
    let audit = authority.admin_json(&["audit"]);
    assert_eq!(
        (&audit["entries"][0]["verb"], &audit["entries"][0]["reason"]),
        (&json!("org/disable"), &json!("unpaid"))
    );
    assert_eq!(authority.admin_json(&["audit", "--device", "a"])["entries"].as_array().unwrap().len(), 1);
    let text = String::from_utf8(authority.admin(&["audit", &org.id, "--limit", "1"]).stdout).unwrap();
    assert!(text.contains("org/disable") && text.contains(": unpaid") && text.contains("--before"), "{text}");
    let refused = authority.admin(&["disable", &org.id, "--reason", "two\nlines"]);
    assert_eq!(refused.status.code(), Some(2));
}
