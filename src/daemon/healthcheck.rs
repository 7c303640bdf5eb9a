//! `machineid-sidecar healthcheck`: for container platforms that can only run a command.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use machineid_protocol::Exit;

use super::{Fatal, complain};
use crate::config::{self, Environment};

const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer that is read, in bytes.
const LONGEST: u64 = 4096;

/// Asks `/healthz`, or `/readyz`, of the configured socket, or of `MACHINEID_SOCKET`.
pub(super) fn run(named: Option<&Path>, ready: bool, environment: &Environment) -> Result<Exit, Fatal> {
    let socket = match environment.path("MACHINEID_SOCKET") {
        Some(socket) => socket,
        None => config::load(named, environment)?.local.socket,
    };
    match ask(&socket, if ready { "/readyz" } else { "/healthz" }) {
        Ok((status, _)) if status.starts_with("HTTP/1.1 200 ") || status.starts_with("HTTP/1.0 200 ") => {
            Ok(Exit::Success)
        }
        Ok((status, why)) => {
            complain(&format!("{} answered {status:?}: {why}", socket.display()));
            Ok(Exit::Failure)
        }
        Err(error) => {
            let why = machineid_sys::why_unreachable(&socket).unwrap_or_else(|| machineid_sys::io_in_words(&error));
            complain(&format!("no daemon answers on {}: {why}", socket.display()));
            Ok(Exit::Undecided)
        }
    }
}

/// The answer's first line and its body.
fn ask(socket: &Path, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    // The daemon closes the connection of an HTTP/1.0 client.
    stream.take(LONGEST).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.lines().next().unwrap_or("").to_owned(), body.trim().to_owned()))
}
