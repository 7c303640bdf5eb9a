//! Reads the agent's event and asks the daemon, blocking: a runtime and an HTTP client would be most of the hook's time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use machineid_hook::{Verdict, ask, event};
use machineid_protocol::DeviceId;
use machineid_sys as sys;

/// Reads the event, then asks. The order matters: no answer is older than the call that it is about.
pub(super) fn whole(socket: &Path, device: Option<&DeviceId>, deadline: Duration) -> Verdict {
    read_event().and_then(|()| daemon(socket, device, deadline)).unwrap_or_else(|why| Verdict::undecided(&why))
}

fn read_event() -> Result<(), String> {
    let mut stdin = io::stdin().lock();
    let mut bytes = Vec::with_capacity(64 * 1024);
    let most = u64::try_from(event::LONGEST).unwrap_or(u64::MAX) + 1;
    let cannot = |error: io::Error| format!("the agent's event cannot be read: {error}");
    (&mut stdin).take(most).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > event::LONGEST {
        // An agent that cannot write its whole event could take the hook for broken.
        io::copy(&mut stdin, &mut io::sink()).map_err(cannot)?;
    }
    event::check(&bytes).map_err(|error| error.to_string())
}

fn daemon(socket: &Path, device: Option<&DeviceId>, deadline: Duration) -> Result<Verdict, String> {
    let shown = socket.display();
    let stream = UnixStream::connect(socket).map_err(|error| no_connection(&error, socket))?;
    if !sys::peer_credentials(&stream).is_ok_and(|listener| listener.is_trusted_at(socket)) {
        let whose = "its listener runs as a user that is neither root, nor this user, nor the owner of its directory";
        return Err(format!("{shown} is not trusted: {whose}"));
    }
    let lost = |error: io::Error| format!("no complete answer on {shown}: {error}");
    // The rest of the time is for the way back.
    (&stream).write_all(&ask::question(device, deadline * 9 / 10)).map_err(lost)?;
    let mut answer = Vec::with_capacity(1024);
    let most = u64::try_from(ask::LONGEST).unwrap_or(u64::MAX) + 1;
    (&stream).take(most).read_to_end(&mut answer).map_err(lost)?;
    Ok(ask::verdict(&answer))
}

fn no_connection(error: &io::Error, socket: &Path) -> String {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    let (kind, shown) = (error.kind(), socket.display());
    if let Some(why) = sys::why_unreachable(socket) {
        why
    } else if matches!(kind, NotFound | ConnectionRefused) {
        format!("nothing listens on {shown}; is machineid-sidecar running?")
    } else if kind == PermissionDenied {
        format!("no permission to open {shown}; this user is not in its group")
    } else {
        format!("cannot connect to {shown}: {}", sys::io_in_words(error))
    }
}
