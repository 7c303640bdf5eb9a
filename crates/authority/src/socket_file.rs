//! A unix socket of this server with its file: locked, made with its mode, made again when it was removed, and removed at
//! the end.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::net::{UnixListener, UnixStream};
use tracing::{error, warn};

/// The longest path of a socket that the kernel accepts, in bytes.
pub(super) const LONGEST_PATH: usize = 107;

/// The interval between checks whether the socket is still in place.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketKind {
    /// Administration: for root and the server's own user.
    Admin,
    /// The API: for every user of the host, since keys authenticate.
    Api,
}

impl SocketKind {
    const fn mode(self) -> Mode {
        match self {
            Self::Admin => Mode::RUSR.union(Mode::WUSR),
            Self::Api => Mode::from_raw_mode(0o666),
        }
    }

    /// The mode of a directory that is made for it.
    const fn directory_mode(self) -> u32 {
        match self {
            Self::Admin => 0o700,
            Self::Api => 0o755,
        }
    }

    const fn flag(self) -> &'static str {
        match self {
            Self::Admin => "--admin-socket",
            Self::Api => "--listen unix:PATH",
        }
    }

    const fn backlog(self) -> i32 {
        match self {
            Self::Admin => 64,
            Self::Api => 4096,
        }
    }
}

impl fmt::Display for SocketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin socket",
            Self::Api => "API socket",
        })
    }
}

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    #[error(
        "the path of the {kind} has {} bytes, but the kernel takes at most {LONGEST_PATH}: {}\n\
         Name a shorter one with {}.",
        path.as_os_str().len(),
        path.display(),
        kind.flag()
    )]
    TooLong { kind: SocketKind, path: PathBuf },
    #[error(
        "another authority already serves the {kind} {}\n\
         Stop that one first, or give this one its own {}.",
        path.display(),
        match kind {
            SocketKind::Admin => "--database or --admin-socket",
            SocketKind::Api => "--listen unix:PATH",
        }
    )]
    Taken { kind: SocketKind, path: PathBuf },
    #[error("{} exists and is not a socket\nMove it away, or name another {}.", path.display(), kind.flag())]
    NotASocket { kind: SocketKind, path: PathBuf },
    #[error("another program serves {}\nStop it, or name another {}.", path.display(), kind.flag())]
    Foreign { kind: SocketKind, path: PathBuf },
    #[error(
        "other users can put sockets of their own into {}, where the {kind} is to be\n\
         Name a directory that belongs to root or to this user with {}, and that others cannot write to.",
        directory.display(),
        kind.flag()
    )]
    OpenDirectory { kind: SocketKind, directory: PathBuf },
    #[error("cannot make the {kind} {}: {source}", path.display())]
    Io { kind: SocketKind, path: PathBuf, source: io::Error },
}

/// The right to be the one server behind a socket: a lock on a file beside it, which the kernel releases when the process
/// ends in any way. A socket left behind by a crash is thus told from a running server's without a race. When dropped, the
/// socket's file is removed.
#[derive(Debug)]
pub(super) struct SocketFile {
    kind: SocketKind,
    path: PathBuf,
    listener: UnixListener,
    lock: File,
    /// The device and inode of our socket's file; another file at the path is left alone.
    identity: Option<(u64, u64)>,
    /// The last problem that was logged.
    told: Option<String>,
}

