//! Sends requests to the daemon.

use std::error::Error;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, Method, header};
use machineid_client::{body, without_encryption};
use machineid_protocol::{socket_path, span};
use machineid_sys as sys;
use reqwest::{Client, RequestBuilder, Response, redirect};
use rustix::io::Errno;
use serde::Serialize;
use url::Url;

use crate::Env;
use crate::args::SocketArgs;

/// The maximum size of an answer: a status with some 10,000 agents.
const LONGEST: usize = 64 * 1024 * 1024;

/// The daemon's answer, with any status.
#[derive(Debug)]
pub(super) struct DaemonAnswer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) socket: PathBuf,
}

/// Why the daemon gave no usable answer. The text says what happened, where, and what to do next.
#[derive(Debug, thiserror::Error)]
pub(super) enum DaemonError {
    #[error(
        "nothing listens on {}; is machineid-sidecar running? Start it (machineid-sidecar --dev to try it out), or name \
         its socket with --socket",
        socket.display()
    )]
    NothingListens { socket: PathBuf, source: reqwest::Error },
    /// The sandbox around this process forbids the way to the daemon.
    #[error("{why}: the daemon at {} cannot be asked", socket.display())]
    Sandboxed { socket: PathBuf, why: String, source: reqwest::Error },
    /// This process, or the machine, has run out of something.
    #[error("cannot connect to {}: {why}", socket.display())]
    Short { socket: PathBuf, why: &'static str, source: reqwest::Error },
    #[error("{}", not_permitted(socket, group.as_deref()))]
    NotPermitted {
        socket: PathBuf,
        /// The group that may open the socket, if there is one.
        group: Option<String>,
        source: reqwest::Error,
    },
    #[error("{} cannot be a socket's path: it is too long", socket.display())]
    PathTooLong { socket: PathBuf, source: reqwest::Error },
    #[error(
        "no complete answer on {}: {}; is it machineid-sidecar that listens there?",
        socket.display(),
        deepest(source)
    )]
    Incomplete { socket: PathBuf, source: reqwest::Error },
    #[error("the answer on {} is too long to be the daemon's", socket.display())]
    TooLong { socket: PathBuf },
    #[error(
        "the daemon on {} gave no answer within {}; is it stopped or overloaded? See its log",
        socket.display(),
        span::format(*timeout)
    )]
    Silent { socket: PathBuf, timeout: Duration },
    #[error(
        "what listens on {} did not answer like machineid-sidecar (HTTP {status}); is it another program's socket, or a \
         daemon of another version?",
        socket.display()
    )]
    Foreign { socket: PathBuf, status: u16 },
    #[error("an event id cannot be sent: {0}")]
    EventId(header::InvalidHeaderValue),
    #[error("the request cannot be written: {0}")]
    Body(serde_json::Error),
    #[error("the request has no URL: {0}")]
    Url(url::ParseError),
    #[error("cannot set up a request: {0}")]
    Client(reqwest::Error),
}

impl DaemonError {
    /// Classifies a failed request to `socket`.
    fn of(source: reqwest::Error, socket: &Path) -> Self {
        let path = socket.to_owned();
        let io = io_error(&source);
        if let Some(why) = io.and_then(io::Error::raw_os_error).map(Errno::from_raw_os_error).and_then(sys::shortage) {
            return Self::Short { socket: path, why, source };
        }
        let kind = io.map(io::Error::kind);
        if let Some(why) = kind.and_then(|_| sys::why_unreachable(socket)) {
            return Self::Sandboxed { socket: path, why, source };
        }
        match kind {
            Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Self::NothingListens { socket: path, source }
            }
            Some(io::ErrorKind::PermissionDenied) => {
                Self::NotPermitted { socket: path, group: owning_group(socket), source }
            }
            Some(io::ErrorKind::InvalidInput) => Self::PathTooLong { socket: path, source },
            Some(_) | None => Self::Incomplete { socket: path, source },
        }
    }
}

fn not_permitted(socket: &Path, group: Option<&str>) -> String {
    let shown = socket.display();
    match group {
        Some(group) => format!(
            "no permission to open {shown}; it is for the group {group}: join it (sudo usermod -aG {group} \"$USER\", then \
             log in again) or use sudo"
        ),
        None => format!("no permission to open {shown}; use sudo, or ask the daemon's administrator for its group"),
    }
}

/// The innermost cause of an error, which says the most.
fn deepest<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut deepest = error;
    while let Some(next) = deepest.source() {
        deepest = next;
    }
    deepest
}

