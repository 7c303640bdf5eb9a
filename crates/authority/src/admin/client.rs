//! The client of the admin socket, for the command line.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{AdminCall, AdminReply, AdminRequest};

/// How long to wait for a reply: longer than the server takes in the worst case.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait for a backup.
const BACK_UP_PATIENCE: Duration = Duration::from_hours(1);

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(
        "no authority is running here: there is no admin socket {}\n\
         Start one with `machineid-authority serve`, or name its socket with --admin-socket.",
        .0.display()
    )]
    NoSocket(PathBuf),
    #[error(
        "no authority is running here: no process listens on {}\n\
         The authority that made the socket has ended. Start it again with `machineid-authority serve`.",
        .0.display()
    )]
    NothingListens(PathBuf),
    #[error("not permitted to open the admin socket {}\nRun this as root or as the user of the authority.", .0.display())]
    NotPermitted(PathBuf),
    #[error("cannot connect to the admin socket {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the authority did not answer: {0}\nIts log says more. Look at the organisation before you try again.")]
    NoReply(io::Error),
    #[error("this version cannot read the authority's answer: {0}\nUse the same version as the server.")]
    Foreign(serde_json::Error),
    #[error("the request could not be written: {0}")]
    Unwritable(serde_json::Error),
}

/// Asks the server behind the socket at `path`.
pub(crate) fn ask(path: &Path, request: &AdminCall) -> Result<AdminReply, AskError> {
    let mut line = serde_json::to_vec(request).map_err(AskError::Unwritable)?;
    line.push(b'\n');
    // A large database takes long to copy.
    let patience = if matches!(request.request, AdminRequest::BackUp { .. }) { BACK_UP_PATIENCE } else { PATIENCE };
    let mut stream = UnixStream::connect(path).map_err(|source| {
        let path = path.to_owned();
        let kind = source.kind();
        if kind == io::ErrorKind::NotFound {
            AskError::NoSocket(path)
        } else if kind == io::ErrorKind::ConnectionRefused {
            AskError::NothingListens(path)
        } else if kind == io::ErrorKind::PermissionDenied {
            AskError::NotPermitted(path)
        } else {
            AskError::Connect { path, source }
        }
    })?;
    let mut reply = Vec::new();
    stream
        .set_read_timeout(Some(patience))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| stream.write_all(&line))
        .and_then(|()| stream.read_to_end(&mut reply))
        .map_err(AskError::NoReply)?;
    if reply.is_empty() {
        return Err(AskError::NotPermitted(path.to_owned()));
    }
    serde_json::from_slice(&reply).map_err(AskError::Foreign)
}
