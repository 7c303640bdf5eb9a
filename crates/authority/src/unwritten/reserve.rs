//! The reserve file: space for stops that was allocated while there was some, so that a full disk has it too.
//!
//! The file is as large from the beginning as it will ever be, its blocks are written once, and a stop overwrites them in
//! place: that takes no space on a file system that does not copy on write. It is the one reserve. The alternative was to
//! keep a file beside the database and to delete it when the disk is full: what filled the disk would take that space as
//! well, and it does not help when the database is read-only, locked or damaged.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::record::{self, Content, DONE, HEADER};
use super::stop::UnwrittenStop;

/// The size of the file: some two thousand single revokes, or fifteen batches of the largest size.
const SIZE: u64 = 1024 * 1024;

/// Why a reserve file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReserveError {
    #[error("cannot make the reserve file {}: {source}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error(
        "cannot read the reserve file {}: {source}\n\
         It may hold revokes that are not in the database. If you know that it does not, move it away.",
        path.display()
    )]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} is no reserve file, is damaged, or was written by a newer version\n\
         It may hold revokes that are not in the database. If you know that it does not, move it away.",
        path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "another authority uses the reserve file {}\n\
         Each server needs its own: name another one with --reserve-file.",
        path.display()
    )]
    InUse { path: PathBuf },
}

/// The place of a stop in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    generation: u64,
    offset: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Reserve {
    file: File,
    generation: u64,
    end: u64,
    /// The records whose stops wait. When there is none left, the file begins anew.
    waiting: usize,
}

impl Reserve {
    /// Opens the file, or makes it, and returns the stops that wait in it.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<(UnwrittenStop, Slot)>), ReserveError> {
        let make = |source| ReserveError::Make { path: path.to_owned(), source };
        let read = |source| ReserveError::Read { path: path.to_owned(), source };
        let mut file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let new =
                    File::options().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(make)?;
                taken(&new, path)?;
                return match allocated(&new, path) {
                    Ok(()) => Ok((Self { file: new, generation: 1, end: HEADER as u64, waiting: 0 }, Vec::new())),
                    Err(source) => {
                        // Half a file would be taken for a damaged one.
                        let _ = fs::remove_file(path);
                        Err(make(source))
                    }
                };
            }
            Err(error) => return Err(read(error)),
        };
        taken(&file, path)?;
        let mut bytes = Vec::new();
        (&mut file).take(SIZE).read_to_end(&mut bytes).map_err(read)?;
        let whole = bytes.len() as u64 == SIZE;
        let content = match record::read(&bytes) {
            // The server ended while it made the file.
            Ok(None) => None,
            Err(_) if bytes.iter().all(|byte| *byte == 0) => None,
            Ok(Some(content)) => Some(content),
            Err(_) => return Err(ReserveError::Foreign { path: path.to_owned() }),
        };
        let Some(Content { generation, waiting, records: _, end }) = content else {
            allocated(&file, path).map_err(make)?;
            return Ok((Self { file, generation: 1, end: HEADER as u64, waiting: 0 }, Vec::new()));
        };
        if !whole {
            // A copy that was cut short: what is in it counts, and it gets its size again.
            file.set_len(SIZE).map_err(make)?;
        }
        let left: Vec<_> = waiting.into_iter().map(|(offset, stop)| (stop, Slot { generation, offset })).collect();
        Ok((Self { file, generation, end, waiting: left.len() }, left))
    }

    /// Adds a stop. When this succeeds, the stop is on the disk.
    pub(super) fn append(&mut self, stop: &UnwrittenStop) -> io::Result<Slot> {
        if self.waiting == 0 && self.end > HEADER as u64 {
            self.begin_anew()?;
        }
        let record = record::record(self.generation, stop).map_err(io::Error::other)?;
        let end = self.end + record.len() as u64;
        if end > SIZE {
            return Err(io::Error::new(ErrorKind::StorageFull, "the reserve file is full"));
        }
        self.file.write_all_at(&record, self.end)?;
        self.file.sync_data()?;
        let slot = Slot { generation: self.generation, offset: self.end };
        (self.end, self.waiting) = (end, self.waiting + 1);
        Ok(slot)
    }

    /// Crosses out a stop that is in the database.
    pub(super) fn done(&mut self, slot: Slot) -> io::Result<()> {
        if slot.generation != self.generation {
            return Ok(());
        }
        self.file.write_all_at(&[DONE], slot.offset)?;
        self.file.sync_data()?;
        self.waiting = self.waiting.saturating_sub(1);
        Ok(())
    }

    /// Begins another generation, which makes all records void at once: the header is within one sector.
    fn begin_anew(&mut self) -> io::Result<()> {
        let next = self.generation + 1;
        self.file.write_all_at(&record::header(next), 0)?;
        self.file.sync_data()?;
        (self.generation, self.end) = (next, HEADER as u64);
        Ok(())
    }
}

fn taken(file: &File, path: &Path) -> Result<(), ReserveError> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => ReserveError::InUse { path: path.to_owned() },
        other => ReserveError::Read { path: path.to_owned(), source: other.into() },
    })
}

/// Allocates the file and writes its header last.
fn allocated(file: &File, path: &Path) -> io::Result<()> {
    // Not every file system can do this; writing the blocks does it everywhere.
    let _ = fallocate(file, FallocateFlags::empty(), 0, SIZE);
    let zeros = vec![0; 64 * 1024];
    let mut offset = 0;
    while offset < SIZE {
        file.write_all_at(&zeros, offset)?;
        offset += zeros.len() as u64;
    }
    file.sync_all()?;
    file.write_all_at(&record::header(1), 0)?;
    file.sync_all()?;
    if let Some(directory) = path.parent() {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}
