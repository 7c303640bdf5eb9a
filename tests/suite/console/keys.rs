//! Keys with roles in the console: what each may do there, and the pages that make and end them.

use super::hints::{follow, reaches};
use super::pages::{between, operator, place};
use super::visitor::Visitor;
use crate::harness::authority::{Authority, Org};
use crate::harness::wait::until;

/// The fields of a form.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// The fingerprint of the valid key with this name.
fn fingerprint(org: &Org<'_>, name: &str) -> String {
    let keys = org.authority.admin_json(&["key", "list", &org.id]);
    let mut keys = keys.as_array().unwrap().iter();
    let found = keys.find(|key| key["name"] == name && key["state"] == "valid");
    found.unwrap_or_else(|| panic!("no valid key {name}"))["fingerprint"].as_str().unwrap().to_owned()
}

/// The new key on the page that shows it.
fn shown(page: &str) -> String {
    between(page, r#"<pre id="new-key">"#, "<").to_owned()
}

/// What a page can offer: the links and forms that change something, as they stand in its text.
const RESTORE: [&str; 3] = [r#"value="restore""#, "/restore\"", "Restore"];
const REMOVE: [&str; 2] = [r#"value="remove""#, "Remove"];
const ADMINISTER: [&str; 5] =
    ["/keys\"", "/settings/execution", "/settings/rotate-key", "/settings/end-old-key", "#key"];
const CHECKOUT: &str = "/settings/checkout";
const STOP: [&str; 2] = ["/stop\"", r#"value="revoke""#];

#[test]
fn a_stop_key_stops_and_is_offered_and_allowed_nothing_that_gives_back() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b", "old"]);
    org.device("revoke", "old");
    // An old key of the organisation, to see that ending it is not offered.
    org.admin("rotate-key", &["--overlap", "1h"]);
    let oncall = org.with_role(&["--role", "stop", "--name", "oncall"]);
    let mut visitor = Visitor::signed_in(&oncall);
    let stop = format!("{}/stop", place(&org));
    let fleet = visitor.get(&place(&org)).text;
    assert!(fleet.contains("Signed in as <strong>stop</strong>") && fleet.contains("oncall"), "{fleet}");
    assert!(STOP.iter().all(|offer| fleet.contains(offer)), "{fleet}");
    visitor.get(&stop);
    let reply = visitor.post(&stop, &[("shown", "2"), ("confirm", "2"), ("reason", "drill")]);
    let board = reply.header("location").unwrap().to_owned();
    assert_eq!((org.code("a").as_str(), org.code("b").as_str()), ("DEVICE_REVOKED", "DEVICE_REVOKED"));
    let pages = [
        place(&org),
        format!("{}/device?id=a", place(&org)),
        format!("{}/settings", place(&org)),
        format!("{}/audit", place(&org)),
        stop,
        board.clone(),
    ];
    for path in pages {
        let page = visitor.get(&path);
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        for offer in RESTORE.iter().chain(&REMOVE).chain(&ADMINISTER).chain([&CHECKOUT]) {
            assert!(!page.text.contains(offer), "{offer} on {path}: {}", page.text);
        }
    }
    for path in [format!("{board}/restore"), format!("{}/keys", place(&org))] {
        let refused = visitor.get(&path);
        assert!(refused.status == 403 && refused.text.contains("role stop"), "{path}: {}", refused.text);
    }
    visitor.get(&place(&org));
    let inside = |rest: &str| format!("{}{rest}", place(&org));
    let key = fingerprint(&org, "oncall");
    let forms: [(String, Fields<'_>); 9] = [
        (format!("{board}/restore"), &[("shown", "2"), ("confirm", "2")]),
        (inside("/devices"), &[("action", "restore"), ("id", "a")]),
        (inside("/devices"), &[("action", "remove"), ("id", "a"), ("confirm", "1"), ("revoked", "revoked")]),
        (inside("/settings/execution"), &[("execution", "on")]),
        (inside("/settings/rotate-key"), &[("confirm", "rotate")]),
        (inside("/settings/checkout"), &[("plan", "max")]),
        (inside("/keys"), &[("role", "admin")]),
        (inside(&format!("/keys/{key}/rotate")), &[("confirm", "rotate")]),
        (inside(&format!("/keys/{key}/revoke")), &[("confirm", "revoke")]),
    ];
    for (path, fields) in forms {
        let refused = visitor.post(&path, fields);
        assert!(refused.status == 403 && refused.text.contains("Nothing was changed"), "{path}: {}", refused.text);
    }
    assert_eq!((org.code("a").as_str(), org.code("b").as_str()), ("DEVICE_REVOKED", "DEVICE_REVOKED"));
    let keys = authority.admin_json(&["key", "list", &org.id]);
    assert_eq!(keys.as_array().unwrap().len(), 3, "the organisation's two and this one: {keys}");
}

#[test]
fn a_read_key_is_offered_nothing_that_changes_and_an_operate_key_all_but_administration() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b"]);
    org.device("revoke", "b");
    let pages = |visitor: &mut Visitor<'_>| -> String {
        let paths = ["", "/device?id=a", "/settings", "/audit"].map(|rest| format!("{}{rest}", place(&org)));
        let mut all = String::new();
        for path in paths {
            let page = visitor.get(&path);
            assert_eq!(page.status, 200, "{path}: {}", page.text);
            all.push_str(&page.text);
        }
        all
    };
    let (reading, operating) = (org.with_role(&["--role", "read"]), org.with_role(&["--role", "operate"]));
    let mut reader = Visitor::signed_in(&reading);
    let seen = pages(&mut reader);
    assert!(seen.contains("Signed in as <strong>read</strong>") && !seen.contains("checkbox"), "{seen}");
    for offer in STOP.iter().chain(&RESTORE).chain(&REMOVE).chain(&ADMINISTER).chain([&CHECKOUT]) {
        assert!(!seen.contains(offer), "{offer}: {seen}");
    }
    assert_eq!(reader.get(&format!("{}/stop", place(&org))).status, 403);
    reader.get(&place(&org));
    let revoke = [("action", "revoke"), ("id", "a")];
    assert_eq!(reader.post(&format!("{}/devices", place(&org)), &revoke).status, 403);
    assert_eq!(org.code("a"), "ALLOW");

    let mut visitor = Visitor::signed_in(&operating);
    let seen = pages(&mut visitor);
    assert!(seen.contains("Signed in as <strong>operate</strong>"), "{seen}");
    for offer in STOP.iter().chain(&RESTORE[..1]).chain(&REMOVE).chain([&CHECKOUT]) {
        assert!(seen.contains(offer), "{offer}: {seen}");
    }
    for offer in ADMINISTER {
        assert!(!seen.contains(offer), "{offer}: {seen}");
    }
    let done = visitor.sent(&format!("{}/devices", place(&org)), &[("action", "restore"), ("id", "b")]).text;
    assert!(done.contains("Restored: 1 of 1") && org.code("b") == "ALLOW", "{done}");

    let mut admin = Visitor::signed_in(&org);
    let seen = pages(&mut admin);
    assert!(seen.contains("Signed in as <strong>admin</strong>") && seen.contains("/keys\""), "{seen}");
    let seen = operator(&authority).get(&place(&org)).text;
    assert!(
        seen.contains("Signed in as <strong>operator of this server</strong>") && seen.contains("/keys\""),
        "{seen}"
    );
}

#[test]
fn a_host_key_cannot_sign_in() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let host = org.with_role(&["--role", "host", "--devices", "k8s:*"]);
    let mut visitor = Visitor::new(&authority);
    let refused = visitor.post_raw("/console/sign-in", &[("key", &host.key)], &[]);
    assert!(refused.status == 403 && refused.text.contains("key, which cannot sign in"), "{}", refused.text);
    assert!(refused.header("set-cookie").is_none() && visitor.cookie.is_none());
    assert_eq!(visitor.get(&place(&org)).status, 303);
    host.register(&["k8s:1"]);
    assert_eq!(host.code("k8s:1"), "ALLOW", "it does a host's work");
}

#[test]
fn a_key_made_in_the_console_works_for_a_validation_and_is_shown_once() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut visitor = Visitor::signed_in(&org);
    let keys = format!("{}/keys", place(&org));
    assert!(visitor.get(&keys).text.contains("the organisation's own key"));
    let fields =
        [("role", "host"), ("devices", "k8s:*"), ("name", "cluster-1"), ("lifetime", "720h"), ("reason", "rollout")];
    let reply = visitor.post(&keys, &fields);
    assert_eq!(reply.status, 303, "{}", reply.text);
    let address = reply.header("location").unwrap().to_owned();
    // A browser that fetches ahead uses nothing up.
    assert!(!visitor.send("GET", &address, &["sec-purpose: prefetch"], b"").text.contains("org_"));
    assert_eq!(Visitor::signed_in(&org).get(&address).status, 410, "another session of the same key");
    let page = visitor.get(&address).text;
    let host = Org { authority: &authority, id: org.id.clone(), key: shown(&page) };
    assert!(host.key.starts_with("org_") && page.contains("k8s:*") && page.contains("cluster-1"), "{page}");
    let again = visitor.get(&address);
    assert!(again.status == 200 && !again.text.contains("org_"), "{}", again.text);
    assert!(again.text.contains("was shown once"), "{}", again.text);

    host.register(&["k8s:1"]);
    assert_eq!(host.code("k8s:1"), "ALLOW");
    assert_eq!(host.device("register", "vm:1").status, 403, "only the devices that it names");
    let listed = until("the list shows the key's use", || {
        let page = visitor.get(&keys).text;
        let row = between(&page, "<span class=\"id\">cluster-1</span>", "</tr>").to_owned();
        (!row.contains("not yet") && row.contains("Used by devices\">1<")).then_some(row)
    });
    for word in ["host", "k8s:*", "Valid", "in 29 days"] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    let entries = org.get("/org/audit").json()["entries"].as_array().unwrap().clone();
    let made = entries.iter().find(|entry| entry["verb"] == "org/keys/create").unwrap_or_else(|| panic!("{entries:?}"));
    assert!(made["reason"] == "rollout" && made["actor"].as_str().unwrap().starts_with("console:key:"), "{made}");
    assert!(!authority.log().contains(&host.key) && !format!("{entries:?}").contains(&host.key));
}

