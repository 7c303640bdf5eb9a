//! What a client without a key, and a key of one organisation, can do to the operators.

use crate::console::sessions::link;
use crate::console::visitor::Visitor;
use crate::harness::authority::Authority;

#[test]
fn a_client_without_a_key_creates_no_organisation() {
    // The flag of earlier versions is still accepted, so that a unit with its old options starts.
    for flags in [&[][..], &["--no-signup"]] {
        let authority = Authority::start_with(flags);
        let reply = authority.call("POST", "/org/create", None, b"{}");
        assert_eq!((reply.status, reply.json()["error"].as_str()), (403, Some("signup_disabled")), "{}", reply.text);
        authority.org("free").register(&["a"]);
    }
}

#[test]
fn a_flood_of_sign_ins_ends_no_other_session() {
    let authority = Authority::start();
    let (org, other) = (authority.org("pro"), authority.org("pro"));
    let mut operator = Visitor::new(&authority);
    let path = link(&authority, &[]);
    assert_eq!(operator.post(&path, &[]).status, 303);
    let stop = org.with_role(&["--role", "stop"]);
    let mut oncall = Visitor::signed_in(&stop);
    let mut neighbour = Visitor::signed_in(&other);
    let reader = org.with_role(&["--role", "read"]);
    let mut first = Visitor::signed_in(&reader);
    for _ in 0..40 {
        drop(Visitor::signed_in(&reader));
    }
    let home = |org: &str| format!("/console/org/{org}");
    assert_eq!(first.get(&home(&org.id)).status, 303, "the key that flooded has lost its oldest session");
    assert_eq!(oncall.get(&home(&org.id)).status, 200);
    assert_eq!(neighbour.get(&home(&other.id)).status, 200);
    assert_eq!(operator.get("/console/orgs").status, 200);
}
