//! Signing in and out, and what a session is protected from.

use std::process::Command;

use super::visitor::{Visitor, encoded};
use crate::harness::authority::{Authority, BINARY};

/// The path of an address that signs the server's operator in.
pub(crate) fn link(authority: &Authority, arguments: &[&str]) -> String {
    let output = Command::new(BINARY)
        .args(["console-link", "--admin-socket"])
        .arg(authority.admin_socket())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let url = String::from_utf8(output.stdout).unwrap();
    url.trim().strip_prefix(&authority.url()).unwrap().to_owned()
}

#[test]
fn the_org_key_opens_a_session_and_is_kept_nowhere() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut visitor = Visitor::new(&authority);
    let start = visitor.get("/console");
    assert_eq!((start.status, start.header("location")), (303, Some("/console/sign-in")));
    let page = visitor.follow(&start);
    assert!(page.status == 200 && page.text.contains(r#"type="password""#), "{}", page.text);
    let reply = visitor.post_raw("/console/sign-in", &[("key", &org.key)], &["sec-fetch-site: same-origin"]);
    let fleet = format!("/console/org/{}", org.id);
    assert_eq!((reply.status, reply.header("location")), (303, Some(fleet.as_str())));
    let cookie = reply.header("set-cookie").unwrap();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains(&org.key), "{cookie}");
    let page = visitor.follow(&reply);
    assert!(page.status == 200 && page.text.contains("No device yet") && !page.text.contains(&org.key));
    assert!(!authority.log().contains(&org.key));
    let id = visitor.cookie.clone().unwrap();
    assert!(!authority.log().contains(id.split_once('=').unwrap().1), "the session is in the log");
}

#[test]
fn behind_https_the_cookie_goes_no_other_way() {
    let authority = Authority::start_with(&["--public-url", "https://authority.example/base"]);
    let org = authority.org("pro");
    let mut visitor = Visitor::new(&authority);
    let reply = visitor.post_raw("/console/sign-in", &[("key", &org.key)], &["origin: https://authority.example"]);
    let cookie = reply.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-") && cookie.contains("; Secure"), "{cookie}");
    let fleet = format!("/base/console/org/{}", org.id);
    assert_eq!(reply.header("location"), Some(fleet.as_str()));
}