/// Sends `GET path` with this query. The error says what happened, where, and what to do next.
pub(super) async fn get(
    args: &SocketArgs,
    env: Env<'_>,
    path: &str,
    query: &[(&str, String)],
    timeout: Duration,
) -> Result<DaemonAnswer, DaemonError> {
    let socket = find(args, env);
    let request = request(&socket, Method::GET, path, query)?;
    exchange(&socket, request, timeout).await
}

/// Sends `POST path` with this body as JSON. Fails like [`get`].
pub(super) async fn post<T: Serialize>(
    args: &SocketArgs,
    env: Env<'_>,
    path: &str,
    body: &T,
    timeout: Duration,
) -> Result<DaemonAnswer, DaemonError> {
    let body = serde_json::to_vec(body).map_err(DaemonError::Body)?;
    let socket = find(args, env);
    let request = request::<&str>(&socket, Method::POST, path, &[])?;
    exchange(&socket, request.header(header::CONTENT_TYPE, "application/json").body(body), timeout).await
}

/// A request to this socket. HTTP needs a host in the URL; it is ignored.
fn request<V: AsRef<str>>(
    socket: &Path,
    method: Method,
    path: &str,
    query: &[(&str, V)],
) -> Result<RequestBuilder, DaemonError> {
    let mut url = Url::parse("http://localhost").map_err(DaemonError::Url)?;
    url.set_path(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    let client = without_encryption(Client::builder())
        .unix_socket(socket)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("machineid/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(DaemonError::Client)?;
    Ok(client.request(method, url))
}

async fn exchange(socket: &Path, request: RequestBuilder, timeout: Duration) -> Result<DaemonAnswer, DaemonError> {
    let exchange = async {
        let mut response = request.send().await.map_err(|error| DaemonError::of(error, socket))?;
        let status = response.status().as_u16();
        let body = body(&mut response, LONGEST).await.map_err(|error| DaemonError::of(error, socket))?;
        let body = body.ok_or_else(|| DaemonError::TooLong { socket: socket.to_owned() })?;
        Ok(DaemonAnswer { status, body, socket: socket.to_owned() })
    };
    let answer = tokio::time::timeout(timeout, exchange).await;
    answer.unwrap_or_else(|_| Err(DaemonError::Silent { socket: socket.to_owned(), timeout }))
}

/// An answer that is read in parts.
#[derive(Debug)]
pub(super) struct Streaming {
    response: Response,
    socket: PathBuf,
}

/// Sends `GET path?query` and returns the answer as a stream. `last` is the id of the event after which to continue.
/// Fails like [`get`], also when the answer is no event stream.
pub(super) async fn stream(
    args: &SocketArgs,
    env: Env<'_>,
    path: &str,
    query: &[(&str, &str)],
    last: Option<&str>,
    timeout: Duration,
) -> Result<Streaming, DaemonError> {
    let socket = find(args, env);
    let mut request = request(&socket, Method::GET, path, query)?;
    if let Some(last) = last {
        let last: HeaderValue = last.parse().map_err(DaemonError::EventId)?;
        request = request.header("last-event-id", last);
    }
    let response = tokio::time::timeout(timeout, request.send()).await;
    let response = response.map_err(|_| DaemonError::Silent { socket: socket.clone(), timeout })?;
    let response = response.map_err(|error| DaemonError::of(error, &socket))?;
    let status = response.status().as_u16();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if status != 200 || kind != Some("text/event-stream") {
        return Err(DaemonError::Foreign { socket, status });
    }
    Ok(Streaming { response, socket })
}

impl Streaming {
    /// The next part of the answer; `None` at the end. Fails like [`get`].
    pub(super) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, DaemonError> {
        let chunk = self.response.chunk().await.map_err(|error| DaemonError::of(error, &self.socket))?;
        Ok(chunk.map(|bytes| bytes.to_vec()))
    }
}

/// The socket's path for this command.
pub(super) fn find(args: &SocketArgs, env: Env<'_>) -> PathBuf {
    // The kernel resolves relative paths, so messages show the path as typed.
    socket_path::find(args.socket.as_deref(), env, Path::exists, Path::new(""))
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// The group that may open the socket: the socket's own, or its directory's if the directory prevents access.
fn owning_group(socket: &Path) -> Option<String> {
    let gid = socket.metadata().or_else(|_| socket.parent().unwrap_or(Path::new("/")).metadata()).ok()?.gid();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    Some(name.unwrap_or_else(|| gid.to_string())).filter(|_| gid != 0)
}
