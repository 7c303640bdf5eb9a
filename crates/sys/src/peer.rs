//! The process at the other end of a unix socket.

#![expect(unsafe_code, reason = "neither nix nor rustix has SO_PEERGROUPS")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::io::Errno;

use super::process::from_nix;

/// Linux's number on x86-64 and aarch64; libc does not name it.
const SO_PEERGROUPS: libc::c_int = 59;

/// The process that connected a socket, or listens at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its pid; 0 when it is in a PID namespace that the caller's does not contain, as a container's process and the
    /// host's daemon are to each other.
    pub pid: i32,
    /// Its effective user, in the caller's user namespace.
    pub uid: u32,
    /// Its effective group, in the caller's user namespace.
    pub gid: u32,
}

impl Credentials {
    /// Whether a client may believe this listener of the daemon's socket: it runs as root, as this user, or as the owner of
    /// the socket's directory. Any other user's listener could have been put at a path where the socket is looked for, to
    /// answer yes.
    #[must_use]
    pub fn is_trusted_at(self, socket: &Path) -> bool {
        let owner = || socket.parent().and_then(|directory| directory.metadata().ok()).map(|about| about.uid());
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw() || Some(self.uid) == owner()
    }
}

/// Reads `SO_PEERCRED`. (rustix's call cannot express a pid of 0.)
pub fn peer_credentials<Fd: AsFd>(socket: Fd) -> Result<Credentials, Errno> {
    let found = getsockopt(&socket, sockopt::PeerCredentials).map_err(from_nix)?;
    Ok(Credentials { pid: found.pid(), uid: found.uid(), gid: found.gid() })
}

/// The supplementary groups that the peer had when it connected, as `SO_PEERCRED` reports its user at that time.
///
/// Not those in `/proc/<pid>/status`: the process may have changed since, or, where there is no pidfd of the peer, its
/// number may be another process's by now; and with `hidepid` it cannot be read.
pub fn peer_groups<Fd: AsFd>(socket: Fd) -> Result<Vec<u32>, Errno> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let room = groups.len() * size_of::<libc::gid_t>();
        let mut size = libc::socklen_t::try_from(room).map_err(|_| Errno::INVAL)?;
        // SAFETY: `groups` and `size` are live locals, and `size` says how much room `groups` has.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        let count = usize::try_from(size).map_err(|_| Errno::INVAL)? / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        // Read only now, since errno has no meaning without a failure.
        match super::process::last_errno() {
            // `size` now holds the size that is needed.
            Errno::RANGE if count > groups.len() => groups.resize(count, 0),
            errno => return Err(errno),
        }
    }
}

/// A pidfd of the process that connected the socket: unlike the number in `SO_PEERCRED` it cannot come to mean another
/// process. `Ok(None)` when the kernel is older than 6.5 or the peer has been reaped.
pub fn peer_pidfd<Fd: AsFd>(socket: Fd) -> Result<Option<OwnedFd>, Errno> {
    match getsockopt(&socket, sockopt::PeerPidfd).map_err(from_nix) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // Kernels return ESRCH or EINVAL for a peer that has been reaped, ENODATA for one without a pid.
        Err(Errno::NOPROTOOPT | Errno::SRCH | Errno::INVAL | Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_credentials_of_a_pair_are_our_own() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let own = Credentials { pid: nix::unistd::getpid().as_raw(), uid, gid };
        assert_eq!(peer_credentials(&socket), Ok(own));
    }

    #[test]
    fn the_groups_of_a_pair_are_our_own() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let own: Vec<u32> = nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        assert_eq!(peer_groups(&socket), Ok(own));
    }

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (socket, _other) = UnixStream::pair().unwrap();
        if let Some(pidfd) = peer_pidfd(&socket).unwrap() {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
            let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap();
            assert_eq!(pid.trim(), std::process::id().to_string());
        }
    }
}
