//! The server's end of the admin socket.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{AdminCall, Desk, answer};
use crate::authority::audit::{Actor, Call};
use crate::authority::repeated::rarely;
use crate::clock::wall_now;

/// The largest request, in bytes.
const LARGEST: u64 = 16 * 1024;

/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest path the kernel takes for a socket, in bytes.
const LONGEST_PATH: usize = 107;

/// Why the admin socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::authority) enum BindError {
    #[error(
        "the path of the admin socket has {} bytes, but the kernel takes at most {LONGEST_PATH}: {}\n\
         Name a shorter one with --admin-socket.",
        .0.as_os_str().len(),
        .0.display()
    )]
    TooLong(PathBuf),
    #[error(
        "another authority already serves the admin socket {}\n\
         Stop that one first, or give this one its own --database or --admin-socket.",
        .0.display()
    )]
    Taken(PathBuf),
    #[error("{} exists and is no socket\nMove it away, or name another --admin-socket.", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot make the admin socket {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The right to be the one server behind an admin socket: a lock on a file beside it, which the kernel lets go of when
/// the process ends, however it ends. A file left behind by a crash is thus told from a living server's without a race.
#[derive(Debug)]
pub(in crate::authority) struct Door {
    path: PathBuf,
    listener: UnixListener,
    _lock: File,
}

impl Door {
    /// Takes the lock, replaces what a crashed server left behind, and listens. Needs a runtime.
    pub(in crate::authority) fn open(path: &Path) -> Result<Self, BindError> {
        if path.as_os_str().as_bytes().len() > LONGEST_PATH {
            return Err(BindError::TooLong(path.to_owned()));
        }
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        let mut lock_path = OsString::from(path);
        lock_path.push(".lock");
        let lock = File::options().create(true).append(true).mode(0o600).open(lock_path).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            rustix::io::Errno::WOULDBLOCK => BindError::Taken(path.to_owned()),
            other => failed(other.into()),
        })?;
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
            Ok(_) => return Err(BindError::NotASocket(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = private_listener(path).and_then(UnixListener::from_std).map_err(failed)?;
        Ok(Self { path: path.to_owned(), listener, _lock: lock })
    }

    /// Serves until `stop`, then takes the socket away.
    pub(in crate::authority) async fn serve(self, desk: Desk, stop: CancellationToken) {
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    let desk = desk.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &desk).await {
                            rarely!(warn, %error, "an admin request failed");
                        }
                    });
                }
                Err(error) => {
                    rarely!(warn, %error, "cannot accept an admin connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "cannot take the admin socket away");
        }
    }
}

/// A listener whose file has mode 0600 from its first moment: the mode is set on the socket before it gets its name.
fn private_listener(path: &Path) -> io::Result<StdUnixListener> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 64)?;
    Ok(StdUnixListener::from(socket))
}

async fn converse(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 && peer.uid() != rustix::process::geteuid().as_raw() {
        rarely!(warn, uid = peer.uid(), "refused an admin connection of another user");
        return Ok(());
    }
    let (read, mut write) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(read.take(LARGEST));
    tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let AdminCall { request, reason } = serde_json::from_slice(&line)?;
    let request_id = Uuid::new_v4().hyphenated().to_string();
    info!(uid = peer.uid(), pid = peer.pid(), request_id, ?request, "admin request");
    let call = Call { at: wall_now(), request_id, actor: Actor::Uid(peer.uid()), reason };
    let reply = answer(desk, request, &call).await;
    let mut bytes = serde_json::to_vec(&reply)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await?;
    write.shutdown().await
}
