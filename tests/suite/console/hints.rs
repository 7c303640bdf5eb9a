//! The hint that a page is old.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use super::visitor::Visitor;
use crate::harness::authority::Authority;
use crate::harness::wait::PATIENCE;

/// A subscribed page, behind the head of its answer.
pub(super) fn follow(visitor: &Visitor<'_>, org: &str) -> BufReader<TcpStream> {
    let address = visitor.authority.address();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let cookie = visitor.cookie.clone().unwrap();
    let request = format!("GET /console/org/{org}/events HTTP/1.0\r\nhost: {address}\r\ncookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{line}");
    reader
}

/// Reads to the line that begins with this; `false` when the stream ends before.
pub(super) fn reaches(reader: &mut BufReader<TcpStream>, wanted: &str) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) => return false,
            Ok(_) if line.starts_with(wanted) => return true,
            Ok(_) => {}
            Err(error) => panic!("{error} before {wanted}"),
        }
    }
}

#[test]
fn a_page_is_told_that_it_is_old_until_its_session_ends() {
    let authority = Authority::start();
    let (org, other) = (authority.org("pro"), authority.org("pro"));
    let mut visitor = Visitor::signed_in(&org);
    let mut events = follow(&visitor, &org.id);
    assert!(reaches(&mut events, "event: ready"));
    other.register(&["theirs"]);
    org.register(&["a"]);
    assert!(reaches(&mut events, "event: changed") && reaches(&mut events, r#"data: {"deviceIds":["a"]}"#));
    visitor.post("/console/sign-out", &[]);
    assert!(!reaches(&mut events, "event: never"), "it ends with the session");

    let visitor = Visitor::signed_in(&org);
    let mut events = follow(&visitor, &org.id);
    assert!(reaches(&mut events, "event: ready"));
    org.admin("rotate-key", &["--overlap", "0s"]);
    assert!(!reaches(&mut events, "event: never"), "and with its key");
}