impl SocketFile {
    /// Takes the lock, replaces a socket left behind by a crash, and listens. Needs a runtime.
    pub(super) fn open(kind: SocketKind, path: &Path) -> Result<Self, BindError> {
        if path.as_os_str().as_bytes().len() > LONGEST_PATH {
            return Err(BindError::TooLong { kind, path: path.to_owned() });
        }
        let failed = |source| BindError::Io { kind, path: path.to_owned(), source };
        if kind == SocketKind::Api {
            keep_directory(kind, path)?;
        }
        let lock = File::options().create(true).append(true).mode(0o600).open(lock_path(path)).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            rustix::io::Errno::WOULDBLOCK => BindError::Taken { kind, path: path.to_owned() },
            other => failed(other.into()),
        })?;
        Self::listening(kind, path, lock)
    }

    fn listening(kind: SocketKind, path: &Path, lock: File) -> Result<Self, BindError> {
        clear(kind, path)?;
        let listener = listener(kind, path).and_then(UnixListener::from_std);
        let listener = listener.map_err(|source| BindError::Io { kind, path: path.to_owned(), source })?;
        Ok(Self { kind, path: path.to_owned(), listener, lock, identity: identity_at(path), told: None })
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Checks the socket, and opens it again if the socket or its lock was removed, for example by a cleaner of temporary
    /// files. To be called every [`LOOK`].
    pub(super) async fn keep(&mut self) {
        let (kind, path) = (self.kind, self.path.clone());
        let lock = self.lock.metadata().ok().map(|about| (about.dev(), about.ino()));
        let expected = (lock, self.identity);
        // On a separate thread: a file system that hangs must not block anything else.
        let looked = tokio::task::spawn_blocking(move || {
            let there = (identity_at(&lock_path(&path)), identity_at(&path));
            if there.0 != expected.0
                && let Some(above) = path.parent()
            {
                fs::DirBuilder::new().recursive(true).mode(kind.directory_mode()).create(above)?;
            }
            Ok::<_, io::Error>(there)
        });
        let there = match looked.await {
            Ok(Ok(there)) if there == expected => {
                self.told = None;
                return;
            }
            Ok(Ok(there)) => there,
            Ok(Err(error)) => return self.say(&error.to_string()),
            Err(_) => return,
        };
        if self.kind == SocketKind::Api && there.0 != expected.0 && there.1 == self.identity {
            // Otherwise our own socket would be taken for another program's.
            let _ = fs::remove_file(&self.path);
        }
        // While we hold the lock, no other server may have the socket. Otherwise the holder of the new lock has it.
        let reopened =
            if there.0 == expected.0 { self.reopened_with_own_lock() } else { Self::open(self.kind, &self.path) };
        match reopened {
            Ok(file) => {
                // What is at the path is the new file's.
                self.identity = None;
                *self = file;
                warn!(path = %self.path.display(), "the {} was removed and has been recreated", self.kind);
            }
            Err(error) => self.say(&error.to_string()),
        }
    }

    fn reopened_with_own_lock(&self) -> Result<Self, BindError> {
        let lock = self.lock.try_clone();
        let lock = lock.map_err(|source| BindError::Io { kind: self.kind, path: self.path.clone(), source })?;
        Self::listening(self.kind, &self.path, lock)
    }

    /// Logs a problem with the socket, once.
    fn say(&mut self, problem: &str) {
        if self.told.as_deref() != Some(problem) {
            let what = match self.kind {
                SocketKind::Admin => "admin commands fail",
                SocketKind::Api => "clients cannot connect to it",
            };
            error!(path = %self.path.display(), problem, "the {} was removed and cannot be recreated; {what}", self.kind);
            self.told = Some(problem.to_owned());
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = self.identity.is_some() && identity_at(&self.path) == self.identity;
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "cannot remove the {}", self.kind);
        }
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

/// Makes the socket's directory if it is missing. Fails if another user could replace the socket in it: clients would then
/// refuse to send their keys there, and nothing could be asked.
fn keep_directory(kind: SocketKind, path: &Path) -> Result<(), BindError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let made = fs::DirBuilder::new().mode(kind.directory_mode()).create(directory);
    let about = match made {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(source),
        // The umask of a service may have taken the mode that others need to pass.
        Ok(()) => fs::set_permissions(directory, mode_of(kind.directory_mode())).and_then(|()| fs::metadata(directory)),
        Err(_) => fs::metadata(directory),
    };
    let about = about.map_err(|source| BindError::Io { kind, path: path.to_owned(), source })?;
    let own = [0, rustix::process::geteuid().as_raw()].contains(&about.uid());
    let open = about.mode() & 0o002 != 0 && about.mode() & 0o1000 == 0;
    if own && !open { Ok(()) } else { Err(BindError::OpenDirectory { kind, directory: directory.to_owned() }) }
}

fn mode_of(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

/// Removes a socket that no process serves. The caller must hold the lock.
fn clear(kind: SocketKind, path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { kind, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            // A program that knows nothing of the lock may serve it.
            if kind == SocketKind::Api && StdUnixStream::connect(path).is_ok() {
                return Err(BindError::Foreign { kind, path: path.to_owned() });
            }
            fs::remove_file(path).map_err(failed)
        }
        Ok(_) => Err(BindError::NotASocket { kind, path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// A listener whose file has its mode from its creation on, whatever the umask: bound with no more than the mode of the
/// socket itself, and opened to more users before it listens.
fn listener(kind: SocketKind, path: &Path) -> io::Result<StdUnixListener> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    if kind != SocketKind::Admin {
        fs::set_permissions(path, mode_of(kind.mode().as_raw_mode()))?;
    }
    listen(&socket, kind.backlog())?;
    Ok(StdUnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn an_api_socket_is_open_to_every_user_and_is_removed_at_the_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run/api.sock");
        let file = SocketFile::open(SocketKind::Api, &path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o666, 0o755));
        let another = SocketFile::open(SocketKind::Api, &path).unwrap_err();
        assert!(matches!(another, BindError::Taken { .. }), "{another}");
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("api.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        drop(SocketFile::open(SocketKind::Api, &path).unwrap());
        let served = StdUnixListener::bind(&path).unwrap();
        let error = SocketFile::open(SocketKind::Api, &path).unwrap_err();
        assert!(matches!(error, BindError::Foreign { .. }), "{error}");
        drop(served);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not a socket").unwrap();
        let error = SocketFile::open(SocketKind::Api, &path).unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"not a socket");
    }

    #[tokio::test]
    async fn an_api_socket_is_not_made_where_others_could_replace_it() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), mode_of(0o777)).unwrap();
        let error = SocketFile::open(SocketKind::Api, &place.path().join("api.sock")).unwrap_err();
        assert!(matches!(error, BindError::OpenDirectory { .. }), "{error}");
        fs::set_permissions(place.path(), mode_of(0o1777)).unwrap();
        assert!(SocketFile::open(SocketKind::Api, &place.path().join("api.sock")).is_ok(), "as in /tmp");
    }

    #[tokio::test]
    async fn a_socket_that_was_removed_is_made_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("api.sock");
        let mut file = SocketFile::open(SocketKind::Api, &path).unwrap();
        fs::remove_file(&path).unwrap();
        file.keep().await;
        assert!(StdUnixStream::connect(&path).is_ok());
        let before = identity_at(&path);
        file.keep().await;
        assert_eq!(identity_at(&path), before);
        fs::remove_file(lock_path(&path)).unwrap();
        file.keep().await;
        assert!(StdUnixStream::connect(&path).is_ok() && lock_path(&path).exists());
    }
}
