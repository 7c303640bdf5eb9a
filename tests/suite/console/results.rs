//! What came of a form: shown as often as its page is loaded, and repeated by nothing.

use std::collections::BTreeSet;

use serde_json::json;

use super::pages::{operator, place};
use super::visitor::Visitor;
use super::{REASON, sign_in};
use crate::harness::authority::{Authority, Org};
use crate::harness::browser::{Browser, button, css, field, role};

/// Where the console's routes are named.
const ROUTES: &str = include_str!("../../../crates/authority/src/console/pages/mod.rs");
/// Where pages are described that need no session.
const DESCRIBED: &str = include_str!("../../../docs/openapi/authority.json");

/// The paths that take a form, as the router and the description name them.
fn forms() -> BTreeSet<String> {
    let lines = ROUTES.lines().map(str::trim).filter(|line| line.starts_with(".route(") && line.contains("post("));
    let routed = lines.map(|line| line.split('"').nth(1).unwrap().to_owned());
    let described: serde_json::Value = serde_json::from_str(DESCRIBED).unwrap();
    let pages = described["paths"].as_object().unwrap().iter().filter(|(path, _)| !path.starts_with("/api/"));
    let described = pages.filter(|(_, methods)| methods["post"].is_object()).map(|(path, _)| path.clone());
    routed.chain(described).collect()
}

/// The id of a restore of this device that waits for a second key.
fn waiting_restore(authority: &Authority, org: &Org, device: &str) -> String {
    authority.admin_json(&["set", &org.id, "--restore-needs", "2"]);
    org.device("revoke", device);
    let asked = org.post("/devices/unrevoke", &json!({"deviceId": device})).json();
    asked["approvalId"].as_str().unwrap().to_owned()
}

