//! HTTP messages: read whole, written as they are.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::PATIENCE;

/// A request or an answer as its bytes.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Up to and with the empty line.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// An answer of the test's own making.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Such as `500 Oops`, without a body.
    pub(crate) fn new(status: &str) -> Self {
        Self { status: status.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// What counts as an ALLOW when nothing else is wrong with it.
    pub(crate) fn allow(status: &str) -> Self {
        Self::new(status).with("content-type", "application/json").saying(r#"{"allowed":true,"code":"ALLOW"}"#)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn saying(mut self, body: impl AsRef<[u8]>) -> Self {
        body.as_ref().clone_into(&mut self.body);
        self
    }

    pub(super) fn message(&self) -> Message {
        let lines: Vec<_> = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let headers = lines.concat();
        // These have none by definition, and a length would contradict that.
        let bodiless = self.status.starts_with("204") || self.status.starts_with("304");
        let length = if bodiless { String::new() } else { format!("content-length: {}\r\n", self.body.len()) };
        let head = format!("HTTP/1.1 {}\r\n{headers}{length}\r\n", self.status).into_bytes();
        Message { head, body: if bodiless { Vec::new() } else { self.body.clone() } }
    }
}

impl Message {
    /// Reads one; `None` when the other side has closed before its first byte.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if from.read(&mut byte)? == 0 {
                return if head.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|digits| digits.trim().parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        Ok(Some(Self { head, body }))
    }

    pub(super) fn is_validation(&self) -> bool {
        self.head.starts_with(b"POST /api/v1/devices/validate ")
    }

    /// The real authority's answer to it.
    pub(super) fn forward(&self, authority: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(authority)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&self.bytes())?;
        Self::read(&mut stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        [self.head.as_slice(), &self.body].concat()
    }
}
