//! Clients that mean ill: each is refused, and the server serves on.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use machineid_testing::postgres::new_database;
use serde_json::json;

use crate::harness::authority::Authority;
use crate::harness::wait::until;
use crate::harness::{PATIENCE, http, let_time_pass};

#[test]
fn a_connection_that_never_asks_or_drips_its_question_is_given_up() {
    let authority = Authority::start();
    let org = authority.org("free");
    let (address, done) = (authority.address(), std::sync::atomic::AtomicBool::new(false));
    let ended = |stream: &mut TcpStream| match stream.read(&mut [0; 64]) {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
    };
    thread::scope(|scope| {
        let silent = scope.spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            ended(&mut stream)
        });
        let dripping = scope.spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nx: ").unwrap();
            until("the drip is cut off", || {
                let _ = stream.write_all(b"x");
                ended(&mut stream).then_some(true)
            })
        });
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(org.device("register", "a").status, 200);
                let_time_pass(Duration::from_millis(50));
            }
        });
        let (silent, dripping) = (silent.join(), dripping.join());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(silent.unwrap() && dripping.unwrap());
    });
}

#[test]
fn a_request_with_two_lengths_or_a_broken_body_is_none() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    let close = "connection: close\r\n";
    let post = format!("POST /api/v1/devices/revoke HTTP/1.1\r\nhost: x\r\n{close}x-org-key: {}\r\n", org.key);
    let body = r#"{"deviceId":"a"}"#;
    for rest in [
        format!("content-length: 16\r\ncontent-length: 17\r\n\r\n{body}x"),
        "transfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        "transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n".to_owned(),
        format!("transfer-encoding: gzip\r\n\r\n{body}"),
        format!("content-length: -1\r\n\r\n{body}"),
        format!(" folded: x\r\ncontent-length: 16\r\n\r\n{body}"),
    ] {
        let reply = http::exchange(authority.address(), format!("{post}{rest}").as_bytes());
        assert!((400..500).contains(&reply.status), "{rest:?}: {}", reply.status);
        assert_eq!(org.code("a"), "ALLOW", "{rest:?}");
    }
    // Of a request that a proxy in between would read otherwise, nothing is taken for a second one.
    let smuggled = format!(
        "{post}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{post}content-length: \
         16\r\n\r\n{body}"
    );
    assert!(http::exchange(authority.address(), smuggled.as_bytes()).status >= 400);
    assert_eq!(org.code("a"), "ALLOW");
}

#[test]
fn no_way_of_writing_a_path_gets_around_the_key_and_none_carries_it() {
    let authority = Authority::start();
    let org = authority.org("free");
    let ask = |path: &str, headers: &[String]| http::request(authority.address(), "GET", path, headers, b"");
    for path in [
        "//api/v1/usage",
        "/api/v1/usage/",
        "/api/v1//usage",
        "/api/v1/org/../usage",
        "/api/v1/%2e%2e/v1/usage",
        "/API/v1/usage",
        "/checkout/../api/v1/usage",
        "/metrics",
    ] {
        assert_eq!(ask(path, &[format!("x-org-key: {}", org.key)]).status, 404, "{path}");
    }
    assert_eq!(ask("/api/v1/usage%00", &[format!("x-org-key: {}", org.key)]).status, 400);
    let query = format!("/api/v1/usage?x-org-key={0}&key={0}&orgApiKey={0}", org.key);
    assert_eq!(ask(&query, &[]).status, 401, "a key in a URL is none");
    assert_eq!(ask("/api/v1/usage", &[format!("authorization: Bearer {}", org.key)]).status, 401);
    let twice = [format!("x-org-key: {}", org.key), format!("x-org-key: {}", org.key)];
    assert_eq!(ask("/api/v1/usage", &twice).status, 401, "of two keys none counts");
    until("the last request is logged", || (authority.log().matches("/api/v1/usage").count() > 3).then_some(()));
    assert!(!authority.log().contains(&org.key), "a key in a URL is in the log");
}

#[test]
fn nothing_that_a_client_sends_makes_a_line_of_its_own_in_the_log() {
    for format in ["text", "json"] {
        let authority = Authority::start_with(&["--log-format", format]);
        let org = authority.org("free");
        let evil = "\u{1b}[31mred\u{9b}\u{85}\u{2028}forged status=200";
        for request in [
            format!("GET /{evil} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
            format!("GET /a?{evil} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nuser-agent: {evil}\r\n\r\n"),
            format!("GET /healthz HTTP/1.1\r\nhost: {evil}\r\nconnection: close\r\nx-forwarded-for: {evil}\r\n\r\n"),
            format!("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-request-id: {evil}\r\n\r\n"),
        ] {
            // Answered or refused by the first look at it.
            let _ = http::exchange(authority.address(), request.as_bytes());
        }
        assert_eq!(org.device("register", "a\n2026 INFO forged").status, 400);
        assert_eq!(org.post("/devices/revoke", &json!({"deviceId": "a", "reason": "x\nforged"})).status, 400);
        org.register(&["last"]);
        let log = until("everything is logged", || {
            let log = authority.log();
            (log.matches("/api/v1/devices/register").count() > 1).then_some(log)
        });
        for line in log.lines() {
            assert!(!line.contains("forged") || line.contains("access"), "{line:?}");
            assert!(!line.chars().any(|c| c.is_control() || c == '\u{2028}'), "{line:?}");
        }
    }
}

#[test]
fn text_that_a_database_has_no_room_for_is_refused_and_breaks_nothing() {
    let databases = [None, new_database()];
    for (number, database) in databases.into_iter().enumerate() {
        let authority = match (&database, number) {
            (Some(url), _) => Authority::start_on(url),
            (None, 0) => Authority::start(),
            (None, _) => return,
        };
        let org = authority.org("free");
        org.register(&["a"]);
        for path in ["/devices/list?q=%00", "/org/audit?device=a%00", "/org/fleet?q=a%00"] {
            assert_eq!(org.get(path).status, 400, "{path}");
        }
        assert_eq!(org.post("/devices/revoke_batch", &json!({"deviceIds": ["a", "a\u{0}"]})).status, 400);
        let odd = json!({"deviceIds": ["\u{fffd}\u{10ffff}"], "reason": "\u{10ffff}"});
        assert_eq!(org.post("/devices/revoke_batch", &odd).status, 200);
        assert_eq!(org.get("/org/audit").status, 200);
        let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
        for body in [deep.as_str(), &format!("{{\"deviceId\":{deep}}}")] {
            let reply = authority.call("POST", "/devices/register", Some(&org.key), body.as_bytes());
            assert_eq!(reply.status, 400, "brackets");
        }
    }
}
