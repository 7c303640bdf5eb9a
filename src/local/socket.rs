//! The socket file: made with its mode and group from the first moment on, never taken over from a living daemon.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use crate::config::settings::Local;
use crate::config::{ConfigError, Origin, group_id};

/// Connections the kernel holds until we accept them.
const BACKLOG: i32 = 4096;

/// The bound socket. Its file goes with it.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Device and inode: at the end only our own file is removed. `None` when it is not ours.
    identity: Option<(u64, u64)>,
    /// Held for as long as we live: there is one daemon for each socket.
    _lock: File,
}

/// Takes the socket: locks its runtime directory, removes a stale file, binds.
///
/// Fails with a message for the operator: no directory, another daemon, something that is no socket in its place.
pub(crate) fn bind(local: &Local) -> Result<Socket, ConfigError> {
    let path = &local.socket;
    let wrong = |problem: String| ConfigError::at(&local.socket_origin, "local.socket", problem);
    let directory = path.parent().unwrap_or(Path::new("/"));
    if local.socket_origin == Origin::Default {
        make_directory(directory, if directory.starts_with("/run/machineid") { 0o755 } else { 0o700 })
            .map_err(|error| wrong(format!("cannot make the directory {}: {error}", directory.display())))?;
    } else if !directory.is_dir() {
        return Err(wrong(format!("the directory {0} does not exist; make it: mkdir -p {0}", directory.display())));
    }
    let lock = lock(local)?;
    remove_stale(path).map_err(wrong)?;
    let listener = listen(path, local.mode)
        .map_err(|error| wrong(format!("cannot make the socket {}: {error}", path.display())))?;
    let about = fs::symlink_metadata(path).map_err(|error| wrong(format!("the socket vanished: {error}")))?;
    // From here on its file goes with it, also when the rest fails.
    let socket = Socket { listener, path: path.clone(), identity: Some((about.dev(), about.ino())), _lock: lock };
    if let Some((group, origin)) = &local.group {
        give_to_group(path, group).map_err(|problem| ConfigError::at(origin, "local.group", problem))?;
    }
    Ok(socket)
}

/// Serves a socket that a service manager has made: its file, mode and owner are the manager's, and stay.
///
/// Fails when it is not where the configuration says: wrappers and agents are told that place.
pub(crate) fn take_over(local: &Local, handed: StdUnixListener) -> Result<Socket, ConfigError> {
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
    Ok(Socket { listener, path: local.socket.clone(), identity: None, _lock: lock })
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|now| Some((now.dev(), now.ino())) == self.identity);
        if ours {
            // Left behind, it is stale, and the next daemon replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a directory with its parents. One that exists is left as it is.
pub(crate) fn make_directory(directory: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory)
}

fn lock(local: &Local) -> Result<File, ConfigError> {
    let path = local.runtime_dir.join("lock");
    let wrong = |problem: String| {
        ConfigError::at(&Origin::Default, "local.runtime_dir", format!("{}: {problem}", path.display()))
    };
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|error| wrong(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(taken(&local.socket_origin, &local.socket)),
        Err(fs::TryLockError::Error(error)) => Err(wrong(format!("cannot be locked: {error}"))),
    }
}

fn taken(origin: &Origin, socket: &Path) -> ConfigError {
    let problem = format!(
        "another machineid-sidecar serves {} already; stop it first, or give this one a socket of its own",
        socket.display()
    );
    ConfigError::at(origin, "local.socket", problem)
}

/// Removes what a daemon that is no more has left.
fn remove_stale(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let about = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("cannot look at {shown}: {error}")),
        Ok(about) => about,
    };
    if !about.file_type().is_socket() {
        return Err(format!("{shown} exists and is no socket; move it away, or choose another path"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(format!("something else serves {shown} already; stop it, or choose another path")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| format!("cannot remove the stale socket {shown}: {error}"))
        }
        Err(error) => Err(format!("cannot tell whether {shown} is in use: {error}")),
    }
}

/// Binds, then gives the mode, then listens: nobody can connect in between.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    rustix::net::listen(socket.as_fd(), BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Gives the socket, which is ours, another mode and group.
pub(crate) fn set_access(local: &Local) -> Result<(), ConfigError> {
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

fn give_to_group(path: &Path, group: &str) -> Result<(), String> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let gid = group_id(group, &groups)
        .ok_or_else(|| format!("there is no group {group:?} on this host (getent group {group})"))?;
    std::os::unix::fs::chown(path, None, Some(gid))
        .map_err(|error| format!("cannot give {} to the group {group}: {error}", path.display()))
}
