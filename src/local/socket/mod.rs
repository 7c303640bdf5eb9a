//! The socket file: created with its mode and group from the first moment on, never taken from a living daemon.

mod error;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tracing::warn;

use crate::config::settings::LocalSettings;
use crate::config::{ConfigError, Origin, group_id};
use crate::disk::{CannotMake, make_directory};
use crate::telemetry::metrics::OwnFile;
pub(crate) use error::SocketError;

/// Connections that the kernel queues until the daemon accepts them.
const BACKLOG: i32 = 4096;

/// The bound socket. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct Socket {
    /// The listener from the start. It has no file any more once the file was lost and recreated.
    pub(crate) listener: UnixListener,
    path: PathBuf,
    lock_path: PathBuf,
    /// The directories of socket and lock, and those above them, for recreating them.
    directories: Vec<(PathBuf, Access)>,
    /// The mode and owners of a service manager's socket, for recreating it. `None` when the daemon made the socket.
    handed: Option<Access>,
    place: Mutex<SocketPlace>,
    renewed: mpsc::Sender<StdUnixListener>,
    renewals: tokio::sync::Mutex<mpsc::Receiver<StdUnixListener>>,
}

/// The socket's file and its lock, as they are in the file system.
#[derive(Debug)]
struct SocketPlace {
    /// Device and inode of the socket's file.
    identity: Option<(u64, u64)>,
    /// Whether the daemon made the file: at the end only its own file is removed.
    ours: bool,
    /// Held as long as the daemon lives: there is one daemon for each socket.
    lock: File,
}