#[test]
fn every_form_is_answered_with_a_redirect_or_a_refusal_and_never_with_a_result() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b", "c"]);
    let (id, name) = (org.id.as_str(), "a");
    org.device("revoke", "c");
    let mut tried = BTreeSet::new();
    // What each route is sent: what it does, and what it refuses.
    let mut send = |visitor: &mut Visitor<'_>, route: &str, path: &str, fields: &[&[(&str, &str)]]| {
        tried.insert(route.to_owned());
        for fields in fields {
            visitor.get(&place(&org));
            let reply = visitor.post(path, fields);
            assert!(
                reply.status == 303 || (400..500).contains(&reply.status),
                "{route} {fields:?}: {} {}",
                reply.status,
                reply.text
            );
            if reply.status == 303 {
                let shown = visitor.follow(&reply);
                assert!([200, 303].contains(&shown.status), "{route} {fields:?}: {}", shown.text);
            }
        }
    };
    let mut visitor = Visitor::signed_in(&org);
    let inside = |rest: &str| format!("/console/org/{id}{rest}");
    let of = |rest: &str| format!("/console/org/{{org}}{rest}");
    let devices: &[&[(&str, &str)]] = &[
        &[],
        &[("action", "revoke"), ("id", name)],
        &[("action", "restore"), ("id", name), ("id", "ghost")],
        &[("action", "remove"), ("id", "c")],
        &[("action", "remove"), ("id", "c"), ("confirm", "7")],
        &[("action", "remove"), ("id", "c"), ("confirm", "1")],
        &[("action", "remove"), ("id", "c"), ("confirm", "1"), ("revoked", "revoked")],
        &[("action", "explode"), ("id", name)],
    ];
    send(&mut visitor, &of("/devices"), &inside("/devices"), devices);
    let stop: &[&[(&str, &str)]] = &[
        &[],
        &[("shown", "2"), ("confirm", "3"), ("reason", "x")],
        &[("shown", "2"), ("confirm", "2"), ("reason", "x")],
    ];
    send(&mut visitor, &of("/stop"), &inside("/stop"), stop);
    let stops = org.get("/org/audit").json();
    let at = stops["entries"][0]["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let restore: &[&[(&str, &str)]] = &[&[("shown", "2"), ("confirm", "1")], &[("shown", "2"), ("confirm", "2")]];
    send(&mut visitor, &of("/stop/{at}/restore"), &inside(&format!("/stop/{at}/restore")), restore);
    let execution: &[&[(&str, &str)]] =
        &[&[], &[("execution", "off")], &[("execution", "off"), ("confirm", "off")], &[("execution", "on")]];
    send(&mut visitor, &of("/settings/execution"), &inside("/settings/execution"), execution);
    let checkout: &[&[(&str, &str)]] = &[&[("plan", "gold")], &[("plan", "max")]];
    send(&mut visitor, &of("/settings/checkout"), &inside("/settings/checkout"), checkout);
    let operate: &[&[(&str, &str)]] = &[&[("action", "freeze")]];
    send(&mut visitor, &of("/settings/operate"), &inside("/settings/operate"), operate);
    let approval = waiting_restore(&authority, &org, name);
    let decide: &[&[(&str, &str)]] = &[
        &[],
        &[("approval", "0"), ("decision", "reject")],
        &[("approval", &approval), ("decision", "approve")],
        &[("approval", &approval), ("decision", "reject")],
    ];
    send(&mut visitor, &of("/approvals"), &inside("/approvals"), decide);
    authority.admin_json(&["set", id, "--restore-needs", "1"]);
    let rotate: &[&[(&str, &str)]] = &[
        &[],
        &[("confirm", "rotate"), ("overlap", "soon")],
        &[("confirm", "rotate"), ("overlap", "9999h")],
        &[("confirm", "rotate"), ("overlap", "1h")],
    ];
    send(&mut visitor, &of("/settings/rotate-key"), &inside("/settings/rotate-key"), rotate);
    let end: &[&[(&str, &str)]] = &[&[], &[("confirm", "end")]];
    send(&mut visitor, &of("/settings/end-old-key"), &inside("/settings/end-old-key"), end);
    let make: &[&[(&str, &str)]] = &[&[], &[("role", "root")], &[("role", "read"), ("name", "board")]];
    send(&mut visitor, &of("/keys"), &inside("/keys"), make);
    let keys = authority.admin_json(&["key", "list", id]);
    let board = keys.as_array().unwrap().iter().find(|key| key["name"] == "board").unwrap();
    let key = format!("/keys/{}", board["fingerprint"].as_str().unwrap());
    let rotate: &[&[(&str, &str)]] = &[&[], &[("confirm", "rotate"), ("overlap", "1h")]];
    send(&mut visitor, &of("/keys/{key}/rotate"), &inside(&format!("{key}/rotate")), rotate);
    let revoke: &[&[(&str, &str)]] = &[&[], &[("confirm", "revoke")], &[("confirm", "revoke")]];
    send(&mut visitor, &of("/keys/{key}/revoke"), &inside(&format!("{key}/revoke")), revoke);
    let out: &[&[(&str, &str)]] = &[&[]];
    send(&mut visitor, "/console/sign-out", "/console/sign-out", out);
    let key: &[&[(&str, &str)]] = &[&[("key", "org_no")]];
    send(&mut visitor, "/console/sign-in", "/console/sign-in", key);
    let link: &[&[(&str, &str)]] = &[&[]];
    send(&mut visitor, "/console/operator/{secret}", "/console/operator/none", link);
    let mut operator = operator(&authority);
    let create: &[&[(&str, &str)]] = &[&[], &[("plan", "pro"), ("name", "Acme")]];
    send(&mut operator, "/console/orgs", "/console/orgs", create);
    let freeze: &[&[(&str, &str)]] = &[&[("action", "freeze")], &[("action", "unfreeze")], &[("action", "dance")]];
    send(&mut operator, &of("/settings/operate"), &inside("/settings/operate"), freeze);
    let number = authority.admin_json(&["checkouts"])[0]["number"].as_str().unwrap().to_owned();
    let link = authority.admin_json(&["confirm-checkout", &number, "--link"]).as_str().unwrap().to_owned();
    let path = link.strip_prefix(&authority.url()).unwrap().to_owned();
    let twice: &[&[(&str, &str)]] = &[&[], &[]];
    send(&mut operator, "/checkout/{token}", &path, twice);
    assert_eq!(tried, forms(), "a route that takes a form and is not tried here, or one that is no more");
}

#[test]
fn a_result_is_shown_again_and_undoes_nothing_that_came_since() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b"]);
    org.device("revoke", "a");
    let mut visitor = Visitor::signed_in(&org);
    let reply = visitor.post(&format!("{}/devices", place(&org)), &[("action", "restore"), ("id", "a"), ("id", "b")]);
    let shown = visitor.follow(&reply);
    assert!(shown.status == 200 && shown.text.contains("Restored: 2 of 2"), "{}", shown.text);
    // Another operator.
    org.device("revoke", "a");
    let audited = |org: &Org<'_>| org.get("/org/audit").json()["entries"].as_array().unwrap().len();
    let before = audited(&org);
    for _ in 0..3 {
        assert_eq!(visitor.follow(&reply).text, shown.text);
    }
    assert_eq!((org.code("a").as_str(), audited(&org)), ("DEVICE_REVOKED", before));
    let address = reply.header("location").unwrap().to_owned();
    // Of another session of the same key, and of the operator who may see the organisation.
    for mut other in [Visitor::signed_in(&org), operator(&authority)] {
        let gone = other.get(&address);
        assert!(gone.status == 410 && !gone.text.contains("Restored: 2"), "{}", gone.text);
    }
    let elsewhere = authority.org("pro");
    assert_eq!(Visitor::signed_in(&elsewhere).get(&address).status, 404);
    assert_eq!(Visitor::new(&authority).get(&address).status, 303, "no session is signed in");
    assert_eq!(visitor.get(&format!("{}/result/17", place(&org))).status, 410);
    assert_eq!(visitor.get(&format!("{}/result/x", place(&org))).status, 404);
}

