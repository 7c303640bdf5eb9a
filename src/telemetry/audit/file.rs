//! The audit file: opened exclusively, continued where it ends, appended to by whole lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use machineid_audit::chain::{LONGEST_LINE, NoAuditFile, Tail};
use machineid_audit::key::Chain;
use rustix::fs::{FlockOperation, OFlags, flock};
use tracing::warn;

/// How much of the file's end is read: several torn lines and the record before them.
const LOOKED_AT: u64 = 4 * LONGEST_LINE as u64;
/// The mode of a new file. An existing file keeps its own, since a group may have been given access.
const MODE: u32 = 0o600;

/// An open audit file.
#[derive(Debug)]
pub(super) struct AuditFile {
    file: File,
    chain: Chain,
    /// Device and inode.
    identity: (u64, u64),
    /// Its length, as long as no other process writes to it.
    length: u64,
    /// The end of the file, as far as it concerns the next line.
    pub(super) tail: Tail,
}

impl AuditFile {
    /// Opens the file, creates it when it is missing, and reads its end.
    ///
    /// Fails when it cannot be opened, is not a regular file, is locked by another daemon, or contains something else.
    pub(super) fn open(path: &Path, chain: &Chain) -> io::Result<Self> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(MODE)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
            .open(path)
            .map_err(|error| explain(path, error))?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if about.permissions().mode() & 0o022 != 0 {
            warn!(file = %path.display(), "other users may write to the audit file; run chmod go-w on it");
        }
        // Two writers would each continue the chain separately. The lock is released with the file.
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another daemon writes to it"))?;
        let length = about.len();
        let from = length.saturating_sub(LOOKED_AT);
        file.seek(SeekFrom::Start(from))?;
        let mut end = Vec::new();
        (&mut file).take(LOOKED_AT).read_to_end(&mut end)?;
        let tail = Tail::of(&end, chain).map_err(|NoAuditFile| {
            io::Error::other("it ends with data that is not an audit record; name another file, or move this one away")
        })?;
        Ok(Self { file, chain: chain.clone(), identity: (about.dev(), about.ino()), length, tail })
    }

    /// Whether the path still leads to this file with its expected length: it may have been moved away or truncated.
    pub(super) fn is_in_place(&self, path: &Path) -> bool {
        fs::symlink_metadata(path)
            .is_ok_and(|about| (about.dev(), about.ino()) == self.identity && about.len() == self.length)
    }

    /// Appends a line. If that fails, a partial line is removed as far as possible.
    pub(super) fn append(&mut self, line: &str) -> io::Result<()> {
        let mut text = String::with_capacity(line.len() + 2);
        if self.tail.open {
            text.push('\n');
        }
        text.push_str(line);
        text.push('\n');
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // If this fails, the partial record stays, and the next daemon that opens the file declares it torn.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += text.len() as u64;
        self.tail = Tail { last: Some(self.chain.hash(line.as_bytes())), ..Tail::default() };
        Ok(())
    }

    /// Waits until what was appended is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn explain(path: &Path, error: io::Error) -> io::Error {
    match fs::symlink_metadata(path) {
        Ok(about) if about.file_type().is_symlink() => io::Error::other("it is a symbolic link; name the file itself"),
        Ok(about) if about.file_type().is_fifo() || about.file_type().is_socket() => {
            io::Error::other("it is not a regular file")
        }
        Ok(_) | Err(_) => error,
    }
}

/// Why no audit file can be opened at a path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditPathError {
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    #[error("the directory {directory} does not exist; make it: mkdir -p {directory}", directory = .0.display())]
    NoDirectory(PathBuf),
}

/// Checks whether an audit file could be opened at this path, without creating it. For `--check-config`.
pub(crate) fn check(path: &Path) -> Result<(), AuditPathError> {
    if path.symlink_metadata().is_ok_and(|about| !about.is_file()) {
        return Err(AuditPathError::NotRegular(path.to_owned()));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        return Err(AuditPathError::NoDirectory(directory.to_owned()));
    }
    Ok(())
}