/// Mode and owners of a file.
#[derive(Clone, Copy, Debug)]
struct Access {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Access {
    fn of(about: &fs::Metadata) -> Self {
        Self { mode: about.mode() & 0o7777, uid: about.uid(), gid: about.gid() }
    }
}

/// The result of a look at lock and socket.
#[derive(Debug, Default)]
pub(crate) struct SocketCheck {
    pub(crate) restored: Vec<OwnFile>,
    /// Whether this daemon holds the lock: then its directory belongs to no other daemon.
    pub(crate) has_lock: bool,
    /// Why lock or socket cannot be recreated, and what to do.
    pub(crate) problem: Option<SocketError>,
}

/// Whether the file at this path has this identity.
fn is_at(path: &Path, identity: Option<(u64, u64)>) -> bool {
    fs::symlink_metadata(path).is_ok_and(|now| Some(identity_of(&now)) == identity)
}

fn identity_of(about: &fs::Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Creates the socket: locks its runtime directory, removes a stale file, binds.
///
/// Fails with a message for the operator when there is no directory, another daemon serves the socket, or another file is in
/// its place.
pub(crate) fn bind(local: &LocalSettings) -> Result<Socket, ConfigError> {
    let path = &local.socket;
    let wrong = |problem: String| ConfigError::at(&local.socket_origin, "local.socket", problem);
    let directory = path.parent().unwrap_or(Path::new("/"));
    if local.socket_origin == Origin::Default {
        make_directory(directory, if directory.starts_with("/run/machineid") { 0o755 } else { 0o700 })
            .map_err(|error| wrong(CannotMake::at(directory)(error).to_string()))?;
    } else if !directory.is_dir() {
        return Err(no_directory(local, directory));
    }
    let lock = lock(local)?;
    remove_stale(path).map_err(|error| ConfigError::at(&local.socket_origin, "local.socket", error))?;
    let listener = listen(path, local.mode)
        .and_then(UnixListener::from_std)
        .map_err(|error| wrong(CannotMake::at(path)(error).to_string()))?;
    let about = fs::symlink_metadata(path).map_err(|error| wrong(format!("the socket vanished: {error}")))?;
    // From here on dropping the socket removes its file, also when a later step fails.
    let place = SocketPlace { identity: Some(identity_of(&about)), ours: true, lock };
    let socket = Socket::new(listener, local, place, None);
    if let Some((group, origin)) = &local.group {
        give_to_group(path, group).map_err(|error| ConfigError::at(origin, "local.group", error))?;
    }
    Ok(socket)
}

/// Whether [`bind`] would fail for a reason that shows before the start. Changes nothing, and does not look whether the socket
/// is in use: the daemon that is running may be the one whose new configuration is checked.
pub(crate) fn check(local: &LocalSettings) -> Result<(), ConfigError> {
    let directory = local.socket.parent().unwrap_or(Path::new("/"));
    // At a default place the daemon makes the directory; below /run a service manager may, at the start.
    let made_later = local.socket_origin == Origin::Default || directory.starts_with("/run");
    if !made_later && !directory.is_dir() {
        return Err(no_directory(local, directory));
    }
    if fs::symlink_metadata(&local.socket).is_ok_and(|about| !about.file_type().is_socket()) {
        let error = SocketError::NotASocket { path: local.socket.clone() };
        return Err(ConfigError::at(&local.socket_origin, "local.socket", error));
    }
    if let Some((group, origin)) = &local.group {
        gid_of(group).map_err(|error| ConfigError::at(origin, "local.group", error))?;
    }
    Ok(())
}

fn no_directory(local: &LocalSettings, directory: &Path) -> ConfigError {
    let problem = format!("the directory {0} does not exist; make it: mkdir -p {0}", directory.display());
    ConfigError::at(&local.socket_origin, "local.socket", problem)
}

/// Takes over a socket that a service manager has made: its file, mode and owner are the manager's, and stay.
///
/// Fails when the socket is not at the configured path, which wrappers and agents are told.
pub(crate) fn take_over(local: &LocalSettings, handed: StdUnixListener) -> Result<Socket, ConfigError> {
    let wrong = |problem: String| ConfigError::at(&local.socket_origin, "local.socket", problem);
    let address = handed.local_addr().map_err(|error| wrong(error.to_string()))?;
    if address.as_pathname() != Some(&local.socket) {
        let theirs = address.as_pathname().map_or("no path at all".to_owned(), |path| path.display().to_string());
        return Err(wrong(format!(
            "is {}, and the service manager hands over a socket at {theirs}; name the same place in the socket unit's \
             ListenStream= and here",
            local.socket.display()
        )));
    }
    let lock = lock(local)?;
    let listener = handed.set_nonblocking(true).and_then(|()| UnixListener::from_std(handed));
    let listener = listener.map_err(|error| wrong(format!("cannot serve the socket that was handed over: {error}")))?;
    let about = fs::symlink_metadata(&local.socket).ok();
    let access = about.as_ref().map_or(Access { mode: 0o600, uid: 0, gid: 0 }, Access::of);
    let place = SocketPlace { identity: about.as_ref().map(identity_of), ours: false, lock };
    Ok(Socket::new(listener, local, place, Some(access)))
}

impl Socket {
    fn new(listener: UnixListener, local: &LocalSettings, place: SocketPlace, handed: Option<Access>) -> Self {
        // A listener that is not taken yet is replaced by the next look.
        let (renewed, renewals) = mpsc::channel(4);
        let lock_path = lock_path(local);
        let above = local.socket.ancestors().skip(1).chain(lock_path.ancestors().skip(1));
        let directories =
            above.filter_map(|path| Some((path.to_owned(), Access::of(&fs::metadata(path).ok()?)))).collect();
        Self {
            listener,
            path: local.socket.clone(),
            lock_path,
            directories,
            handed,
            place: Mutex::new(place),
            renewed,
            renewals: tokio::sync::Mutex::new(renewals),
        }
    }

    /// Receives listeners that replace one whose file was lost. For the one task that serves.
    pub(crate) async fn renewals(&self) -> tokio::sync::MutexGuard<'_, mpsc::Receiver<StdUnixListener>> {
        self.renewals.lock().await
    }

    /// Checks whether lock and socket are in their places, and recreates what is gone: a clean-up of temporary files or a
    /// logout may have removed them, and then no client could reach the daemon. The place of another daemon that started
    /// meanwhile is left alone. Reads and writes files: not for the thread that answers.
    pub(crate) fn keep(&self, local: &LocalSettings) -> SocketCheck {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = SocketCheck::default();
        if let Err(problem) = self.keep_lock(&mut place, &mut kept.restored) {
            return SocketCheck { problem: Some(problem), ..kept };
        }
        kept.has_lock = true;
        kept.problem = self.keep_file(&mut place, local, &mut kept.restored).err();
        kept
    }

    fn keep_lock(&self, place: &mut SocketPlace, restored: &mut Vec<OwnFile>) -> Result<(), SocketError> {
        let held = place.lock.metadata().ok().as_ref().map(identity_of);
        if is_at(&self.lock_path, held) {
            return Ok(());
        }
        let directory = self.lock_path.parent().unwrap_or(Path::new("/"));
        self.make_again(directory).map_err(|error| self.cannot("make", directory, error))?;
        place.lock = try_lock(&self.lock_path).map_err(|error| match error {
            LockError::Taken => self.displaced(),
            LockError::Failed(error) => self.cannot("lock", &self.lock_path, error),
        })?;
        restored.push(OwnFile::Lock);
        Ok(())
    }

    fn keep_file(
        &self,
        place: &mut SocketPlace,
        local: &LocalSettings,
        restored: &mut Vec<OwnFile>,
    ) -> Result<(), SocketError> {
        if is_at(&self.path, place.identity) {
            return Ok(());
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        self.make_again(directory).map_err(|error| self.cannot("make", directory, error))?;
        remove_stale(&self.path).map_err(|error| SocketError::Replaced {
            source: Box::new(error),
            displaced: Box::new(self.displaced()),
        })?;
        let mode = self.handed.map_or(local.mode, |access| access.mode);
        let listener = listen(&self.path, mode).map_err(|error| self.cannot("make", &self.path, error))?;
        let about = fs::symlink_metadata(&self.path).map_err(|error| self.cannot("make", &self.path, error))?;
        (place.identity, place.ours) = (Some(identity_of(&about)), true);
        if let Err(error) = self.give_to_owners(local) {
            // With its present mode, fewer users can reach the socket than should.
            warn!(%error, "the recreated socket has other owners");
        }
        if self.renewed.try_send(listener).is_err() {
            // No task takes the listener: the file is stale without it, and the next look replaces it.
            place.identity = None;
            return Err(SocketError::NotTaken);
        }
        if self.handed.is_some() {
            warn!(
                socket = %self.path.display(),
                "the socket that the service manager made was removed; this daemon made one of its own in its place. \
                 Restart the socket unit when agents may be stopped"
            );
        }
        restored.push(OwnFile::Socket);
        Ok(())
    }

    fn make_again(&self, directory: &Path) -> io::Result<()> {
        make_again(directory, &self.directories)
    }

    fn give_to_owners(&self, local: &LocalSettings) -> Result<(), SocketError> {
        match (&self.handed, &local.group) {
            (Some(access), _) => {
                let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
                if (access.uid, access.gid) == own {
                    return Ok(());
                }
                std::os::unix::fs::chown(&self.path, Some(access.uid), Some(access.gid))
                    .map_err(|source| SocketError::GiveToOwners { path: self.path.clone(), source })
            }
            (None, Some((group, _))) => give_to_group(&self.path, group),
            (None, None) => Ok(()),
        }
    }

    fn cannot(&self, what: &'static str, path: &Path, source: io::Error) -> SocketError {
        SocketError::Recreate { socket: self.path.clone(), what, path: path.to_owned(), source }
    }

    fn displaced(&self) -> SocketError {
        SocketError::Displaced { socket: self.path.clone() }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        if place.ours && is_at(&self.path, place.identity) {
            // A file left behind is stale, and the next daemon replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Recreates a directory and those missing above it, each with its former mode and group.
///
/// Also fails when the directory exists and belongs to another user, who could put another daemon's socket into it.
fn make_again(directory: &Path, known: &[(PathBuf, Access)]) -> io::Result<()> {
    let had = |path: &Path| known.iter().find(|(known, _)| known == path).map(|(_, access)| *access);
    let own = rustix::process::geteuid().as_raw();
    match fs::metadata(directory) {
        Ok(about) => {
            let owners = [0, own, had(directory).map_or(own, |access| access.uid)];
            return if owners.contains(&about.uid()) {
                Ok(())
            } else {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another user's directory now"))
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(above) = directory.parent() {
        make_again(above, known)?;
    }
    DirBuilder::new().mode(0o700).create(directory)?;
    let Some(mut access) = had(directory) else { return Ok(()) };
    if fs::metadata(directory)?.gid() != access.gid
        && let Err(error) = std::os::unix::fs::chown(directory, None, Some(access.gid))
    {
        // The wrong group gets no access: fewer users can reach the socket than should.
        warn!(directory = %directory.display(), %error, "a recreated directory has another group");
        access.mode &= !0o070;
    }
    // The umask has reduced the mode, and a change of the group may reduce it as well.
    fs::set_permissions(directory, fs::Permissions::from_mode(access.mode))
}

fn lock_path(local: &LocalSettings) -> PathBuf {
    local.runtime_dir.join("lock")
}

enum LockError {
    /// Another process holds it.
    Taken,
    Failed(io::Error),
}

fn try_lock(path: &Path) -> Result<File, LockError> {
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(LockError::Failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LockError::Taken),
        Err(fs::TryLockError::Error(error)) => Err(LockError::Failed(error)),
    }
}

fn lock(local: &LocalSettings) -> Result<File, ConfigError> {
    let path = lock_path(local);
    let wrong = |problem: String| {
        ConfigError::at(&Origin::Default, "local.runtime_dir", format!("{}: {problem}", path.display()))
    };
    try_lock(&path).map_err(|error| match error {
        LockError::Taken => taken(&local.socket_origin, &local.socket),
        LockError::Failed(error) => wrong(format!("cannot be opened and locked: {error}")),
    })
}

fn taken(origin: &Origin, socket: &Path) -> ConfigError {
    let problem = format!(
        "another machineid-sidecar serves {} already; stop it first, or give this one a socket of its own",
        socket.display()
    );
    ConfigError::at(origin, "local.socket", problem)
}

/// Removes the stale socket of a daemon that has ended.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let at = || path.to_owned();
    let about = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(SocketError::Look { path: at(), source }),
        Ok(about) => about,
    };
    if !about.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: at() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse { path: at() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| SocketError::RemoveStale { path: at(), source })
        }
        Err(source) => Err(SocketError::Unclear { path: at(), source }),
    }
}

/// Binds, then sets the mode, then listens: no client can connect in between.
fn listen(path: &Path, mode: u32) -> io::Result<StdUnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    rustix::net::listen(socket.as_fd(), BACKLOG)?;
    Ok(socket.into())
}

/// Gives the daemon's own socket another mode and group.
pub(crate) fn set_access(local: &LocalSettings) -> Result<(), ConfigError> {
    let path = &local.socket;
    fs::set_permissions(path, fs::Permissions::from_mode(local.mode)).map_err(|error| {
        let problem = format!("cannot give {} its mode: {error}", path.display());
        ConfigError::at(&Origin::Default, "local.mode", problem)
    })?;
    match &local.group {
        None => Ok(()),
        Some((group, origin)) => {
            give_to_group(path, group).map_err(|problem| ConfigError::at(origin, "local.group", problem))
        }
    }
}

fn gid_of(group: &str) -> Result<u32, SocketError> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    group_id(group, &groups).ok_or_else(|| SocketError::NoGroup { group: group.to_owned() })
}

fn give_to_group(path: &Path, group: &str) -> Result<(), SocketError> {
    let gid = gid_of(group)?;
    std::os::unix::fs::chown(path, None, Some(gid)).map_err(|source| SocketError::GiveToGroup {
        path: path.to_owned(),
        group: group.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_made_again_has_the_mode_that_it_had() {
        let place = tempfile::tempdir().unwrap();
        let (outer, inner) = (place.path().join("outer"), place.path().join("outer/inner"));
        make_directory(&inner, 0o700).unwrap();
        let known = [(&outer, 0o755), (&inner, 0o2777)].map(|(path, mode)| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            (path.clone(), Access::of(&fs::metadata(path).unwrap()))
        });
        fs::remove_dir_all(&outer).unwrap();
        make_again(&inner, &known).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&outer), mode(&inner)), (0o755, 0o2777));
        fs::remove_dir_all(&outer).unwrap();
        make_again(&inner, &[]).unwrap();
        assert_eq!((mode(&outer), mode(&inner)), (0o700, 0o700), "of what is not known");
    }
}
