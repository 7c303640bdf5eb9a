//! Clients of the daemon's socket that mean no good.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::harness::PATIENCE;
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, exchange};

/// Sends these bytes and reads until the daemon closes the connection.
fn say(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_request_that_never_ends_or_is_too_long_is_ended_with_a_no() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:test").start();
    let socket = sidecar.socket();
    let never = say(&socket, "POST /v1/supervise HTTP/1.0\r\nContent-Length: 500\r\n\r\n{");
    assert!(never.starts_with("HTTP/1.0 408 ") && never.contains("\"event\":\"error\""), "{never}");
    let long = format!("POST /v1/supervise HTTP/1.0\r\nContent-Length: 70000\r\n\r\n{}", "x".repeat(70_000));
    let answer = exchange(&socket, &long).unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (413, "BAD_REQUEST"), "{answer:?}");
}

#[test]
fn a_containment_nobody_knows_or_that_no_process_comes_with_is_refused_and_never_shown() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:test").start();
    for (containment, status, code) in
        [("made up", 400, "BAD_REQUEST"), ("cgroup", 403, "PID_NOT_PERMITTED"), ("pidns", 403, "PID_NOT_PERMITTED")]
    {
        let body = serde_json::json!({
            "pid": 1, "run_id": "0123456789abcdef0123456789abcdef", "containment": containment,
        });
        let body = body.to_string();
        let request = format!("POST /v1/supervise HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answer = exchange(&sidecar.socket(), &request).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{containment}: {answer:?}");
        assert_eq!(sidecar.status()["agents"], serde_json::json!([]));
    }
}
