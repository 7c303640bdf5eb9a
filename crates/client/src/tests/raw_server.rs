//! A test server that writes exactly the given bytes, even if they violate HTTP.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// The server's reaction to one request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Writes these bytes and keeps the connection.
    Write(Vec<u8>),
    /// Writes these bytes and closes the connection in order.
    WriteAndClose(Vec<u8>),
    /// Writes these bytes and resets the connection.
    WriteAndReset(Vec<u8>),
    /// Writes these bytes one by one, with a pause before each.
    Drip(Vec<u8>, Duration),
    /// Answers nothing until the client gives up.
    Silence,
}

#[derive(Debug)]
pub(super) struct RawServer {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    closed: mpsc::Receiver<()>,
}

impl RawServer {
    /// Takes connections until the test's process ends; each request takes the next act, the last one for ever.
    pub(super) fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let acts = Arc::new(Mutex::new(acts.into_iter().collect::<VecDeque<_>>()));
        let (tell, closed) = mpsc::channel();
        let (log, count) = (Arc::clone(&requests), Arc::clone(&connections));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                *count.lock().unwrap() += 1;
                let (log, acts, tell) = (Arc::clone(&log), Arc::clone(&acts), tell.clone());
                thread::spawn(move || {
                    serve(stream, &log, &acts);
                    let _ = tell.send(());
                });
            }
        });
        Self { address, requests, connections, closed }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// Waits until the server's end of one connection is gone.
    pub(super) fn wait_for_a_closed_connection(&self) {
        self.closed.recv_timeout(Duration::from_secs(30)).expect("a connection ends");
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<String>>, acts: &Mutex<VecDeque<Act>>) {
    while let Some(request) = read_request(&mut stream) {
        log.lock().unwrap().push(request);
        let act = {
            let mut acts = acts.lock().unwrap();
            if acts.len() > 1 { acts.pop_front().unwrap() } else { acts.front().unwrap().clone() }
        };
        match act {
            Act::Write(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Act::WriteAndClose(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Act::WriteAndReset(bytes) => {
                let _ = stream.write_all(&bytes);
                // A linger time of zero makes a socket reset instead of close.
                let linger = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&stream, linger).unwrap();
                return;
            }
            Act::Drip(bytes, pause) => {
                for byte in bytes {
                    thread::sleep(pause);
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                }
            }
            Act::Silence => {
                let _ = stream.read(&mut [0; 1]);
                return;
            }
        }
    }
}

/// Reads one request, head and body; `None` at the end of the connection.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0; 1];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    bytes.extend(body);
    Some(String::from_utf8(bytes).unwrap())
}

/// A whole response with a JSON body.
pub(super) fn json(status: &str, body: &str) -> Vec<u8> {
    response(status, "content-type: application/json\r\n", body)
}

/// A whole response with these header lines, each with its line ending.
pub(super) fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
