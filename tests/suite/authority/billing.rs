//! Signing up, and the page that confirms a plan.

use serde_json::json;

use crate::harness::authority::Authority;
use crate::harness::http::{self, Reply};

fn browse(authority: &Authority, method: &str, url: &str) -> Reply {
    let path = url.strip_prefix(&authority.url()).unwrap();
    http::request(authority.address(), method, path, &[], b"")
}

#[test]
fn anyone_may_sign_up_for_a_free_organisation() {
    let authority = Authority::start();
    let reply = authority.call("POST", "/org/create", None, b"{}");
    let answer = reply.json();
    assert_eq!((reply.status, &answer["status"], &answer["handler"]), (200, &json!("ok"), &json!("org_create")));
    let key = answer["orgApiKey"].as_str().unwrap();
    assert!(key.starts_with("org_") && key.len() == 68);
    let usage = authority.call("GET", "/usage", Some(key), b"").json();
    assert_eq!((&usage["planTier"], &usage["limit"]), (&json!("free"), &json!(3)));
    assert_eq!(authority.call("POST", "/org/create", None, b"").status, 400);
}

#[test]
fn nobody_may_sign_up_where_the_operator_says_so() {
    let authority = Authority::start_with(&["--no-signup"]);
    let reply = authority.call("POST", "/org/create", None, b"{}");
    assert_eq!((reply.status, &reply.json()["error"]), (403, &json!("signup_disabled")));
    authority.org("free").register(&["a"]);
}

#[test]
fn a_plan_is_confirmed_on_its_page_exactly_once() {
    let authority = Authority::start();
    let made = authority.admin_json(&["create", "--name", "<b>Acme & Sons</b>"]);
    let key = made["orgApiKey"].as_str().unwrap();
    let usage = || authority.call("GET", "/usage", Some(key), b"").json()["planTier"].clone();
    let reply = authority.call("POST", "/billing/checkout", Some(key), br#"{"plan":"scale"}"#);
    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("ok")));
    let url = reply.json()["url"].as_str().unwrap().to_owned();

    let page = browse(&authority, "GET", &url);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert_eq!((page.header("cache-control"), page.header("referrer-policy")), (Some("no-store"), Some("no-referrer")));
    assert!(page.text.contains("&lt;b&gt;Acme &amp; Sons&lt;/b&gt;") && !page.text.contains("<b>"), "{}", page.text);
    assert!(page.text.contains("free, up to 3 devices") && page.text.contains("scale, up to 250 devices"));
    assert_eq!(usage(), "free", "looking changes nothing");

    assert_eq!(browse(&authority, "POST", &url).status, 200);
    assert_eq!(usage(), "scale");
    authority.admin_json(&["set-plan", made["orgId"].as_str().unwrap(), "free"]);
    for method in ["GET", "POST"] {
        assert_eq!(browse(&authority, method, &url).status, 410, "{method}");
    }
    assert_eq!(usage(), "free");
    let token = url.rsplit('/').next().unwrap();
    assert!(!authority.log().contains(token), "the token is in the log");
    assert!(!authority.log().contains(key), "the key is in the log");
}

#[test]
fn confirming_a_plan_renews_an_expired_entitlement() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    org.admin("expire", &[]);
    let url = org.post("/billing/checkout", &json!({"plan": "pro"})).json()["url"].as_str().unwrap().to_owned();
    browse(&authority, "POST", &url);
    assert_eq!(org.code("a"), "ALLOW");
}

#[test]
fn an_address_that_was_never_given_out_confirms_nothing() {
    let authority = Authority::start();
    let forged = format!("{}/checkout/{}", authority.url(), "0".repeat(64));
    assert_eq!(browse(&authority, "GET", &forged).status, 410);
    assert_eq!(browse(&authority, "POST", &forged).status, 410);
}

#[test]
fn only_plans_that_can_be_bought_have_a_checkout() {
    let authority = Authority::start_with(&["--public-url", "https://authority.example/base/"]);
    let org = authority.org("free");
    for plan in ["free", "Pro", "", "gold"] {
        let reply = org.post("/billing/checkout", &json!({"plan": plan}));
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_plan")), "{plan}");
    }
    for plan in ["pro", "scale", "max"] {
        let answer = org.post("/billing/checkout", &json!({"plan": plan})).json();
        assert!(answer["url"].as_str().unwrap().starts_with("https://authority.example/base/checkout/"), "{answer}");
    }
}
