//! What many requests of one kind do to the others.

use serde_json::json;

use crate::harness::authority::Authority;

#[test]
fn no_reader_makes_a_revoke_wait() {
    let authority = Authority::start_with(&["--management-per-minute", "30"]);
    let org = authority.org("scale");
    let names: Vec<String> = (0..40).map(|number| format!("agent:{number}")).collect();
    org.register(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let reader = org.with_role(&["--role", "read"]);
    let refused = (0..40).filter(|_| reader.get("/usage").status == 429).count();
    assert!(refused > 0, "the reader has a limit");
    // The same key that is out of readings revokes, and so does another one.
    let refused = (0..40).filter(|_| org.get("/usage").status == 429).count();
    assert!(refused > 0, "so has the organisation's own key");
    let stop = org.with_role(&["--role", "stop"]);
    for (number, name) in names.iter().enumerate() {
        let key = if number % 2 == 0 { &stop } else { &org };
        let answer = key.device("revoke", name);
        assert_eq!(answer.status, 200, "{number}: {}", answer.text);
    }
    assert_eq!(org.post("/devices/revoke_batch", &json!({"scope": "all_active"})).status, 200);
}
