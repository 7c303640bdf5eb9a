//! File operations that several modules share.

mod replace_file;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use thiserror::Error;

pub(crate) use replace_file::replace_file;

/// What another user could do in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Exposure {
    #[error("it belongs to uid {uid}, who can replace what is in it; remove it, or name another one")]
    Foreign { uid: u32 },
    #[error("every user of this host can replace what is in it (mode {mode:04o}); run chmod go-w on it")]
    Writable { mode: u32 },
}

/// Checks a directory that this process or root must own and others may not write to.
pub(crate) fn check_own(directory: &Path) -> io::Result<Result<(), Exposure>> {
    let about = fs::metadata(directory)?;
    let (uid, mode) = (about.uid(), about.permissions().mode() & 0o7777);
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Ok(Err(Exposure::Foreign { uid }));
    }
    // In a sticky directory only the owner of a file may replace it.
    let writable = mode & 0o002 != 0 && mode & 0o1000 == 0;
    Ok(if writable { Err(Exposure::Writable { mode }) } else { Ok(()) })
}

/// Creates a directory with its parents. An existing directory is left as it is.
pub(crate) fn make_directory(directory: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory)
}
