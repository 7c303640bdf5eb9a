//! A plain HTTP/1.1 client that sends exactly what it is told, valid or not.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::wait::PATIENCE;

/// A response, whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {:?}", self.text))
    }

    /// A header's value, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Sends one request on a connection of its own. `headers` are lines without their ends.
pub(crate) fn request(to: SocketAddr, method: &str, path: &str, headers: &[String], body: &[u8]) -> Reply {
    exchange(to, &message(to, method, path, headers, body))
}

/// The bytes of one request on a connection of its own. `headers` are lines without their ends.
pub(crate) fn message(to: SocketAddr, method: &str, path: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    let lines: String = headers.iter().map(|line| line.clone() + "\r\n").collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n{lines}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Sends these bytes and reads to the end of the connection.
pub(crate) fn exchange(to: SocketAddr, bytes: &[u8]) -> Reply {
    try_exchange(to, bytes, PATIENCE).unwrap()
}

/// The same of a server that may be gone, or silent for longer than this.
pub(crate) fn try_exchange(to: SocketAddr, bytes: &[u8], patience: Duration) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    // The server may answer and close before it has read a body that is too large.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A server that closes with something unread resets the connection; what it has said is what counts.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => {
                let so_far = format!("{error} after {:?}", String::from_utf8_lossy(&answer));
                return Err(io::Error::new(error.kind(), so_far));
            }
        }
    }
    let answer = String::from_utf8(answer).map_err(io::Error::other)?;
    parse(&answer).ok_or_else(|| io::Error::new(ErrorKind::UnexpectedEof, format!("no response: {answer:?}")))
}

fn parse(answer: &str) -> Option<Reply> {
    let (head, text) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Reply { status: status?, headers, text: text.to_owned() })
}
