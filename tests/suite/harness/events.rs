//! Reading server-sent events as they come.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use machineid_clock::BootTime;
use serde_json::Value;

use super::wait::PATIENCE;

/// An open stream.
pub(crate) struct Events {
    reader: BufReader<TcpStream>,
    /// The answer's head, in lower case.
    pub(crate) head: String,
}

impl Events {
    /// Sends a request of HTTP/1.0, so that the answer comes unchunked, and reads the answer's head.
    pub(crate) fn open(to: SocketAddr, method: &str, path: &str, key: &str, body: &str) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.0\r\nhost: {to}\r\nx-org-key: {key}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "no answer: {head:?}");
        }
        Self { reader, head: head.to_lowercase() }
    }

    /// The next event, past heartbeats; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        let begun = BootTime::now();
        loop {
            // Heartbeats go on for as long as one waits.
            assert!(BootTime::now().saturating_since(begun) < PATIENCE, "nothing but heartbeats");
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(text) = line.strip_prefix("event: ") {
                text.trim_end().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).unwrap()));
            }
        }
    }

    /// The next line, whatever it is.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line
    }
}
