//! Every decision code, produced for real, and which comes first.

use serde_json::{Value, json};

use crate::harness::authority::Authority;

/// The answer to a validation, with what every one must have.
fn decision(reply: &crate::harness::http::Reply) -> Value {
    let answer = reply.json();
    assert!(answer["allowed"].is_boolean() && answer["code"].is_string(), "{answer}");
    assert_eq!(answer["request_id"].as_str().map(str::len), Some(36), "{answer}");
    assert_eq!(answer["handler"], "devices/validate");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    answer
}

#[test]
fn a_registered_device_of_a_sound_organisation_is_allowed() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["agent-01"]);
    let reply = org.device("validate", " agent-01\n");
    let answer = decision(&reply);
    assert_eq!(reply.status, 200);
    assert_eq!(
        [&answer["allowed"], &answer["code"], &answer["deviceId"], &answer["status"]],
        [&json!(true), &json!("ALLOW"), &json!("agent-01"), &json!("ok")]
    );
    assert_ne!(decision(&org.device("validate", "agent-01"))["request_id"], answer["request_id"]);
}

#[test]
fn each_fault_has_its_code_and_the_first_in_the_table_wins() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["known", "revoked"]);
    org.device("revoke", "revoked");
    let see = |id: &str| {
        let reply = org.device("validate", id);
        let answer = decision(&reply);
        assert_eq!(answer["allowed"], answer["code"] == "ALLOW");
        (answer["code"].as_str().unwrap().to_owned(), reply.status)
    };
    let expect = |id: &str, code: &str, status: u16| assert_eq!(see(id), (code.to_owned(), status), "{id}");

    expect("known", "ALLOW", 200);
    expect("revoked", "DEVICE_REVOKED", 200);
    expect("unknown", "DEVICE_NOT_FOUND", 200);
    // Each further fault hides all those before it.
    for (verb, code) in [("expire", "ENTITLEMENT_EXPIRED"), ("freeze", "PLAN_FROZEN"), ("disable", "ORG_DISABLED")] {
        org.admin(verb, &[]);
        for id in ["known", "revoked", "unknown"] {
            expect(id, code, 200);
        }
        expect("not valid", "INVALID_DEVICE_ID", 400);
    }
    // And going back, each uncovers the one below.
    org.admin("enable", &[]);
    expect("known", "PLAN_FROZEN", 200);
    org.admin("unfreeze", &[]);
    expect("known", "ENTITLEMENT_EXPIRED", 200);
    org.admin("expire", &["--never"]);
    expect("known", "ALLOW", 200);

    org.admin("disable", &[]);
    org.admin("delete", &["--yes"]);
    expect("known", "ORG_NOT_FOUND", 404);
    expect("not valid", "ORG_NOT_FOUND", 404);
}

#[test]
fn a_bad_key_comes_before_everything_else() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["known"]);
    let twice = format!("{}\r\nx-org-key: {}", org.key, org.key);
    for key in [None, Some("org_wrong"), Some("nonsense"), Some(""), Some(twice.as_str())] {
        for body in [r#"{"deviceId":"known"}"#, r#"{"deviceId":"not valid"}"#, "", "nonsense"] {
            let reply = authority.call("POST", "/devices/validate", key, body.as_bytes());
            let answer = decision(&reply);
            assert_eq!((reply.status, &answer["code"]), (401, &json!("INVALID_ORG_KEY")), "{key:?} {body}");
            assert_eq!(answer["allowed"], false);
        }
    }
}

#[test]
fn a_validation_that_names_no_device_is_answered_with_a_decision() {
    let authority = Authority::start();
    let org = authority.org("free");
    let missing =
        ["", "{}", "[]", r#"["a"]"#, "{", r#"{"deviceId":1}"#, r#"{"deviceId":null}"#, "nonsense", "\"a\"", "{} {}"];
    let twice = r#"{"deviceId":"a","deviceId":"b"}"#;
    let large = format!(r#"{{"deviceId":"a","x":"{}"}}"#, "x".repeat(70_000));
    for body in missing.into_iter().chain([twice, large.as_str()]) {
        let reply = authority.call("POST", "/devices/validate", Some(&org.key), body.as_bytes());
        let answer = decision(&reply);
        assert_eq!((reply.status, &answer["code"]), (400, &json!("INVALID_DEVICE_ID")), "{body:.40}");
        assert_eq!((&answer["allowed"], &answer["error"]), (&json!(false), &json!("missing_params")));
    }
    for id in ["", "  ", "-a", "a b", "é", &"x".repeat(129)] {
        let reply = org.device("validate", id);
        let answer = decision(&reply);
        assert_eq!((reply.status, &answer["code"]), (400, &json!("INVALID_DEVICE_ID")), "{id:?}");
        assert_eq!(
            (&answer["allowed"], &answer["error"], &answer["deviceId"]),
            (&json!(false), &json!(null), &json!(null))
        );
    }
}

#[test]
fn a_validation_by_another_method_is_a_no() {
    let authority = Authority::start();
    let org = authority.org("free");
    for method in ["GET", "PUT", "DELETE"] {
        let reply = authority.call(method, "/devices/validate", Some(&org.key), b"");
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")), "{method}");
        assert_eq!(decision(&reply)["allowed"], false);
    }
}

#[test]
fn an_entitlement_can_end_in_the_future_and_the_past() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    assert_eq!(org.admin("expire", &["--at", "2999-01-01T00:00:00Z"])["accessUntil"], "2999-01-01T00:00:00Z");
    assert_eq!(org.code("a"), "ALLOW");
    assert_eq!(org.get("/usage").json()["accessUntil"], "2999-01-01T00:00:00Z");
    org.admin("expire", &["--at", "2020-01-01T00:00:00+01:00"]);
    assert_eq!(org.code("a"), "ENTITLEMENT_EXPIRED");
    assert_eq!(org.get("/usage").json()["planState"], "expired");
}

#[test]
fn a_new_key_takes_over_at_once() {
    let authority = Authority::start();
    let mut org = authority.org("free");
    org.register(&["a"]);
    let new = org.admin("rotate-key", &["--overlap", "0s"]);
    assert_eq!(org.code("a"), "INVALID_ORG_KEY");
    new["orgApiKey"].as_str().unwrap().clone_into(&mut org.key);
    assert_eq!(org.code("a"), "ALLOW");
}

#[test]
fn a_device_is_its_own_organisations_alone() {
    let authority = Authority::start();
    let (mine, theirs) = (authority.org("free"), authority.org("free"));
    mine.register(&["shared-name", "only-mine"]);
    theirs.register(&["shared-name"]);
    assert_eq!(theirs.code("only-mine"), "DEVICE_NOT_FOUND");
    for verb in ["revoke", "unrevoke", "remove"] {
        assert_eq!(theirs.device(verb, "only-mine").status, 404, "{verb}");
    }
    theirs.device("revoke", "shared-name");
    assert_eq!((mine.code("shared-name").as_str(), mine.code("only-mine").as_str()), ("ALLOW", "ALLOW"));
    let listed = theirs.get("/devices/list").json();
    assert_eq!(listed["devices"].as_array().map(Vec::len), Some(1), "{listed}");
}
