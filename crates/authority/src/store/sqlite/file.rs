//! The database's file: its identity, the lock against a second server, and its problems while it is served.
//!
//! A lock file beside the database is not enough: the same file can have another name (a hard link, a bind mount of the
//! file alone), with another lock file and another write-ahead log beside it. Two servers would each miss the other's
//! writes; a later server would miss what is still in the log under the other name. So the file itself is locked as
//! well, and a file with several names is not served.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock, fstatfs};
use tracing::warn;

use super::super::OpenError;
use crate::health::{Concern, Finding, Gravity};

/// Magic numbers of file systems on which a lock of the whole file conflicts with `SQLite`'s own locks: NFS, SMB, CIFS.
const REMOTE: [i64; 3] = [0x6969, 0xFE53_4D42, 0xFF53_4D42];

/// The locks, held until the last connection is closed: when a process closes any descriptor of a file, the kernel
/// drops all POSIX locks of the process on it, also those of `SQLite`.
#[derive(Debug)]
pub(super) struct Held {
    _beside: File,
    _itself: File,
}

/// The file that is served.
#[derive(Clone, Debug)]
pub(super) struct DatabaseFile {
    pub(super) path: PathBuf,
    file: FileIdentity,
    /// The identity of the write-ahead log, once it exists.
    log: Option<FileIdentity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

impl DatabaseFile {
    /// Locks the file at `path`, and creates it (mode 0600) if it does not exist.
    pub(super) fn take(path: &Path) -> Result<(Self, Arc<Held>), OpenError> {
        let create = |source: io::Error| {
            let refused = matches!(source.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied);
            let path = path.to_owned();
            if refused && path.exists() {
                OpenError::ReadOnly { path, source }
            } else {
                OpenError::Create { path, source }
            }
        };
        let itself = File::options().create(true).append(true).mode(0o600).open(path).map_err(create)?;
        let path = path.canonicalize().map_err(create)?;
        let beside = beside(&path, ".lock");
        let create_lock = |source| OpenError::Create { path: beside.clone(), source };
        let lock = File::options().create(true).append(true).mode(0o600).open(&beside).map_err(create_lock)?;
        let taken = |errno| match errno {
            rustix::io::Errno::WOULDBLOCK => OpenError::InUse { path: path.clone() },
            other => OpenError::Create { path: beside.clone(), source: other.into() },
        };
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(taken)?;
        let kind = fstatfs(&itself).map(|found| found.f_type);
        if kind.is_ok_and(|kind| REMOTE.contains(&kind)) {
            warn!(path = %path.display(), "the database is on a network file system: SQLite cannot keep it safe there");
        } else {
            flock(&itself, FlockOperation::NonBlockingLockExclusive).map_err(taken)?;
        }
        let metadata = itself.metadata().map_err(create)?;
        for (path, about) in [(&path, &metadata), (&beside, &lock.metadata().map_err(create_lock)?)] {
            let mode = mode(about);
            if mode & 0o002 != 0 {
                return Err(OpenError::OpenToAll { path: path.clone(), mode });
            }
        }
        if metadata.nlink() > 1 {
            return Err(OpenError::Linked { path, names: metadata.nlink() });
        }
        let place = Self { path, file: FileIdentity::of(&metadata), log: None };
        Ok((place, Arc::new(Held { _beside: lock, _itself: itself })))
    }

    /// Remembers the identity of the log.
    pub(super) fn opened(self) -> Self {
        let log = FileIdentity::at(&beside(&self.path, "-wal"));
        Self { log, ..self }
    }

    /// Fails when the path leads to another file than the served one, or to another log.
    pub(super) fn unmoved(&self) -> rusqlite::Result<()> {
        let same = FileIdentity::at(&self.path) == Some(self.file)
            && (self.log.is_none() || FileIdentity::at(&beside(&self.path, "-wal")) == self.log);
        let moved = || {
            let text = format!("{} or its log is another file than the one that is served", self.path.display());
            rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN), Some(text))
        };
        same.then_some(()).ok_or_else(moved)
    }

    /// The findings about the file.
    pub(super) fn examine(&self) -> Vec<Finding> {
        vec![self.file()]
    }

    fn file(&self) -> Finding {
        let path = self.path.display();
        let found = fs::metadata(&self.path);
        let lost = |what: &str| {
            let text = format!(
                "{what} while it was served: changes made now are lost when this server ends. Write it to a new file with \
                 `machineid-authority backup`, stop the server, and put that in its place"
            );
            Finding::wrong(Concern::File, Gravity::Failure, text)
        };
        match found {
            Ok(metadata) if FileIdentity::of(&metadata) != self.file => {
                lost(&format!("another file was put at {path}"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                lost(&format!("the database {path} was removed"))
            }
            Ok(_) if self.log.is_some() && FileIdentity::at(&beside(&self.path, "-wal")) != self.log => {
                lost(&format!("the log of the database, {path}-wal, was removed or replaced"))
            }
            Ok(metadata) if metadata.nlink() > 1 => {
                let text = format!(
                    "the database {path} has {} names (hard links): if the file is served or copied under another one, what is still in \
                     {path}-wal would be missing. Remove the others; copy it with `machineid-authority backup`",
                    metadata.nlink()
                );
                Finding::wrong(Concern::File, Gravity::Failure, text)
            }
            Ok(metadata) if mode(&metadata) & 0o026 != 0 => {
                let text = format!(
                    "other users of this host may read or write the database {path} (mode {:04o}); run chmod 600 on it",
                    mode(&metadata)
                );
                Finding::wrong(Concern::File, Gravity::Warning, text)
            }
            // A directory that cannot be read says nothing about the file.
            Ok(_) | Err(_) => Finding::fine(Concern::File),
        }
    }
}

fn mode(about: &Metadata) -> u32 {
    about.permissions().mode() & 0o777
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = OsString::from(path);
    beside.push(suffix);
    beside.into()
}
