//! What is limited, HTTPS, metrics, and whose address counts.

use std::fs;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::authority::Authority;
use crate::harness::wait::until;
use crate::harness::{eventually, http};

#[test]
fn wrong_keys_are_limited_by_address_and_never_hold_up_a_good_one() {
    let authority = Authority::start_with(&["--failed-keys-per-minute", "3", "--trusted-proxy", "127.0.0.0/8"]);
    let org = authority.org("free");
    org.register(&["a"]);
    let wrong = format!("org_{}", "0".repeat(64));
    let from = |client: &str, path: &str| {
        let headers = [format!("x-org-key: {wrong}"), format!("x-forwarded-for: forged, {client}")];
        let method = if path.ends_with("usage") { "GET" } else { "POST" };
        http::request(authority.address(), method, &format!("/api/v1/{path}"), &headers, br#"{"deviceId":"a"}"#)
    };
    for path in ["usage", "devices/validate", "devices/revoke"] {
        assert_eq!(from("203.0.113.1", path).status, 401, "{path}");
    }
    let refused = from("203.0.113.1", "usage");
    assert_eq!((refused.status, &refused.json()["error"]), (429, &json!("invalid_org_key")));
    let again: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=21).contains(&again), "{again}");
    let denied = from("203.0.113.1", "devices/validate");
    let answer = denied.json();
    assert_eq!((denied.status, &answer["allowed"], &answer["code"]), (429, &json!(false), &json!("INVALID_ORG_KEY")));
    assert_eq!(from("203.0.113.2", "usage").status, 401, "another address has its own");
    let good = [format!("x-org-key: {}", org.key), "x-forwarded-for: 203.0.113.1".to_owned()];
    let body = br#"{"deviceId":"a"}"#;
    let reply = http::request(authority.address(), "POST", "/api/v1/devices/validate", &good, body);
    assert_eq!((reply.status, &reply.json()["code"]), (200, &json!("ALLOW")));
    // Written after the answer.
    eventually("the access log names the client", || authority.log().contains("203.0.113.1"));
}

#[test]
fn sign_ups_and_management_are_limited_and_validations_are_not() {
    let authority = Authority::start_with(&["--sign-up", "--signups-per-minute", "2", "--management-per-minute", "5"]);
    for expected in [200, 200, 429] {
        assert_eq!(authority.call("POST", "/org/create", None, b"{}").status, expected);
    }
    let (org, other) = (authority.org("pro"), authority.org("free"));
    org.register(&["a", "b", "c", "d", "e", "f", "g"]);
    for _ in 0..5 {
        assert_eq!(org.get("/usage").status, 200);
    }
    let refused = org.device("unrevoke", "a");
    assert_eq!((refused.status, &refused.json()["error"]), (429, &json!("rate_limited")));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(other.get("/usage").status, 200, "another key has its own");
    for _ in 0..30 {
        assert_eq!(org.code("a"), "ALLOW");
    }
    // A stop has an allowance of its own.
    for id in ["a", "b", "c", "d", "e"] {
        assert_eq!(org.device("revoke", id).status, 200);
    }
    assert_eq!(org.device("revoke", "f").status, 429);
}

#[test]
fn metrics_are_read_on_their_own_listener_alone() {
    let authority = Authority::start_with(&["--metrics-listen", "127.0.0.1:0"]);
    let org = authority.org("free");
    org.register(&["a"]);
    org.code("a");
    org.code("unknown");
    assert_eq!(http::request(authority.address(), "GET", "/metrics", &[], b"").status, 404);
    let log = until("the log names the listener", || {
        let log = authority.log();
        log.contains("metrics=127").then_some(log)
    });
    let at = log.split("metrics=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let reply = http::request(at, "GET", "/metrics", &[], b"");
    assert_eq!(reply.status, 200);
    for line in [
        r#"machineid_authority_decisions_total{code="ALLOW"} 1"#,
        r#"machineid_authority_decisions_total{code="DEVICE_NOT_FOUND"} 1"#,
        r#"machineid_authority_requests_total{endpoint="devices/register",status="2xx"} 1"#,
    ] {
        assert!(reply.text.contains(line), "{line} is not in\n{}", reply.text);
    }
    assert!(!reply.text.contains(&org.id) && !reply.text.contains(&org.key));
    assert_eq!(http::request(at, "GET", "/readyz", &[], b"").status, 200);
    assert_eq!(http::request(at, "GET", "/api/v1/usage", &[], b"").status, 404);
}

#[test]
fn https_is_spoken_with_a_certificate_that_is_read_again_on_sighup() {
    let directory = TempDir::new().unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let certify = |name: &str| {
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name},IP:127.0.0.1")])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output();
        output.is_ok_and(|output| output.status.success())
    };
    if !certify("one.example") {
        eprintln!("SKIPPED: no openssl to make a certificate with");
        return;
    }
    let authority = Authority::start_with(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    let served = || {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &authority.address().to_string(), "-CAfile"])
            .arg(&cert)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(served().contains("one.example"), "{}", served());
    let health = format!("https://{}/healthz", authority.address());
    if let Ok(output) = Command::new("curl").args(["--silent", &health, "--cacert"]).arg(&cert).output() {
        assert!(String::from_utf8_lossy(&output.stdout).contains("\"ok\""), "{output:?}");
    }
    assert!(certify("two.example"));
    let pid = rustix::process::Pid::from_raw(i32::try_from(authority.pid()).unwrap()).unwrap();
    let hang_up = || rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    hang_up();
    until("the new certificate is served", || served().contains("two.example").then_some(()));
    fs::write(&key, "no key").unwrap();
    hang_up();
    until("the log says what is wrong", || authority.log().contains("cannot reload the certificate").then_some(()));
    assert!(served().contains("two.example"));
}
