//! What the operator of the server switched off, no key of the organisation switches on.

use crate::console::visitor::Visitor;
use crate::harness::authority::Authority;

#[test]
fn no_key_of_an_organisation_undoes_the_operators_switch() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    org.admin("disable", &["--reason", "unpaid"]);
    assert_eq!(org.code("a"), "ORG_DISABLED");
    let settings = format!("/console/org/{}/settings", org.id);
    let mut admin = Visitor::signed_in(&org);
    let page = admin.get(&settings).text;
    assert!(
        page.contains("The operator of this server switched execution off") && !page.contains("Switch on"),
        "{page}"
    );
    let tried = admin.post(&format!("{settings}/execution"), &[("execution", "on")]);
    assert_eq!(tried.status, 400, "{}", tried.text);
    assert!(tried.text.contains("Only the operator can switch it on again"), "{}", tried.text);
    assert_eq!(org.code("a"), "ORG_DISABLED");
    // The two switches are two: the organisation's own stays when the operator's goes.
    let off = [("execution", "off"), ("confirm", "off")];
    assert_eq!(admin.post(&format!("{settings}/execution"), &off).status, 303);
    let enabled = org.admin("enable", &[]);
    assert_eq!((&enabled["state"], &enabled["offBy"]), (&"disabled".into(), &serde_json::json!(["own"])));
    assert_eq!(org.code("a"), "ORG_DISABLED");
    admin.get(&settings);
    assert_eq!(admin.post(&format!("{settings}/execution"), &[("execution", "on")]).status, 303);
    assert_eq!(org.code("a"), "ALLOW");
    // And the operator can take back both, when the organisation has lost its keys.
    assert_eq!(admin.post(&format!("{settings}/execution"), &off).status, 303);
    assert_eq!(org.admin("enable", &["--own"])["state"], "active");
    assert_eq!(org.code("a"), "ALLOW");
}
