//! Sends requests to the daemon.

use std::error::Error;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, Method, header};
use machineid_client::{body, without_encryption};
use machineid_protocol::{socket_path, span};
use reqwest::{Client, RequestBuilder, Response, redirect};
use serde::Serialize;
use url::Url;

use crate::Env;
use crate::args::SocketArgs;

/// The maximum size of an answer: a status with some 10,000 agents.
const LONGEST: usize = 64 * 1024 * 1024;

/// The daemon's answer, with any status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) socket: PathBuf,
}

/// Sends `GET path` with this query. The error says what happened, where, and what to do next.
pub(super) async fn get(
    args: &SocketArgs,
    env: Env<'_>,
    path: &str,
    query: &[(&str, String)],
    timeout: Duration,
) -> Result<Answer, String> {
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
) -> Result<Answer, String> {
    let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
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
) -> Result<RequestBuilder, String> {
    let mut url = Url::parse("http://localhost").map_err(|error| error.to_string())?;
    url.set_path(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    let client = without_encryption(Client::builder())
        .unix_socket(socket)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("machineid/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())?;
    Ok(client.request(method, url))
}

async fn exchange(socket: &Path, request: RequestBuilder, timeout: Duration) -> Result<Answer, String> {
    let shown = socket.display();
    let exchange = async {
        let mut response = request.send().await.map_err(|error| explain(&error, socket))?;
        let status = response.status().as_u16();
        let body = body(&mut response, LONGEST).await.map_err(|error| explain(&error, socket))?;
        let body = body.ok_or_else(|| format!("the answer on {shown} is too long to be the daemon's"))?;
        Ok(Answer { status, body, socket: socket.to_owned() })
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
        Err(format!(
            "the daemon on {shown} gave no answer within {}; is it stopped or overloaded? See its log",
            span::format(timeout)
        ))
    })
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
) -> Result<Streaming, String> {
    let socket = find(args, env);
    let mut request = request(&socket, Method::GET, path, query)?;
    if let Some(last) = last {
        let last: HeaderValue = last.parse().map_err(|_| "this is no event's id".to_owned())?;
        request = request.header("last-event-id", last);
    }
    let shown = socket.display();
    let response = tokio::time::timeout(timeout, request.send()).await;
    let response =
        response.map_err(|_| format!("the daemon on {shown} gave no answer within {}", span::format(timeout)))?;
    let response = response.map_err(|error| explain(&error, &socket))?;
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if response.status().as_u16() != 200 || kind != Some("text/event-stream") {
        return Err(format!(
            "what listens on {shown} did not answer like machineid-sidecar (HTTP {}); is it another program's socket, or an \
             older daemon?",
            response.status().as_u16()
        ));
    }
    Ok(Streaming { response, socket })
}

impl Streaming {
    /// The next part of the answer; `None` at the end. Fails like [`get`].
    pub(super) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, String> {
        let chunk = self.response.chunk().await.map_err(|error| explain(&error, &self.socket))?;
        Ok(chunk.map(|bytes| bytes.to_vec()))
    }
}

/// The socket's path for this command.
pub(super) fn find(args: &SocketArgs, env: Env<'_>) -> PathBuf {
    // The kernel resolves relative paths, so messages show the path as typed.
    socket_path::find(args.socket.as_deref(), env, Path::exists, Path::new(""))
}

fn explain(error: &(dyn Error + 'static), socket: &Path) -> String {
    let shown = socket.display();
    match io_kind(error) {
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            let start = "is machineid-sidecar running? Start it (machineid-sidecar --dev to try it out), or name its socket \
                         with --socket";
            format!("nothing listens on {shown}; {start}")
        }
        Some(io::ErrorKind::PermissionDenied) => match owning_group(socket) {
            Some(group) => format!(
                "no permission to open {shown}; it is for the group {group}: join it (sudo usermod -aG {group} \"$USER\", \
                 then log in again) or use sudo"
            ),
            None => format!("no permission to open {shown}; use sudo, or ask the daemon's administrator for its group"),
        },
        Some(io::ErrorKind::InvalidInput) => format!("{shown} cannot be a socket's path: it is too long"),
        Some(_) | None => {
            let mut deepest = error;
            while let Some(next) = deepest.source() {
                deepest = next;
            }
            format!("no complete answer on {shown}: {deepest}; is it machineid-sidecar that listens there?")
        }
    }
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
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
