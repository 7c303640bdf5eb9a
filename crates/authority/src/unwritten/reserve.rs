//! The reserve file: space for stops that was allocated while there was some, so that a full disk has it too.
//!
//! The file is as large from the beginning as it will ever be, its blocks are written once, and a stop overwrites them in
//! place: that takes no space on a file system that does not copy on write. Records that are done are left behind when those
//! that wait are copied to a free part of it. It is the one reserve. The alternative was to keep a file beside the database
//! and to delete it when the disk is full: what filled the disk would take that space as well, and it does not help when the
//! database is read-only, locked or damaged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::record::{self, DONE, HEADER, RecordPlace, RecordedStops};
use super::stop::UnwrittenStop;

/// The size of the file: some two thousand single revokes, or fifteen batches of the largest size.
const SIZE: u64 = 1024 * 1024;

/// The size from which on a file is packed when half of it is records that are done.
const PACKED: u64 = 64 * 1024;

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

/// A stop in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u64);

/// The open file.
#[derive(Debug)]
pub(super) struct Reserve {
    file: File,
    generation: u64,
    /// The newest generation that anything was written in, also when it did not begin: each is used once.
    newest: u64,
    /// Where the first record begins, and the last one ends.
    start: u64,
    end: u64,
    /// The records whose stops wait. When there is none left, the file begins anew.
    waiting: BTreeMap<u64, RecordPlace>,
    /// The number of the newest slot.
    next: u64,
    /// A header of another generation may be on the disk, since its write failed. It names records that wait, or none.
    unsure: bool,
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
                    Ok(()) => Ok((Self::empty(new), Vec::new())),
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
        let Some(RecordedStops { generation, start, waiting, records: _, end }) = content else {
            allocated(&file, path).map_err(make)?;
            return Ok((Self::empty(file), Vec::new()));
        };
        if !whole {
            // A copy that was cut short: what is in it counts, and it gets its size again.
            file.set_len(SIZE).map_err(make)?;
        }
        let mut reserve = Self { generation, newest: generation, start, end, ..Self::empty(file) };
        let left = waiting.into_iter().map(|(place, stop)| (stop, reserve.took(place))).collect();
        Ok((reserve, left))
    }

    /// A file that was allocated and holds nothing.
    fn empty(file: File) -> Self {
        let start = HEADER as u64;
        Self { file, generation: 1, newest: 1, start, end: start, waiting: BTreeMap::new(), next: 0, unsure: false }
    }

    fn took(&mut self, place: RecordPlace) -> Slot {
        self.next += 1;
        self.waiting.insert(self.next, place);
        Slot(self.next)
    }

    /// Adds a stop. When this succeeds, the stop is on the disk.
    pub(super) fn append(&mut self, stop: &UnwrittenStop) -> io::Result<Slot> {
        if self.unsure {
            self.file.write_all_at(&record::header(self.generation, self.start), 0)?;
            self.file.sync_data()?;
            self.unsure = false;
        }
        if self.waiting.is_empty() && self.end > HEADER as u64 {
            let generation = self.another();
            self.begin(generation, HEADER as u64, HEADER as u64)?;
        }
        self.pack()?;
        let record = record::record(self.generation, stop).map_err(io::Error::other)?;
        let length = record.len() as u64;
        if self.end + length > SIZE {
            return Err(io::Error::new(ErrorKind::StorageFull, "the reserve file is full"));
        }
        self.file.write_all_at(&record, self.end)?;
        self.file.sync_data()?;
        let slot = self.took(RecordPlace { offset: self.end, length });
        self.end += length;
        Ok(slot)
    }

    /// Copies the records that wait to a free part of the file when most of it is records that are done: a stop that is
    /// repeated must not fill the file.
    fn pack(&mut self) -> io::Result<()> {
        let used = self.end - self.start;
        let live: u64 = self.waiting.values().map(|place| place.length).sum();
        if used < PACKED || live > used / 2 {
            return Ok(());
        }
        // Behind the records, or before them. Nothing that waits is overwritten.
        let start = if live * 2 <= SIZE - self.end {
            self.end
        } else if live <= self.start - HEADER as u64 {
            HEADER as u64
        } else {
            return Ok(());
        };
        let (generation, mut end, mut places) = (self.another(), start, BTreeMap::new());
        for (slot, place) in &self.waiting {
            let mut bytes = vec![0; usize::try_from(place.length).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, place.offset)?;
            let copy = record::again(generation, &bytes).ok_or(ErrorKind::InvalidData)?;
            self.file.write_all_at(&copy, end)?;
            places.insert(*slot, RecordPlace { offset: end, length: place.length });
            end += place.length;
        }
        self.file.sync_data()?;
        self.begin(generation, start, end)?;
        self.waiting = places;
        Ok(())
    }

    /// Crosses out a stop that is in the database.
    pub(super) fn done(&mut self, slot: Slot) -> io::Result<()> {
        let Some(place) = self.waiting.get(&slot.0) else { return Ok(()) };
        self.file.write_all_at(&[DONE], place.offset)?;
        self.file.sync_data()?;
        self.waiting.remove(&slot.0);
        Ok(())
    }

    fn another(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// Begins a generation, with the records from `start` to `end`: all others are void at once, since the header is
    /// within one sector.
    fn begin(&mut self, generation: u64, start: u64, end: u64) -> io::Result<()> {
        self.unsure = true;
        self.file.write_all_at(&record::header(generation, start), 0)?;
        self.file.sync_data()?;
        self.unsure = false;
        (self.generation, self.start, self.end) = (generation, start, end);
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
    file.write_all_at(&record::header(1, HEADER as u64), 0)?;
    file.sync_all()?;
    if let Some(directory) = path.parent() {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}