#[test]
fn a_form_about_keys_that_is_wrong_is_refused_in_a_sentence() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let named = org.with_role(&["--role", "read", "--name", "taken"]);
    let mut visitor = Visitor::signed_in(&org);
    let keys = format!("{}/keys", place(&org));
    let one = format!("{keys}/{}", fingerprint(&org, "taken"));
    let own = authority.admin_json(&["key", "list", &org.id])[0]["fingerprint"].as_str().unwrap().to_owned();
    let own = format!("{keys}/{own}");
    assert!(visitor.get(&own).text.contains("never revoked"));
    let (rotate, revoke) = (("confirm", "rotate"), ("confirm", "revoke"));
    let wrong: [(String, Fields<'_>, &str); 11] = [
        (keys.clone(), &[], "Choose one of the roles."),
        (keys.clone(), &[("role", "stop"), ("devices", "k8s:*")], "Only a key of the role host"),
        (keys.clone(), &[("role", "host"), ("devices", "a b")], "not a pattern of device ids"),
        (keys.clone(), &[("role", "stop"), ("name", "on call")], "1 to 64 letters"),
        (keys.clone(), &[("role", "stop"), ("name", "taken")], "Another valid key has that name."),
        (keys.clone(), &[("role", "stop"), ("lifetime", "99999h")], "1 second to 10 years"),
        (format!("{one}/rotate"), &[], "type the word rotate"),
        (format!("{one}/rotate"), &[rotate, ("overlap", "9999h")], "90 days"),
        (format!("{one}/revoke"), &[], "type the word revoke"),
        (format!("{own}/rotate"), &[rotate], "own key"),
        (format!("{own}/revoke"), &[revoke], "own key"),
    ];
    for (path, fields, sentence) in wrong {
        let refused = visitor.post(&path, fields);
        assert!(refused.status == 400 && refused.text.contains(sentence), "{path} {fields:?}: {}", refused.text);
    }
    for path in [format!("{keys}/000000000000"), format!("{keys}/taken")] {
        assert_eq!(visitor.get(&path).status, 404, "{path}");
    }
    assert_eq!(named.get("/usage").status, 200, "nothing was changed");
}