#[test]
fn a_new_key_is_shown_once_and_its_page_says_so_afterwards() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut visitor = Visitor::signed_in(&org);
    let reply = visitor.post(&format!("{}/settings/rotate-key", place(&org)), &[("confirm", "rotate")]);
    let address = reply.header("location").unwrap().to_owned();
    // A browser that fetches ahead uses nothing up.
    assert!(!visitor.send("GET", &address, &["sec-purpose: prefetch"], b"").text.contains("org_"));
    let first = visitor.get(&address).text;
    assert!(first.contains("org_") && first.contains("stays valid until"), "{first}");
    let second = visitor.get(&address);
    assert_eq!(second.status, 200);
    assert!(!second.text.contains("org_") && second.text.contains("was shown once"), "{}", second.text);
    assert_eq!(org.get("/usage").status, 200, "the old key is valid for a while");
    let mut operator = operator(&authority);
    let reply = operator.post("/console/orgs", &[("plan", "free")]);
    assert!(operator.follow(&reply).text.contains("org_"));
    let again = operator.follow(&reply).text;
    assert!(!again.contains("org_") && again.contains("was shown once"), "{again}");
}

#[test]
fn revoked_devices_are_removed_only_when_that_was_typed_too() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b", "c"]);
    org.device("revoke", "a");
    let mut visitor = Visitor::signed_in(&org);
    let path = format!("{}/devices", place(&org));
    let both = [("action", "remove"), ("id", "a"), ("id", "b")];
    let asked = visitor.sent(&path, &both).text;
    assert!(asked.contains("1 of them is revoked") && asked.contains("type the word revoked"), "{asked}");
    let done = visitor.sent(&path, &[&both[..], &[("confirm", "2")]].concat()).text;
    assert!(done.contains("Removed: 1 of 2") && done.contains("is revoked and was not removed"), "{done}");
    assert_eq!((org.code("a").as_str(), org.code("b").as_str()), ("DEVICE_REVOKED", "DEVICE_NOT_FOUND"));
    // One that another operator revoked after the page was shown.
    let asked = visitor.sent(&path, &[("action", "remove"), ("id", "c")]).text;
    assert!(!asked.contains("type the word revoked"), "{asked}");
    org.device("revoke", "c");
    let one = [("action", "remove"), ("id", "c"), ("confirm", "1")];
    assert!(visitor.sent(&path, &one).text.contains("is revoked and was not removed"));
    assert_eq!(org.code("c"), "DEVICE_REVOKED");
    let done = visitor.sent(&path, &[&one[..], &[("revoked", "revoked")]].concat()).text;
    assert!(done.contains("Removed: 1 of 1") && org.code("c") == "DEVICE_NOT_FOUND", "{done}");
}

#[test]
fn a_reload_in_a_browser_asks_nothing_and_repeats_nothing() {
    let Some(mut browser) = Browser::start("a_reload_in_a_browser_asks_nothing_and_repeats_nothing") else { return };
    let authority = Authority::start();
    let org = authority.org("scale");
    let names: Vec<String> = (0..90).map(|number| format!("host:{number:03}")).collect();
    org.register(&names.iter().map(String::as_str).collect::<Vec<_>>());
    org.post("/devices/revoke_batch", &json!({"deviceIds": names}));
    sign_in(&mut browser, &org);
    browser.run("for (const box of document.querySelectorAll('input[name=id]')) box.checked = true");
    browser.fill(&field(REASON), "over");
    browser.click(&button("Restore"));
    browser.see(&css("main").with("Restored: 90 of 90."));
    let result = browser.url();
    assert!(result.contains("/result/"), "{result}");
    org.device("revoke", "host:007");
    browser.run("window.before = true; location.reload()");
    browser.see(&css("main").with("Restored: 90 of 90."));
    assert_eq!(browser.url(), result);
    assert_eq!((org.code("host:007").as_str(), org.code("host:008").as_str()), ("DEVICE_REVOKED", "ALLOW"));
    // Away and back.
    browser.go(&format!("{}/console/org/{}", authority.url(), org.id));
    browser.see(&role("heading", "Fleet"));
    browser.run("history.back()");
    browser.see(&css("main").with("Restored: 90 of 90."));
    assert_eq!(org.code("host:007"), "DEVICE_REVOKED");
    browser.assert_content();
}
