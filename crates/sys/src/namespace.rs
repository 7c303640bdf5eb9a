//! Preparing new namespaces for their first process.

use nix::mount::{MsFlags, mount};
use rustix::io::Errno;

use super::process::from_nix;

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
