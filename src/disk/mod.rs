//! File operations that several modules share.

mod replace_file;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

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

/// Why a file or directory cannot be made, and what would help: in a container it is a matter of what is mounted there.
#[derive(Debug, Error)]
#[error("cannot make {}: {source}{}", .path.display(), remedy(.path, .source))]
pub(crate) struct CannotMake {
    path: PathBuf,
    source: io::Error,
}

impl CannotMake {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

fn remedy(path: &Path, error: &io::Error) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let above = path.ancestors().skip(1).find(|above| above.is_dir()).unwrap_or(Path::new("/"));
    match (error.kind(), fs::metadata(above)) {
        (io::ErrorKind::ReadOnlyFilesystem, _) => format!(
            "; its file system is read-only: mount a tmpfs or a volume at {} that uid {uid} may write to",
            above.display()
        ),
        (io::ErrorKind::PermissionDenied, Ok(about)) => format!(
            "; {} belongs to uid {} with mode {:04o}, and this is uid {uid}: give it this owner; in a \
             container, mount a volume there, which has the image's owner, and no tmpfs, which is root's",
            above.display(),
            about.uid(),
            about.mode() & 0o7777
        ),
        _ => String::new(),
    }
}

/// Creates a directory with its parents. An existing directory is left as it is.
pub(crate) fn make_directory(directory: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory)
}
