//! The free space of the database's disk: below what is reserved, nothing that makes the database grow is written, so that
//! stops still find space.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::statvfs;

use super::super::StoreError;
use crate::health::{Concern, Finding, Gravity};

const MIB: u64 = 1024 * 1024;

/// Free space below this is a warning, however little is reserved: the database and its log grow.
const LITTLE: u64 = 64 * MIB;

/// The disk of the database.
#[derive(Clone, Debug)]
pub(super) struct Room {
    path: Arc<Path>,
    /// How many bytes of free space are reserved; 0 for none.
    reserved: u64,
}

impl Room {
    pub(super) fn new(path: &Path, reserved: u64) -> Self {
        Self { path: path.into(), reserved }
    }

    /// The free bytes; `None` when they cannot be told.
    fn left(&self) -> Option<u64> {
        let disk = statvfs(&*self.path).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Fails when the free space is less than what is reserved. A system call of a microsecond, for threads that may block.
    pub(super) fn grow(&self) -> Result<(), StoreError> {
        match self.left() {
            Some(left) if left < self.reserved => {
                Err(StoreError::NoRoom { less_than: left / MIB + 1, reserved: self.reserved.div_ceil(MIB) })
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn examine(&self) -> Finding {
        let Some(left) = self.left().filter(|left| *left < LITTLE.max(self.reserved)) else {
            return Finding::fine(Concern::Space);
        };
        let path = self.path.display();
        // In steps: each change of the text adds a line to the log.
        let some = (left / (16 * MIB) + 1) * 16;
        if left >= self.reserved {
            let text = format!(
                "less than {some} MiB are left on the disk of the database {path}: when it is full, nothing new is written, \
                 and stops are in force without the database"
            );
            return Finding::wrong(Concern::Space, Gravity::Warning, text);
        }
        let reserved = self.reserved.div_ceil(MIB);
        let text = format!(
            "less than {some} MiB are left on the disk of the database {path}, and {reserved} MiB are reserved for stops \
             (--reserve-mib): new devices, keys, organisations and plan changes, and the reports of sidecars, are refused. \
             Decisions and stops go on. Make room"
        );
        Finding::wrong(Concern::Space, Gravity::Failure, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_grows_into_what_is_reserved() {
        let directory = tempfile::TempDir::new().unwrap();
        let room = |reserved| Room::new(directory.path(), reserved);
        assert!(room(0).grow().is_ok());
        let refused = room(u64::MAX).grow();
        assert!(matches!(refused, Err(StoreError::NoRoom { .. })), "{refused:?}");
        let said = StoreError::NoRoom { less_than: 1, reserved: 64 };
        assert!(said.to_string().starts_with("less than 1 MiB are left") && !said.advice().contains("try again"));
        assert!(room(u64::MAX).examine().trouble.is_some_and(|found| found.text.contains("Decisions and stops go on")));
    }
}
