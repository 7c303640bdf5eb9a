//! What a key can fill, and what it cannot.

use serde_json::json;

use crate::harness::authority::Authority;
use crate::harness::events::Events;

#[test]
fn no_reader_takes_the_place_of_a_sidecar_that_watches() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    let (reader, host) = (org.with_role(&["--role", "read"]), org.with_role(&["--role", "host"]));
    // A place for each device of the plan, and 64 more.
    let observers: Vec<Events> =
        (0..67).map(|_| Events::open(authority.address(), "GET", "/org/events", &reader.key, "")).collect();
    let refused = reader.get("/org/events");
    assert_eq!((refused.status, refused.json()["error"].as_str()), (503, Some("too_many_watchers")));
    assert!(refused.header("retry-after").is_some());
    // Names that mean nothing are left out, and a device that is registered is not.
    let mut ids: Vec<String> = (0..1_000).map(|number| format!("0:{number}")).collect();
    ids.push("a".to_owned());
    let body = json!({ "deviceIds": ids }).to_string();
    let mut watch = Events::open(authority.address(), "POST", "/devices/watch", &host.key, &body);
    assert_eq!(watch.next().unwrap().0, "ready");
    assert_eq!(org.device("revoke", "a").status, 200);
    assert_eq!(watch.next().unwrap().1, json!({"deviceIds": ["a"], "deny": true}));
    drop(observers);
}