#[test]
fn an_unknown_key_and_no_key_at_all_get_the_same_answer() {
    let authority = Authority::start();
    let deleted = authority.org("pro");
    deleted.admin("delete", &["--yes"]);
    let mut visitor = Visitor::new(&authority);
    let unknown = format!("org_{}", "0".repeat(64));
    let mut answers: Vec<_> = [unknown.as_str(), "no key", "", deleted.key.as_str()]
        .iter()
        .map(|key| {
            let reply = visitor.post_raw("/console/sign-in", &[("key", key)], &[]);
            assert!(reply.header("set-cookie").is_none());
            (reply.status, reply.text)
        })
        .collect();
    assert_eq!(answers[0].0, 401);
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[test]
fn who_guesses_keys_is_told_to_wait() {
    let authority = Authority::start_with(&["--failed-keys-per-minute", "3"]);
    let org = authority.org("pro");
    let mut visitor = Visitor::new(&authority);
    let mut guess = |key: &str| visitor.post_raw("/console/sign-in", &[("key", key)], &[]);
    for _ in 0..3 {
        assert_eq!(guess("org_guess").status, 401);
    }
    let refused = guess("org_guess");
    assert!(refused.status == 429 && refused.header("retry-after").is_some(), "{}", refused.text);
    assert_eq!(guess(&org.key).status, 303, "a client that knows the key is no guesser");
}

#[test]
fn pages_count_against_the_limit_of_their_organisation() {
    let authority = Authority::start_with(&["--management-per-minute", "2"]);
    let org = authority.org("pro");
    let mut visitor = Visitor::signed_in(&org);
    let fleet = format!("/console/org/{}", org.id);
    assert_eq!(visitor.get(&fleet).status, 200);
    let refused = visitor.get(&fleet);
    assert!(refused.status == 429 && refused.header("retry-after").is_some(), "{}", refused.text);
    assert!(refused.text.contains("Agents are not affected"), "{}", refused.text);
}

#[test]
fn a_session_that_somebody_planted_is_never_taken_on() {
    let authority = Authority::start();
    let (org, other) = (authority.org("pro"), authority.org("pro"));
    let mut attacker = Visitor::signed_in(&other);
    let planted = attacker.cookie.clone();
    let mut victim = Visitor { cookie: planted.clone(), ..Visitor::new(&authority) };
    victim.post_raw("/console/sign-in", &[("key", &org.key)], &[]);
    assert!(victim.cookie.is_some() && victim.cookie != planted);
    let reply = attacker.get(&format!("/console/org/{}", other.id));
    assert_eq!(reply.status, 303, "the planted session is ended");
    let mut made_up = Visitor { cookie: Some("machineid-console=0123".to_owned()), ..Visitor::new(&authority) };
    made_up.post_raw("/console/sign-in", &[("key", &org.key)], &[]);
    assert_ne!(made_up.cookie.as_deref(), Some("machineid-console=0123"));
}

#[test]
fn signing_out_and_a_new_key_end_a_session() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let fleet = format!("/console/org/{}", org.id);
    let mut visitor = Visitor::signed_in(&org);
    let cookie = visitor.cookie.clone();
    assert_eq!(visitor.post("/console/sign-out", &[]).status, 303);
    assert!(visitor.cookie.is_none());
    let mut thief = Visitor { cookie, ..Visitor::new(&authority) };
    assert_eq!(thief.get(&fleet).status, 303, "the id is worth nothing any more");

    let (mut one, mut two) = (Visitor::signed_in(&org), Visitor::signed_in(&org));
    assert_eq!(one.post("/console/sign-out", &[("everywhere", "yes")]).status, 303);
    assert_eq!(two.get(&fleet).status, 303, "everywhere");

    let mut visitor = Visitor::signed_in(&org);
    assert_eq!(visitor.get(&fleet).status, 200);
    org.admin("rotate-key", &["--overlap", "0s"]);
    let reply = visitor.get(&fleet);
    assert_eq!(reply.header("location"), Some(format!("/console/sign-in?next={}", encoded(&fleet[8..])).as_str()));
}

#[test]
fn a_session_sees_its_own_organisation_and_no_other() {
    let authority = Authority::start();
    let (org, other) = (authority.org("pro"), authority.org("pro"));
    other.register(&["theirs"]);
    let mut visitor = Visitor::signed_in(&org);
    for path in ["", "/events"] {
        assert_eq!(visitor.get(&format!("/console/org/{}{path}", other.id)).status, 404, "{path}");
    }
    let reply = visitor.post(&format!("/console/org/{}/devices", other.id), &[("action", "revoke"), ("id", "theirs")]);
    assert_eq!((reply.status, other.code("theirs").as_str()), (404, "ALLOW"));
}

#[test]
fn a_form_of_another_website_changes_nothing() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    let mut visitor = Visitor::signed_in(&org);
    let path = format!("/console/org/{}/devices", org.id);
    let fields = [("action", "revoke"), ("id", "a")];
    for (fields, headers) in [
        (&fields[..], &[][..]),
        (&[("csrf", ""), fields[0], fields[1]], &[]),
        (&[("csrf", "0123"), fields[0], fields[1]], &["sec-fetch-site: same-origin"]),
    ] {
        let reply = visitor.post_raw(&path, fields, headers);
        assert!(reply.status == 403 && reply.text.contains("Nothing was changed"), "{}", reply.text);
    }
    let page = visitor.get(&format!("/console/org/{}", org.id));
    let csrf = page.text.split_once(r#"name="csrf" value=""#).unwrap().1.split('"').next().unwrap();
    let whole = [("csrf", csrf), fields[0], fields[1]];
    for header in
        ["sec-fetch-site: cross-site", "sec-fetch-site: same-site", "origin: https://evil.example", "origin: null"]
    {
        assert_eq!(visitor.post_raw(&path, &whole, &[header]).status, 403, "{header}");
    }
    assert_eq!(visitor.post_raw("/console/sign-in", &[("key", &org.key)], &["origin: null"]).status, 403);
    assert_eq!(org.code("a"), "ALLOW");
    let elsewhere = Visitor::signed_in(&org).post_raw(&path, &whole, &[]);
    assert_eq!((elsewhere.status, org.code("a").as_str()), (403, "ALLOW"), "another session's token");
    assert_eq!(visitor.post(&path, &fields).status, 303);
    assert_eq!(org.code("a"), "DEVICE_REVOKED");
}

