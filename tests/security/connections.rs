//! What connections without a key can take from those that have one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::json;

use crate::console::visitor::Visitor;
use crate::harness::authority::{Authority, Org};
use crate::harness::http;

/// Connections that say nothing.
fn idle(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(to).unwrap()).collect()
}

/// A validation on a connection that stays; whether it was answered.
fn validates(stream: &mut TcpStream, org: &Org<'_>) -> bool {
    let body = json!({"deviceId": "a"}).to_string();
    let request = format!(
        "POST /api/v1/devices/validate HTTP/1.1\r\nhost: a\r\nx-org-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
        org.key,
        body.len()
    );
    let mut answer = [0; 4096];
    let read = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut answer)).unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).contains("ALLOW")
}

/// Everything that has to go on while others hold connections.
fn everything_works(authority: &Authority, org: &Org<'_>, stop: &Org<'_>) {
    assert_eq!(org.code("a"), "ALLOW");
    assert_eq!(stop.device("revoke", "a").status, 200);
    assert_eq!(org.code("a"), "DEVICE_REVOKED");
    assert_eq!(org.device("unrevoke", "a").status, 200);
    assert_eq!(Visitor::signed_in(stop).get(&format!("/console/org/{}/stop", org.id)).status, 200);
    // The admin socket, the database, and a new organisation in it.
    org.admin("disable", &[]);
    org.admin("enable", &[]);
    authority.org("free").register(&["a"]);
}

#[test]
fn connections_without_a_key_keep_out_no_holder_of_one() {
    let authority = Authority::start_with(&["--connections", "64", "--metrics-listen", "127.0.0.1:0"]);
    let org = authority.org("pro");
    org.register(&["a"]);
    let stop = org.with_role(&["--role", "stop"]);
    let mut kept = TcpStream::connect(authority.address()).unwrap();
    assert!(validates(&mut kept, &org));
    let flood = idle(authority.address(), 300);
    everything_works(&authority, &org, &stop);
    // A request that never ends is no better than none.
    let mut unfinished = idle(authority.address(), 100);
    for stream in &mut unfinished {
        // Most are closed already.
        let _ = stream.write_all(b"POST /api/v1/devices/validate HTTP/1.1\r\nhost: a\r\ncontent-length: 90\r\n\r\n{");
    }
    everything_works(&authority, &org, &stop);
    assert!(validates(&mut kept, &org), "a connection that has presented a key is closed for no stranger");
    let metrics = http::request(authority.metrics(), "GET", "/metrics", &[], b"").text;
    let value = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("machineid_authority_{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name}: {metrics}"))
    };
    assert_eq!(value("connections_bound"), 64);
    assert!(value("connections_anonymous") <= 8 && value("connections_evicted_total") >= 290, "{metrics}");
    drop(flood);
}

#[test]
fn descriptors_are_left_for_the_database_and_the_admin_socket() {
    let mut authority = Authority::start();
    let id = authority.org("pro").id;
    authority.terminate();
    authority.starter().extend(["prlimit", "--nofile=256:256"].map(str::to_owned));
    authority.start_again();
    let key =
        authority.admin_json(&["key", "create", &id, "--role", "admin"])["orgApiKey"].as_str().unwrap().to_owned();
    let org = Org { authority: &authority, id, key };
    org.register(&["a"]);
    let stop = org.with_role(&["--role", "stop"]);
    let flood = idle(authority.address(), 400);
    everything_works(&authority, &org, &stop);
    drop(flood);
}
