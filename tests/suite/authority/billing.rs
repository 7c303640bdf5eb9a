//! Signing up, and the page that confirms a plan.

use serde_json::json;

use crate::harness::authority::Authority;
use crate::harness::http::{self, Reply};

fn browse(authority: &Authority, method: &str, url: &str) -> Reply {
    let path = url.strip_prefix(&authority.url()).unwrap();
    http::request(authority.address(), method, path, &[], b"")
}

#[test]
fn any_client_may_sign_up_for_a_free_organisation_where_the_operator_says_so() {
    let authority = Authority::start_with(&["--sign-up"]);
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
    assert!(
        page.text.contains("&#60;b&#62;Acme &#38; Sons&#60;/b&#62;") && !page.text.contains("<b>"),
        "{}",
        page.text
    );
    assert!(page.text.contains("free, up to 3 devices") && page.text.contains("scale, up to 250 devices"));
    assert!(!page.text.contains("<form"), "the holder of the org key only looks");
    assert_eq!(browse(&authority, "POST", &url).status, 410);
    assert_eq!(usage(), "free", "neither that nor looking changes anything");

    let open = authority.admin_json(&["checkouts"]);
    assert_eq!((&open[0]["orgId"], &open[0]["wanted"]), (&made["orgId"], &json!("scale")));
    let number = open[0]["number"].as_str().unwrap();
    assert!(page.text.contains(number));
    let link = authority.admin_json(&["confirm-checkout", number, "--link"]);
    let link = link.as_str().unwrap().to_owned();
    assert!(browse(&authority, "GET", &link).text.contains("<form"));
    assert_eq!(usage(), "free");
    assert_eq!(browse(&authority, "POST", &link).status, 303);
    assert_eq!(usage(), "scale");
    authority.admin_json(&["set-plan", made["orgId"].as_str().unwrap(), "free"]);
    let done = browse(&authority, "GET", &link);
    assert!(
        done.status == 200 && done.text.contains("was changed to scale") && !done.text.contains("<form"),
        "{}",
        done.text
    );
    for (method, address) in [("GET", &url), ("POST", &url), ("POST", &link)] {
        assert_eq!(browse(&authority, method, address).status, 410, "{method}");
    }
    assert_eq!(usage(), "free");
    for secret in [&url, &link] {
        let token = secret.rsplit('/').next().unwrap();
        assert!(!authority.log().contains(token), "the secret is in the log");
    }
    assert!(!authority.log().contains(key), "the key is in the log");
}

#[test]
fn confirming_a_plan_renews_an_expired_entitlement() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    org.admin("expire", &[]);
    assert_eq!(org.post("/billing/checkout", &json!({"plan": "pro"})).status, 200);
    let number = authority.admin_json(&["checkouts"])[0]["number"].as_str().unwrap().to_owned();
    assert_eq!(authority.admin_json(&["confirm-checkout", &number])["planTier"], "pro");
    assert_eq!(org.code("a"), "ALLOW");
    let again = authority.admin(&["confirm-checkout", &number]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("no open checkout"));
    assert_eq!(authority.admin_json(&["checkouts"]), json!([]));
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
