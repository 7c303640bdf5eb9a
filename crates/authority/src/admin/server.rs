//! The server of the admin socket.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use machineid_clock::wall_now;
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{AdminCall, Desk, answer};
use crate::audit::{Actor, Call};
use crate::repeated::rarely;

/// The largest request, in bytes.
const LARGEST: u64 = 16 * 1024;

/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest path of a socket that the kernel accepts, in bytes.
const LONGEST_PATH: usize = 107;

/// Why the admin socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
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
    #[error("{} exists and is not a socket\nMove it away, or name another --admin-socket.", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot make the admin socket {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The right to be the one server behind an admin socket: a lock on a file beside it, which the kernel releases when
/// the process ends in any way. A socket left behind by a crash is thus told from a running server's without a race.
#[derive(Debug)]
pub(crate) struct Door {
    path: PathBuf,
    listener: UnixListener,
    lock: File,
    /// The device and inode of our socket's file; another file at the path is left alone.
    identity: Option<(u64, u64)>,
}

/// The interval between checks whether the socket is still in place.
const LOOK: Duration = Duration::from_secs(2);

impl Door {
    /// Takes the lock, replaces a socket left behind by a crash, and listens. Needs a runtime.
    pub(crate) fn open(path: &Path) -> Result<Self, BindError> {
        if path.as_os_str().as_bytes().len() > LONGEST_PATH {
            return Err(BindError::TooLong(path.to_owned()));
        }
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        let lock = File::options().create(true).append(true).mode(0o600).open(lock_path(path)).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            rustix::io::Errno::WOULDBLOCK => BindError::Taken(path.to_owned()),
            other => failed(other.into()),
        })?;
        clear(path)?;
        let listener = private_listener(path).and_then(UnixListener::from_std).map_err(failed)?;
        let identity = identity_at(path);
        Ok(Self { path: path.to_owned(), listener, lock, identity })
    }

    /// Serves until `stop`, then removes the socket. If the socket's file is removed meanwhile, for example by a
    /// cleaner of temporary files, it is created again.
    pub(crate) async fn serve(mut self, desk: Desk, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        let mut told = None;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
                _ = looks.tick() => {
                    self = self.kept(&mut told).await;
                    continue;
                },
            };
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
        let ours = self.identity.is_some() && identity_at(&self.path) == self.identity;
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "cannot remove the admin socket");
        }
    }
}

impl Door {
    /// Checks the socket, and opens it again if the socket or its lock was removed. `told` is the last problem that was
    /// logged.
    async fn kept(self, told: &mut Option<String>) -> Self {
        let path = self.path.clone();
        let lock = self.lock.metadata().ok().map(|about| (about.dev(), about.ino()));
        let expected = (lock, self.identity);
        // On a separate thread: a file system that hangs must not block anything else.
        let looked = tokio::task::spawn_blocking(move || {
            let there = (identity_at(&lock_path(&path)), identity_at(&path));
            if there.0 != expected.0
                && let Some(above) = path.parent()
            {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
            }
            Ok::<_, io::Error>(there)
        });
        let there = match looked.await {
            Ok(Ok(there)) if there == expected => {
                *told = None;
                return self;
            }
            Ok(Ok(there)) => there,
            Ok(Err(error)) => {
                say(told, &self.path, &error.to_string());
                return self;
            }
            Err(_) => return self,
        };
        // While we hold the lock, no other server may have the socket. Otherwise the holder of the new lock has it.
        let reopened = if there.0 == expected.0 { self.reopened_with_own_lock() } else { Self::open(&self.path) };
        match reopened {
            Ok(door) => {
                *told = None;
                warn!(path = %door.path.display(), "the admin socket was removed and has been recreated");
                door
            }
            Err(error) => {
                say(told, &self.path, &error.to_string());
                self
            }
        }
    }

    fn reopened_with_own_lock(&self) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: self.path.clone(), source };
        clear(&self.path)?;
        let listener = private_listener(&self.path).and_then(UnixListener::from_std).map_err(failed)?;
        let lock = self.lock.try_clone().map_err(failed)?;
        Ok(Self { path: self.path.clone(), listener, lock, identity: identity_at(&self.path) })
    }
}

/// Logs a problem with the socket, once.
fn say(told: &mut Option<String>, path: &Path, problem: &str) {
    if told.as_deref() != Some(problem) {
        error!(path = %path.display(), problem, "the admin socket was removed and cannot be recreated; admin commands \
                                                 fail");
        *told = Some(problem.to_owned());
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut lock_path = OsString::from(path);
    lock_path.push(".lock");
    lock_path.into()
}

fn identity_at(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

/// Removes a socket that no process serves. The caller must hold the lock.
fn clear(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed),
        Ok(_) => Err(BindError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// A listener whose file has mode 0600 from its creation on: the mode is set on the socket before it gets its name.
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
        rarely!(warn, uid = peer.uid(), "refused an admin connection from another user");
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
