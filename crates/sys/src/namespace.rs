//! Namespaces: preparing new ones for their first process, and which one is around another.

#![expect(unsafe_code, reason = "neither nix nor rustix has NS_GET_PARENT")]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::mount::{MsFlags, mount};
use rustix::io::Errno;

use super::process::from_nix;

/// Linux's number on x86-64 and aarch64: `_IO(0xb7, 0x2)`.
const NS_GET_PARENT: libc::c_ulong = 0xb702;

/// An unused argument of `mount`.
const NOTHING: Option<&str> = None;

/// Maps `uid` and `gid` of the parent user namespace to themselves in the calling process's own, so that it keeps its
/// user. They must be the ids it had before it entered the namespace, and it must be dumpable.
///
/// Fails when they are mapped already, or a sandbox forbids it (EPERM, EACCES).
pub fn map_own_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    let write = |name: &str, text: String| {
        std::fs::write(format!("/proc/self/{name}"), text)
            .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    };
    // The kernel accepts an ordinary user's gid_map only after this. It keeps a process from dropping a group to which
    // a file's mode denies access.
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}

/// Mounts the `/proc` of the calling process's PID namespace, visible in its own mount namespace only.
///
/// Fails with EPERM in a container whose `/proc` is masked: an ordinary user may not mount one that shows more.
pub fn mount_own_proc() -> Result<(), Errno> {
    // Otherwise the mount would appear in the namespace that this one was copied from.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_SLAVE | MsFlags::MS_REC, NOTHING).map_err(from_nix)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NOTHING).map_err(from_nix)
}

/// The namespace around a PID or user namespace. `Ok(None)` for the caller's own, and for one that is not below it.
pub fn parent_namespace<Fd: AsFd>(namespace: Fd) -> Result<Option<OwnedFd>, Errno> {
    // SAFETY: the request takes no argument, and the descriptor is open for the length of the call.
    let parent = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_PARENT as _) };
    if parent >= 0 {
        // SAFETY: the kernel has just made this descriptor for the caller, and nothing else owns it.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(parent) }));
    }
    match super::process::last_errno() {
        Errno::PERM => Ok(None),
        errno => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_the_own_namespace_is_not_shown() {
        let own = std::fs::File::open("/proc/self/ns/pid").unwrap();
        assert!(parent_namespace(&own).unwrap().is_none());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(parent_namespace(&file).is_err());
    }
}
