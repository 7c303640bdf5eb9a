//! Where a client looks for the daemon's socket.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The socket of a system daemon.
const SYSTEM: &str = "/run/machineid/sidecar.sock";

/// There is no place to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotFound;

/// The flag, else `MACHINEID_SOCKET`, else the system's socket if it exists, else the user's.
///
/// Fails when nothing is named and the environment has no runtime directory. What is returned need not exist.
pub(crate) fn find(flag: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, NotFound> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    let path_in = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = path_in("MACHINEID_SOCKET") {
        return Ok(path);
    }
    if Path::new(SYSTEM).exists() {
        return Ok(SYSTEM.into());
    }
    path_in("XDG_RUNTIME_DIR")
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("machineid/sidecar.sock"))
        .ok_or(NotFound)
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no socket to ask: {SYSTEM} does not exist and XDG_RUNTIME_DIR is not set; name the socket with --socket"
        )
    }
}

impl std::error::Error for NotFound {}