#[test]
fn signing_in_leads_back_to_where_one_was_and_never_elsewhere() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut visitor = Visitor::new(&authority);
    let wanted = format!("/console/org/{}?q=web%2F1", org.id);
    let reply = visitor.get(&wanted);
    let page = visitor.follow(&reply);
    let next = page.text.split_once(r#"name="next" value=""#).unwrap().1.split('"').next().unwrap().to_owned();
    let reply = visitor.post_raw("/console/sign-in", &[("key", &org.key), ("next", &next)], &[]);
    assert_eq!(reply.header("location"), Some(wanted.as_str()));
    let fleet = format!("/console/org/{}", org.id);
    for next in ["//evil.example", "https://evil.example/", "/\\evil.example", "@evil.example", ".evil.example"] {
        let mut visitor = Visitor::new(&authority);
        let page = visitor.get(&format!("/console/sign-in?next={}", encoded(next)));
        assert!(!page.text.contains("evil"), "{}", page.text);
        let reply = visitor.post_raw("/console/sign-in", &[("key", &org.key), ("next", next)], &[]);
        assert_eq!(reply.header("location"), Some(fleet.as_str()), "{next}");
    }
}

#[test]
fn every_page_keeps_itself_to_itself() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut visitor = Visitor::signed_in(&org);
    let fleet = format!("/console/org/{}", org.id);
    for (path, status) in [(fleet.as_str(), 200), ("/console/nothing", 404), ("/console", 303)] {
        let page = visitor.get(path);
        assert_eq!(page.status, status, "{path}");
        let policy = page.header("content-security-policy").unwrap();
        for rule in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in
            [("cache-control", "no-store"), ("x-content-type-options", "nosniff"), ("referrer-policy", "same-origin")]
        {
            assert_eq!(page.header(name), Some(value), "{path} {name}");
        }
        for inline in ["<script>", "<style", " style=", " onclick=", "javascript:"] {
            assert!(!page.text.contains(inline), "{inline} in {path}");
        }
    }
    let page = visitor.get(&fleet);
    for (before, kind) in [(r#"<script src=""#, "text/javascript"), (r#"rel="stylesheet" href=""#, "text/css")] {
        let file = page.text.split_once(before).unwrap().1.split('"').next().unwrap();
        let reply = Visitor::new(&authority).get(file);
        assert!(reply.status == 200 && reply.header("content-type").unwrap().starts_with(kind), "{file}");
        assert!(reply.header("cache-control").unwrap().contains("immutable"));
    }
}

#[test]
fn an_operators_link_signs_in_once() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let path = link(&authority, &["--org", &org.id]);
    let mut visitor = Visitor::new(&authority);
    for _ in 0..2 {
        let page = visitor.get(&path);
        assert!(page.status == 200 && page.header("set-cookie").is_none(), "to look does not sign in");
    }
    let reply = visitor.post_raw(&path, &[], &[]);
    assert_eq!(reply.header("location"), Some(format!("/console/org/{}", org.id).as_str()));
    assert_eq!(visitor.follow(&reply).status, 200);
    let mut late = Visitor::new(&authority);
    assert_eq!((late.get(&path).status, late.post_raw(&path, &[], &[]).status), (410, 410));
    assert!(late.cookie.is_none() && !authority.log().contains(path.rsplit('/').next().unwrap()));
    let unknown = Command::new(BINARY)
        .args(["console-link", "--org", "00000000-0000-4000-8000-000000000000", "--admin-socket"])
        .arg(authority.admin_socket())
        .output()
        .unwrap();
    assert!(!unknown.status.success() && unknown.stdout.is_empty());
}
