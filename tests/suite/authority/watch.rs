//! `/devices/watch` and `/org/events`: a client that watches is told to look, and of nothing else.

use serde_json::{Value, json};

use crate::harness::authority::{Authority, Org};
use crate::harness::events::Events;

pub(super) fn watch(authority: &Authority, org: &Org<'_>, ids: &[&str]) -> Events {
    let body = json!({ "deviceIds": ids }).to_string();
    let mut events = Events::open(authority.address(), "POST", "/devices/watch", &org.key, &body);
    let (name, data) = events.next().unwrap();
    assert_eq!((name.as_str(), &data["heartbeatMs"]), ("ready", &json!(5_000)));
    events
}

#[expect(clippy::unnecessary_wraps, reason = "compared with what may be the end")]
fn validate(data: Value) -> Option<(String, Value)> {
    Some(("validate".to_owned(), data))
}

#[test]
fn every_change_that_a_validation_would_see_is_told() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut events = watch(&authority, &org, &["a", "b"]);
    // Not before: who watches from the answer on may still be told of what it was about.
    assert_eq!(org.device("register", "b").status, 200);
    assert_eq!(events.next(), validate(json!({"deviceIds": ["b"]})));
    // A sidecar has another budget for what stops than for the rest.
    let some = |ids: &[&str], denied| {
        validate(if denied { json!({"deviceIds": ids, "deny": true}) } else { json!({"deviceIds": ids}) })
    };
    let all = |denied| validate(if denied { json!({"all": true, "deny": true}) } else { json!({"all": true}) });
    for (verb, denied) in
        [("register", false), ("revoke", true), ("unrevoke", false), ("remove", true), ("register", false)]
    {
        assert_eq!(org.device(verb, "a").status, 200, "{verb}");
        assert_eq!(events.next(), some(&["a"], denied), "{verb}");
    }
    for (verb, denied) in [("revoke_batch", true), ("unrevoke_batch", false)] {
        org.post(&format!("/devices/{verb}"), &json!({"deviceIds": ["x", "b", "a"]}));
        assert_eq!(events.next(), some(&["a", "b"], denied), "{verb}");
    }
    for (verb, scope, denied) in [("revoke_batch", "all_active", true), ("unrevoke_batch", "all_revoked", false)] {
        org.post(&format!("/devices/{verb}"), &json!({"scope": scope}));
        assert_eq!(events.next(), all(denied), "{scope}");
    }
    for (change, denied) in [
        (&["disable", &org.id][..], true),
        (&["enable", &org.id], false),
        (&["freeze", &org.id], true),
        (&["unfreeze", &org.id], false),
        (&["expire", &org.id], true),
        (&["set-plan", &org.id, "max"], false),
    ] {
        authority.admin_json(change);
        assert_eq!(events.next(), all(denied), "{change:?}");
    }
    assert_eq!(org.post("/billing/checkout", &json!({"plan": "scale"})).status, 200);
    let number = authority.admin_json(&["checkouts"])[0]["number"].as_str().unwrap().to_owned();
    authority.admin_json(&["confirm-checkout", &number]);
    assert_eq!(events.next(), all(false), "a confirmed checkout");
}

#[test]
fn an_entitlement_that_ends_by_itself_is_told_when_it_does() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    let mut events = watch(&authority, &org, &["a"]);
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 3;
    let end = jiff::Timestamp::from_second(i64::try_from(end).unwrap()).unwrap().to_string();
    org.admin("expire", &["--at", &end]);
    // One hint is about the change, which may have come late enough to be about the end as well.
    loop {
        assert!(events.next().is_some(), "the stream ended");
        if org.code("a") == "ENTITLEMENT_EXPIRED" {
            break;
        }
    }
}

#[test]
fn a_new_key_and_the_end_of_the_organisation_end_its_watchers_after_a_last_hint() {
    let authority = Authority::start();
    for verb in [&["rotate-key"][..], &["end-old-key"], &["delete", "--yes"]] {
        let org = authority.org("free");
        let mut events = watch(&authority, &org, &["a"]);
        authority.admin_json(&[verb, &[&org.id]].concat());
        assert_eq!((events.next(), events.next()), (validate(json!({"all": true, "deny": true})), None), "{verb:?}");
    }
}

#[test]
fn nobody_is_told_of_other_devices_or_other_organisations() {
    let authority = Authority::start();
    let (org, other) = (authority.org("free"), authority.org("free"));
    let mut events = watch(&authority, &org, &["a"]);
    other.device("register", "a");
    authority.admin_json(&["disable", &other.id]);
    org.device("register", "b");
    org.device("register", "a");
    assert_eq!(events.next(), validate(json!({"deviceIds": ["a"]})), "the first of it that concerns this watcher");
}

#[test]
fn an_observer_is_told_which_devices_changed() {
    let authority = Authority::start();
    let org = authority.org("free");
    let mut events = Events::open(authority.address(), "GET", "/org/events", &org.key, "");
    assert_eq!(events.next().unwrap().0, "ready");
    org.device("register", "a");
    assert_eq!(events.next(), Some(("changed".to_owned(), json!({"deviceIds": ["a"]}))));
}

#[test]
fn the_extension_is_announced_and_a_curl_can_use_it() {
    let authority = Authority::start();
    let org = authority.org("free");
    let announced = org.device("validate", "a");
    assert_eq!(announced.header("x-machineid-extensions"), Some("watch, report"));
    let path = "/devices/watch?deviceId=a&deviceId=worker%3A1";
    let mut events = Events::open(authority.address(), "GET", path, &org.key, "");
    assert!(events.head.contains("content-type: text/event-stream") && events.head.contains("cache-control: no-store"));
    assert_eq!(events.next().unwrap().0, "ready");
    org.device("register", "worker:1");
    assert_eq!(events.next(), validate(json!({"deviceIds": ["worker:1"]})));
    // Without a change something comes all the same.
    let mut line = events.line();
    while line == "\n" {
        line = events.line();
    }
    assert_eq!(line, ": alive\n");
}

#[test]
fn a_watch_that_makes_no_sense_is_refused() {
    let authority = Authority::start();
    let org = authority.org("free");
    let post = |body: Value| org.post("/devices/watch", &body);
    let many: Vec<String> = (0..4_097).map(|n| format!("d{n}")).collect();
    for (body, error) in [
        (json!({"deviceIds": []}), "missing_params"),
        (json!({}), "missing_params"),
        (json!({"deviceIds": ["a", "no id"]}), "invalid_device_id"),
        (json!({"deviceIds": many}), "too_many_device_ids"),
    ] {
        let reply = post(body);
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!(error)));
    }
    assert_eq!(org.get("/devices/watch").status, 400);
    for path in ["/devices/watch?deviceId=a", "/org/events"] {
        let reply = authority.call("GET", path, Some("org_wrong"), b"");
        assert_eq!((reply.status, &reply.json()["code"]), (401, &json!("INVALID_ORG_KEY")));
    }
}

#[test]
fn watchers_do_not_hold_up_the_end_of_the_authority() {
    let mut authority = Authority::start();
    let key = authority.org("free").key;
    let mut events = Events::open(authority.address(), "GET", "/devices/watch?deviceId=a", &key, "");
    assert_eq!(events.next().unwrap().0, "ready");
    assert!(authority.terminate().success());
    assert_eq!(events.next(), None);
    assert!(!authority.log().contains("cut off"), "{}", authority.log());
}
