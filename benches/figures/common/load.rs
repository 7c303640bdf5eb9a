//! Requests on connections that stay, each sent when the answer to the one before is whole, or at a given pace.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::samples::Samples;
use super::{Outcome, PATIENCE, now};

/// Room for one answer.
const ROOM: usize = 4096;

/// The server to ask, and the request.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// Sent in turn, by each connection from a place of its own on.
    pub(crate) requests: Arc<[Vec<u8>]>,
}

#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) answers: usize,
    pub(crate) took: Duration,
    pub(crate) latencies: Samples,
}

impl Load {
    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.answers).unwrap_or(u32::MAX)) / self.took.as_secs_f64()
    }
}

impl Target {
    pub(crate) fn get(socket: PathBuf, path: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        Self { address: Address::Unix(socket), requests: [request.into_bytes()].into() }
    }

    /// Asks for this long on so many connections. Every answer must be a 200.
    ///
    /// One thread for all connections: on a small host the servers need the others.
    pub(crate) fn ask(&self, connections: usize, span: Duration) -> Outcome<Load> {
        self.load(connections, span, None)
    }

    /// The same with so many questions a second and no more. How long an answer took counts from when its question was
    /// due: one that had to wait for the answer before it waited for the server.
    pub(crate) fn ask_at(&self, connections: usize, span: Duration, rate: f64) -> Outcome<Load> {
        let connections_f = f64::from(u32::try_from(connections)?);
        self.load(connections, span, Some(Duration::from_secs_f64(connections_f / rate)))
    }

    fn load(&self, connections: usize, span: Duration, pace: Option<Duration>) -> Outcome<Load> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let all = runtime
            .block_on(async { tokio::time::timeout(span + PATIENCE, self.on_all(connections, span, pace)).await });
        Ok(all.map_err(|_| format!("{:?} stopped answering", self.address))??)
    }

    async fn on_all(&self, connections: usize, span: Duration, pace: Option<Duration>) -> io::Result<Load> {
        let mut streams: Vec<Box<dyn Stream>> = Vec::with_capacity(connections);
        for _ in 0..connections {
            streams.push(self.connect().await?);
        }
        let began = now();
        let mut tasks = JoinSet::new();
        for (number, stream) in streams.into_iter().enumerate() {
            let first = self.requests.len() * number / connections;
            let turn = Turn { requests: Arc::clone(&self.requests), next: first };
            // Spread over the pace, or all would ask in the same moment.
            let start = pace
                .map(|pace| (began + pace * u32::try_from(number).unwrap_or(0) / connections_u32(connections), pace));
            tasks.spawn(one_after_another(stream, turn, start, began + span));
        }
        let mut latencies = Vec::new();
        while let Some(of_one) = tasks.join_next().await {
            latencies.extend(of_one??);
        }
        Ok(Load { answers: latencies.len(), took: began.elapsed(), latencies: Samples::new(latencies) })
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

fn connections_u32(connections: usize) -> u32 {
    u32::try_from(connections).unwrap_or(u32::MAX).max(1)
}

/// Which request comes next on a connection.
struct Turn {
    requests: Arc<[Vec<u8>]>,
    next: usize,
}

impl Turn {
    fn request(&mut self) -> &[u8] {
        let at = self.next % self.requests.len();
        self.next += 1;
        &self.requests[at]
    }
}

/// With a pace: the first question is due at its start, and then one each time.
async fn one_after_another(
    mut stream: Box<dyn Stream>,
    mut turn: Turn,
    pace: Option<(Instant, Duration)>,
    end: Instant,
) -> io::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut room = vec![0; ROOM];
    loop {
        let asked = match pace {
            None => now(),
            Some((start, every)) => {
                let due = start + every * u32::try_from(latencies.len()).unwrap_or(u32::MAX);
                tokio::time::sleep_until(due.into()).await;
                due
            }
        };
        if asked >= end {
            return Ok(latencies);
        }
        stream.write_all(turn.request()).await?;
        read_answer(&mut *stream, &mut room).await?;
        latencies.push(asked.elapsed());
    }
}

async fn read_answer(stream: &mut dyn Stream, room: &mut [u8]) -> io::Result<()> {
    let mut length = 0;
    loop {
        let count = stream.read(&mut room[length..]).await?;
        if count == 0 {
            return Err(io::Error::other("the connection was closed, or an answer is too long"));
        }
        length += count;
        if is_whole(&room[..length])? {
            return Ok(());
        }
    }
}

/// Whether this is one whole answer, which must be a 200.
fn is_whole(answer: &[u8]) -> io::Result<bool> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let wrong = || io::Error::other(format!("unexpected answer: {}", String::from_utf8_lossy(answer)));
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(wrong());
    }
    let at = answer.windows(LENGTH.len()).position(|window| window == LENGTH).ok_or_else(wrong)?;
    let digits = answer[at + LENGTH.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    let body = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    Ok(answer.len() >= head + 4 + body)
}
