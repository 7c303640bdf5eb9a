//! What every answer has, and what becomes of requests that are none.

use serde_json::json;

use crate::harness::authority::Authority;
use crate::harness::http;
use crate::harness::wait::until;

#[test]
fn every_answer_is_json_with_a_request_id_and_is_never_cached() {
    let authority = Authority::start();
    let org = authority.org("free");
    for (method, path, status) in [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/api/v1/usage", 200),
        ("GET", "/", 404),
        ("GET", "/api/v1/unknown", 404),
        ("POST", "/api/v2/devices/validate", 404),
        ("GET", "/checkout/%FF", 400),
        ("GET", "/api/v1/devices/register", 405),
        ("POST", "/api/v1/usage", 405),
    ] {
        let reply = http::request(authority.address(), method, path, &[format!("x-org-key: {}", org.key)], b"");
        assert_eq!(reply.status, status, "{method} {path}");
        let answer = reply.json();
        assert_eq!(answer["request_id"].as_str(), reply.header("x-request-id"), "{path}");
        assert_eq!(answer["request_id"].as_str().map(str::len), Some(36), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer["status"], if status == 200 { json!("ok") } else { json!("error") }, "{path}");
        assert_eq!(reply.header("allow").is_some(), status == 405, "{path}");
    }
}

#[test]
fn the_api_describes_itself_to_anybody() {
    let authority = Authority::start();
    let reply = http::request(authority.address(), "GET", "/api/v1/openapi.json", &[], b"");
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi/authority.json")).unwrap();
    assert_eq!((reply.status, reply.json()), (200, serde_json::from_str(&kept).unwrap()));
}

#[test]
fn the_access_log_names_each_request_and_no_key() {
    let authority = Authority::start_with(&["--log-format", "json", "--log-validations"]);
    let org = authority.org("free");
    org.register(&["a"]);
    let id = org.device("validate", "a").json()["request_id"].as_str().unwrap().to_owned();
    let line =
        until("the request is logged", || authority.log().lines().find(|line| line.contains(&id)).map(str::to_owned));
    let log = authority.log();
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&entry["target"], &entry["path"], &entry["code"], &entry["status"], &entry["org"]),
        (&json!("access"), &json!("/api/v1/devices/validate"), &json!("ALLOW"), &json!(200), &json!(org.id))
    );
    assert!(!log.contains(&org.key) && !log.contains(&org.key[4..]));
}

#[test]
fn what_every_host_asks_all_the_time_is_counted_and_logged_only_where_that_is_asked_for() {
    let ids = |authority: &Authority| {
        let org = authority.org("free");
        let registered = org.device("register", "a").json()["request_id"].clone();
        let validated = org.device("validate", "a").json()["request_id"].clone();
        let reported = org.post("/devices/report", &json!({})).json()["request_id"].clone();
        let probed = http::request(authority.address(), "GET", "/readyz", &[], b"").json()["request_id"].clone();
        // The log is written in the order of the answers.
        let last = org.device("register", "b").json()["request_id"].clone();
        until("the last one is logged", || authority.log().contains(last.as_str().unwrap()).then_some(()));
        let log = authority.log();
        [registered, validated, reported, probed].map(|id| log.contains(id.as_str().unwrap()))
    };
    assert_eq!(ids(&Authority::start()), [true, false, false, false]);
    assert_eq!(ids(&Authority::start_with(&["--log-validations"])), [true; 4]);
}

#[test]
fn a_database_that_fails_is_said_once_a_minute_and_not_at_each_validation() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    let database = rusqlite::Connection::open(authority.database()).unwrap();
    database.busy_timeout(crate::harness::PATIENCE).unwrap();
    database.execute_batch("ALTER TABLE devices RENAME TO hidden").unwrap();
    for _ in 0..50 {
        assert_eq!(org.device("validate", "a").status, 503);
        assert_eq!(org.get("/devices/list").status, 503);
    }
    let said = "the store failed; the validation is not decided";
    until("it is logged", || authority.log().contains(said).then_some(()));
    let lines = |text: &str| authority.log().lines().filter(|line| line.contains(text)).count();
    assert_eq!((lines(said), lines("the store failed; the request is refused")), (1, 1), "{}", authority.log());
}

#[test]
fn a_body_that_is_too_large_is_refused_and_the_server_serves_on() {
    let authority = Authority::start();
    let org = authority.org("free");
    let large = vec![b'x'; 3_000_000];
    for (path, status) in [("/devices/register", 400), ("/devices/revoke_batch", 400), ("/devices/validate", 400)] {
        let head = format!(
            "POST /api/v1{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-org-key: {}\r\ncontent-length: {}\r\n\r\n",
            org.key,
            large.len()
        );
        // Only the head and more than it will read: the answer must come without the rest.
        let reply = http::exchange(authority.address(), &[head.as_bytes(), &large[..600_000]].concat());
        assert_eq!(reply.status, status, "{path}");
    }
    org.register(&["a"]);
}

#[test]
fn garbage_and_giant_heads_are_refused_and_the_server_serves_on() {
    let authority = Authority::start();
    let giant = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    let garbage = "\u{1}\u{2}\u{3}\r\n\r\n".to_owned();
    for bytes in [giant, garbage] {
        assert!((400..500).contains(&http::exchange(authority.address(), bytes.as_bytes()).status));
    }
    authority.org("free").register(&["a"]);
}

#[test]
fn a_body_that_does_not_arrive_is_no_statement_about_the_device() {
    let authority = Authority::start();
    let org = authority.org("free");
    let half = |path: &str| {
        let head = format!(
            "POST /api/v1/devices/{path} HTTP/1.1\r\nhost: x\r\nx-org-key: {}\r\ncontent-length: 100\r\n\r\n{{",
            org.key
        );
        http::exchange(authority.address(), head.as_bytes())
    };
    std::thread::scope(|scope| {
        let register = scope.spawn(|| half("register"));
        let reply = half("validate");
        let answer = reply.json();
        assert_eq!(
            (reply.status, &answer["allowed"], &answer["code"]),
            (503, &json!(false), &json!("SYSTEM_UNAVAILABLE"))
        );
        let reply = register.join().unwrap();
        assert_eq!((reply.status, &reply.json()["error"]), (408, &json!("request_timeout")));
    });
}
