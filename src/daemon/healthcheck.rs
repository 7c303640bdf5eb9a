//! `machineid-sidecar healthcheck`: for container platforms that can only run a command.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use machineid_protocol::Exit;

use super::{Fatal, complain};
use crate::config::{self, Environment};

const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `/healthz` of the configured socket, or of `MACHINEID_SOCKET`.
pub(super) fn run(named: Option<&Path>, environment: &Environment) -> Result<Exit, Fatal> {
    let socket = match environment.path("MACHINEID_SOCKET") {
        Some(socket) => socket,
        None => config::load(named, environment)?.local.socket,
    };
    match ask(&socket) {
        Ok(status) if status.starts_with("HTTP/1.1 200 ") || status.starts_with("HTTP/1.0 200 ") => Ok(Exit::Success),
        Ok(status) => {
            complain(&format!("{} answered {status:?}", socket.display()));
            Ok(Exit::Failure)
        }
        Err(error) => {
            let why = machineid_sys::why_unreachable(&socket).unwrap_or_else(|| machineid_sys::io_in_words(&error));
            complain(&format!("no daemon answers on {}: {why}", socket.display()));
            Ok(Exit::Undecided)
        }
    }
}

fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut head = [0; 64];
    let length = stream.read(&mut head)?;
    Ok(String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or("").to_owned())
}
