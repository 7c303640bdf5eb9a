//! Who is at the other end of a unix socket.

#![expect(unsafe_code, reason = "rustix has no call for SO_PEERPIDFD")]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// Linux's number on x86-64 and aarch64; libc does not name it.
const SO_PEERPIDFD: libc::c_int = 77;

/// A pidfd of the process that connected the socket: unlike the number in `SO_PEERCRED` it cannot come to mean another
/// process. `Ok(None)` when the kernel is older than 6.5 or the peer has been reaped.
pub fn peer_pidfd<Fd: AsFd>(socket: Fd) -> Result<Option<OwnedFd>, Errno> {
    let mut fd: libc::c_int = -1;
    let mut size = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: `fd` and `size` are live locals, and `size` says how much room `fd` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut size,
        )
    };
    if result == 0 && fd >= 0 {
        // SAFETY: the kernel has just made this descriptor for us, and nothing else knows of it.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    match std::io::Error::last_os_error().raw_os_error().map(Errno::from_raw_os_error) {
        // ESRCH and EINVAL are what kernels say of a peer that has been reaped, ENODATA of one without a pid.
        Some(Errno::NOPROTOOPT | Errno::SRCH | Errno::INVAL | Errno::NODATA) | None => Ok(None),
        Some(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

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