#[test]
fn a_key_is_rotated_and_revoked_on_its_page() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let old = org.with_role(&["--role", "read", "--name", "board"]);
    let mut visitor = Visitor::signed_in(&org);
    let keys = format!("{}/keys", place(&org));
    let first = format!("{keys}/{}", fingerprint(&org, "board"));
    let page = visitor.get(&first).text;
    assert!(page.contains("Type the word rotate") && page.contains("Type the word revoke"), "{page}");
    let page = visitor.sent(&format!("{first}/rotate"), &[("confirm", "rotate"), ("overlap", "1h")]).text;
    assert!(page.contains("stays valid until"), "{page}");
    let new = Org { authority: &authority, id: org.id.clone(), key: shown(&page) };
    assert_eq!((old.get("/usage").status, new.get("/usage").status), (200, 200));
    let page = visitor.get(&first).text;
    assert!(page.contains("Rotated, still valid") && !page.contains("Type the word rotate"), "{page}");
    let again = visitor.post(&format!("{first}/rotate"), &[("confirm", "rotate")]);
    assert!(again.status == 400 && again.text.contains("was rotated already"), "{}", again.text);
    let second = format!("{keys}/{}", fingerprint(&org, "board"));
    assert_ne!(first, second);
    let page = visitor.sent(&format!("{second}/revoke"), &[("confirm", "revoke"), ("reason", "lost")]).text;
    assert!(page.contains("The key is revoked.") && page.contains("Ended keys"), "{page}");
    assert_eq!((old.get("/usage").status, new.get("/usage").status), (200, 401));
    let again = visitor.post(&format!("{second}/revoke"), &[("confirm", "revoke")]);
    assert_eq!(again.status, 303, "a repeated request is no mistake");
}

