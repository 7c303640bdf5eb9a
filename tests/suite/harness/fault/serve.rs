//! One connection, and what each fault does to it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::message::{Answer, Message};
use super::{Fault, Shared, State};
use crate::harness::PATIENCE;

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// What becomes of a connection after an answer.
enum After {
    /// The next request may come.
    Goes,
    /// It is closed as it should be.
    Ends,
    /// It is reset: what was sent and not read may be lost on its way.
    Reset,
}

pub(super) fn tls(certificate: &[u8], key: &'static [u8]) -> Arc<rustls::ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
    let key = PrivateKeyDer::try_from(key).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    Arc::new(config.unwrap())
}

impl Shared {
    pub(super) fn serve(&self, tcp: &TcpStream) {
        let _ = tcp.set_nodelay(true);
        // Whatever goes wrong here, the connection is over, and that is all there is to it.
        let after = self.serve_until_closed(tcp).unwrap_or(After::Ends);
        if matches!(after, After::Reset) {
            let _ = rustix::net::sockopt::set_socket_linger(tcp, Some(Duration::ZERO));
            // The copy that is kept for cutting would keep it open.
            self.lock().connections.retain(|kept| kept.peer_addr().ok() != tcp.peer_addr().ok());
        } else {
            let _ = tcp.shutdown(std::net::Shutdown::Both);
        }
    }

    fn serve_until_closed(&self, tcp: &TcpStream) -> io::Result<After> {
        let fault = self.lock().fault.clone();
        let mut stream: Box<dyn Stream + '_> = match (&self.encrypted, fault) {
            (None, _) => Box::new(tcp),
            (Some(_), Fault::SilentHandshake) => return self.hang(tcp),
            (Some(_), Fault::NoTls) => {
                let mut stream = tcp;
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?;
                return Ok(After::Ends);
            }
            (Some(certificates), fault) => {
                let wrong = matches!(fault, Fault::WrongCertificate);
                let config = if wrong { &certificates.wrong } else { &certificates.right };
                let session = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Box::new(rustls::StreamOwned::new(session, tcp))
            }
        };
        loop {
            let Some(request) = Message::read(&mut stream)? else { return Ok(After::Ends) };
            let counted = Counted::begin(self, request.is_validation());
            let after = self.answer(&mut *stream, tcp, &request);
            drop(counted);
            match after? {
                After::Goes => {}
                over @ (After::Ends | After::Reset) => return Ok(over),
            }
        }
    }

    fn answer(&self, stream: &mut dyn Stream, tcp: &TcpStream, request: &Message) -> io::Result<After> {
        let fault = {
            let mut state = self.lock();
            let fault = state.fault.clone();
            if matches!(fault, Fault::HoldNext) {
                // A push connection that opens meanwhile is not the answer that the test wants held.
                if request.is_validation() { std::mem::replace(&mut state.fault, Fault::None) } else { Fault::None }
            } else {
                fault
            }
        };
        let ask = || request.forward(self.authority);
        match fault {
            Fault::None => give(stream, &ask()?.bytes()),
            Fault::Silent => self.hang(tcp),
            Fault::Drip(pause) => {
                for byte in ask()?.bytes() {
                    stream.write_all(&[byte])?;
                    stream.flush()?;
                    self.pause(pause);
                }
                Ok(After::Goes)
            }
            Fault::ResetInHead => {
                give(stream, b"HTTP/1.1 200 OK\r\ncontent-ty")?;
                Ok(After::Reset)
            }
            Fault::ResetInBody => {
                give(stream, &but_the_end(&ask()?))?;
                Ok(After::Reset)
            }
            Fault::Truncate => {
                give(stream, &but_the_end(&ask()?))?;
                Ok(After::Ends)
            }
            Fault::HalfJson => {
                let body = ask()?.body;
                let half = Answer::new("200 OK").with("content-type", "application/json");
                give(stream, &half.saying(&body[..body.len() / 2]).message().bytes())
            }
            Fault::Inflate { bytes, announced } => inflated(stream, bytes, announced),
            Fault::Delay(delay) => {
                let answer = ask()?;
                self.pause(delay);
                give(stream, &answer.bytes())
            }
            Fault::HoldNext => {
                let answer = ask()?;
                self.hold();
                give(stream, &answer.bytes())
            }
            Fault::Replace(answer) => give(stream, &answer.message().bytes()),
            Fault::Raw(bytes) => {
                give(stream, bytes)?;
                Ok(After::Ends)
            }
            Fault::Refuse | Fault::WrongCertificate | Fault::NoTls | Fault::SilentHandshake => Ok(After::Ends),
        }
    }

    /// Nothing more, until the other side has gone.
    fn hang(&self, tcp: &TcpStream) -> io::Result<After> {
        let mut stream = tcp;
        let mut ignored = [0; 4096];
        while !self.lock().ended && stream.read(&mut ignored)? > 0 {}
        Ok(After::Ends)
    }

    /// Lets time pass, until the proxy ends.
    fn pause(&self, span: Duration) {
        let state = self.lock();
        let _ = self.changed.wait_timeout_while(state, span, |state| !state.ended).unwrap();
    }

    fn hold(&self) {
        let mut state = self.lock();
        state.held += 1;
        let target = state.releases + state.held;
        self.changed.notify_all();
        let waits = |state: &mut State| state.releases < target && !state.ended;
        let (mut state, _) = self.changed.wait_timeout_while(state, PATIENCE, waits).unwrap();
        state.held -= 1;
    }
}

fn give(stream: &mut dyn Stream, bytes: &[u8]) -> io::Result<After> {
    stream.write_all(bytes)?;
    stream.flush()?;
    Ok(After::Goes)
}

/// All but the last ten bytes of the body.
fn but_the_end(answer: &Message) -> Vec<u8> {
    let mut bytes = answer.bytes();
    bytes.truncate(bytes.len() - 10);
    bytes
}

/// An ALLOW of this length.
fn inflated(stream: &mut dyn Stream, bytes: usize, announced: bool) -> io::Result<After> {
    let (start, end) = (r#"{"allowed":true,"code":"ALLOW","x":""#, "\"}");
    let length = if announced { format!("content-length: {bytes}\r\n") } else { "connection: close\r\n".to_owned() };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{length}\r\n{start}");
    stream.write_all(head.as_bytes())?;
    let mut left = bytes - start.len() - end.len();
    let filling = vec![b'x'; 64 * 1024];
    while left > 0 {
        let part = left.min(filling.len());
        stream.write_all(&filling[..part])?;
        left -= part;
    }
    give(stream, end.as_bytes())?;
    Ok(if announced { After::Goes } else { After::Ends })
}

/// A validation while it is answered.
struct Counted<'a> {
    shared: &'a Shared,
    counts: bool,
}

impl<'a> Counted<'a> {
    fn begin(shared: &'a Shared, counts: bool) -> Self {
        if counts {
            let mut state = shared.lock();
            let validations = &mut state.validations;
            validations.begun += 1;
            validations.in_flight += 1;
            validations.most_in_flight = validations.most_in_flight.max(validations.in_flight);
        }
        Self { shared, counts }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.shared.lock().validations.in_flight -= 1;
        }
    }
}
