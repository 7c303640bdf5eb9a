//! What can be wrong with the socket's file, its lock and their directories.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the socket or its lock is not in its place. The text says what the operator can do.
#[derive(Debug, Error)]
pub(crate) enum SocketError {
    #[error("cannot look at {}: {source}", .path.display())]
    Look { path: PathBuf, source: io::Error },
    #[error("{} exists and is not a socket; move it away, or choose another path", .path.display())]
    NotASocket { path: PathBuf },
    #[error("something else serves {} already; stop it, or choose another path", .path.display())]
    InUse { path: PathBuf },
    #[error("cannot tell whether {} is in use: {source}", .path.display())]
    Unclear { path: PathBuf, source: io::Error },
    #[error("cannot remove the stale socket {}: {source}", .path.display())]
    RemoveStale { path: PathBuf, source: io::Error },
    #[error("there is no group {group:?} on this host (getent group {group})")]
    NoGroup { group: String },
    #[error("cannot give {} to the group {group}: {source}", .path.display())]
    GiveToGroup { path: PathBuf, group: String, source: io::Error },
    #[error(
        "cannot give {} the owners it had: {source}; restart the socket unit when agents may be stopped",
        .path.display()
    )]
    GiveToOwners { path: PathBuf, source: io::Error },
    /// The socket, its lock or a directory of theirs was removed, and the one at `path` cannot be recreated.
    #[error(
        "{} or the lock beside it was removed, and the daemon cannot {what} {}: {source}; no client can reach the daemon \
         until that is possible. Recreate the directory with its former owner, or restart the daemon when agents may be \
         stopped",
        .socket.display(), .path.display()
    )]
    Recreate { socket: PathBuf, what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} was removed, and another daemon now serves that path. This daemon (pid {}) still supervises its agents, and no \
         new client can reach it: stop one of the two",
        .socket.display(), std::process::id()
    )]
    Displaced { socket: PathBuf },
    /// Something that is not a stale socket stands in the place of the removed one.
    #[error("the socket was removed, and {source}. {displaced}")]
    Replaced { source: Box<SocketError>, displaced: Box<SocketError> },
    /// The task that accepts connections did not take the new listener.
    #[error("the daemon does not take its new socket")]
    NotTaken,
}