#[test]
fn a_session_that_rotates_its_own_key_sees_the_new_one_and_goes_on() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let second = org.with_role(&["--role", "admin", "--name", "second"]);
    let mut visitor = Visitor::signed_in(&second);
    let before = visitor.cookie.clone();
    let mine = format!("{}/keys/{}", place(&org), fingerprint(&org, "second"));
    assert!(visitor.get(&mine).text.contains("This session began with this key"));
    let page = visitor.sent(&format!("{mine}/rotate"), &[("confirm", "rotate"), ("overlap", "0s")]).text;
    assert!(page.contains("The old key is invalid"), "{page}");
    let new = Org { authority: &authority, id: org.id.clone(), key: shown(&page) };
    assert_eq!((second.get("/usage").status, new.get("/usage").status), (401, 200));
    assert_ne!(visitor.cookie, before, "a session of the new key");
    assert_eq!(visitor.get(&place(&org)).status, 200);
}

/// The page of this session leads to signing in, and the server has forgotten the session.
#[track_caller]
fn assert_ended(visitor: &mut Visitor<'_>, org: &Org<'_>) {
    let reply = visitor.get(&place(org));
    assert!(reply.status == 303 && reply.header("location").unwrap().contains("/sign-in?"), "{}", reply.text);
    // A session that still counted would lead from there to the console again, in a circle.
    assert_eq!(visitor.get("/console/sign-in").status, 200);
}

#[test]
fn a_session_ends_when_its_key_is_revoked_and_so_do_its_live_events() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let oncall = org.with_role(&["--role", "stop", "--name", "oncall"]);
    let (mut visitor, mut watching) = (Visitor::signed_in(&oncall), Visitor::signed_in(&oncall));
    let mut other = Visitor::signed_in(&org);
    let mut events = follow(&watching, &org.id);
    assert!(reaches(&mut events, "event: ready"));
    authority.admin_json(&["key", "revoke", &org.id, "oncall"]);
    assert!(!reaches(&mut events, "event: never"), "the stream ends");
    assert_ended(&mut visitor, &org);
    // The one that only watched asked nothing since.
    assert_eq!(watching.get("/console/sign-in").status, 200);
    assert_ended(&mut watching, &org);
    assert_eq!(other.get(&place(&org)).status, 200, "those of other keys go on");
    let refused = Visitor::new(&authority).post_raw("/console/sign-in", &[("key", &oncall.key)], &[]);
    assert_eq!(refused.status, 401);
}

#[test]
fn a_session_ends_when_its_key_expires_and_so_do_its_live_events() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let brief = org.with_role(&["--role", "read", "--expires", "3s"]);
    let mut visitor = Visitor::signed_in(&brief);
    let mut events = follow(&visitor, &org.id);
    assert!(reaches(&mut events, "event: ready"));
    assert!(!reaches(&mut events, "event: never"), "the stream ends with the key");
    assert_ended(&mut visitor, &org);
}

#[test]
fn a_key_that_may_only_look_signs_out_none_but_its_own_sessions() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let reader = org.with_role(&["--role", "read"]);
    let (mut one, mut two) = (Visitor::signed_in(&reader), Visitor::signed_in(&reader));
    let oncall = org.with_role(&["--role", "stop"]);
    let mut stopping = Visitor::signed_in(&oncall);
    let mut admin = Visitor::signed_in(&org);
    assert_eq!(one.post("/console/sign-out", &[("everywhere", "yes")]).status, 303);
    assert_eq!(two.get(&place(&org)).status, 303);
    assert_eq!(stopping.get(&place(&org)).status, 200);
    assert_eq!(admin.post("/console/sign-out", &[("everywhere", "yes")]).status, 303);
    assert_eq!(stopping.get(&place(&org)).status, 303, "an administrator signs out all of them");
}
