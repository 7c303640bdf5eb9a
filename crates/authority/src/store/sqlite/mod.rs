//! The store on one `SQLite` file in WAL mode, for one server.

mod copy;
mod file;
mod integrity;
mod lane;
mod lookup;
mod room;
mod schema;
mod transaction;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params_from_iter};

use self::copy::Copier;
use self::file::DatabaseFile;
use self::integrity::Check;
pub(super) use self::lane::Turn;
use self::lane::{LaneError, Readers, Writer};
use self::room::Room;
pub(super) use self::transaction::{Reading, SqliteWriting};
use super::values::Value;
use super::{Kept, OpenError, StoreError, Surplus};
use crate::changes::{Change, Changes};
use crate::health::{Concern, Finding, Gravity};

/// How long a statement waits for another process's lock on the database.
const BUSY: Duration = Duration::from_secs(2);

/// How long a test write may take.
const WRITTEN: Duration = Duration::from_secs(10);

/// The page cache of each connection that decides, in KiB. A decision reads a dozen pages.
const DECIDING_CACHE: i64 = 8 * 1024;

/// How many statements a connection keeps prepared: all there are.
const PREPARED: usize = 96;

/// How many rows are deleted in one transaction: a revoke waits for at most one of these.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// The database. Readers never wait for the writer, and each snapshot sees every transaction committed before it began:
/// the guarantee that no later validation sees the old state depends on that. Nothing is cached outside the database
/// that a decision could be made from.
#[derive(Clone, Debug)]
pub(super) struct Sqlite {
    /// The readers for decisions, which must not wait behind a list of a large fleet.
    deciders: Arc<Readers>,
    /// The reader that looks up the keys of stops, which wait for no other question.
    stoppers: Arc<Readers>,
    /// The readers for everything else.
    browsers: Arc<Readers>,
    writer: Arc<Writer>,
    copier: Copier,
    place: DatabaseFile,
    room: Room,
    check: Check,
}

impl Sqlite {
    /// Opens the database at `path`, creates it where there is none (mode 0600), and brings it to this version.
    /// While less than `reserved` bytes of its disk are free, nothing is written that makes it grow, but for stops.
    pub(super) fn open(path: &Path, changes: &Changes, reserved: u64) -> Result<Self, OpenError> {
        let (place, held) = DatabaseFile::take(path)?;
        let path = place.path.clone();
        let failed = |source| OpenError::Open { path: path.clone(), source };
        // The check runs before any other use of the database.
        let check = Check::begin(reader(&place, 2 * 1024).map_err(failed)?, &path)?;
        let mut writer = connect(&place).map_err(failed)?;
        schema::migrate(&mut writer, &path)?;
        // Now the log exists, and every later connection must find the same one.
        let place = place.opened();
        let copier = Copier::new(connect(&place).map_err(failed)?, &held).map_err(failed)?;
        let reader = |cache: i64| {
            let place = place.clone();
            move || reader(&place, cache)
        };
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let started = |error| match error {
            LaneError::Open(source) => failed(source),
            LaneError::Thread(source) => OpenError::Threads { source },
        };
        let deciders = Readers::start("store-decides", cores.div_ceil(2).clamp(1, 4), reader(DECIDING_CACHE), &held);
        let stoppers = Readers::start("store-stops", 1, reader(2 * 1024), &held);
        let browsers = Readers::start("store-reads", 2, reader(2 * 1024), &held);
        let again = place.clone();
        let writer = Writer::start(writer, move || connect(&again), changes.clone(), &held);
        Ok(Self {
            deciders: Arc::new(deciders.map_err(started)?),
            stoppers: Arc::new(stoppers.map_err(started)?),
            browsers: Arc::new(browsers.map_err(started)?),
            writer: Arc::new(writer.map_err(started)?),
            copier,
            room: Room::new(&place.path, reserved),
            place,
            check,
        })
    }

    /// Runs an operation in a transaction, alone or with other operations. A failure undoes only this operation. Its
    /// changes are told after the commit and before the answer.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        turn: Turn,
        operation: impl FnOnce(&mut SqliteWriting<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = self.room.clone();
        let change = self.writer.change(turn, move |db| {
            let mut writing = SqliteWriting::new(db, &room);
            let done = operation(&mut writing)?;
            Ok((done, writing.told))
        });
        change.await
    }

    /// Runs a short operation that reads, where it waits for nothing that is long.
    pub(super) async fn read_short<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Reading<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.deciders
            .ask(move |db| {
                let _snapshot = db.unchecked_transaction();
                operation(&mut Reading(db))
            })
            .await
    }

    /// Runs an operation that reads, in one snapshot that begins after this call.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Reading<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = self.browsers.ask(move |db| {
            // Fails inside the shared snapshot of several questions, which then serves as the snapshot.
            let _snapshot = db.unchecked_transaction();
            operation(&mut Reading(db))
        });
        read.await
    }

    /// Forgets some of these rows of a table. Returns whether there may be more.
    pub(super) async fn forget(&self, table: Kept, surplus: Surplus) -> Result<bool, StoreError> {
        let (table, (condition, values)) = (table.name(), surplus.condition(table));
        let (which, sought) = (condition.clone(), values.clone());
        // Looked for by a reader, and not while the writer waits for it: a table of a large fleet takes seconds to read.
        let old = self.browsers.ask(move |db| {
            let old = format!("SELECT rowid FROM {table} WHERE {which} LIMIT {FORGOTTEN_AT_ONCE}");
            let mut old = db.prepare_cached(&old)?;
            let old = old.query_map(params_from_iter(sought), |row| row.get(0))?;
            Ok(old.collect::<Result<Vec<i64>, _>>()?)
        });
        let old = old.await?;
        let more = old.len() == FORGOTTEN_AT_ONCE;
        let forget = self.writer.change(Turn::Usual, move |db| {
            // A parameter has the number of its first mention.
            let number = values.len() + 1;
            let delete = format!("DELETE FROM {table} WHERE {condition} AND rowid = ${number}");
            let mut statement = db.prepare_cached(&delete)?;
            for row in old {
                statement.execute(params_from_iter(values.iter().cloned().chain([Value::from(row)])))?;
            }
            Ok(((), None::<Change>))
        });
        forget.await?;
        Ok(more)
    }

    pub(super) fn examine(&self) -> Vec<Finding> {
        let mut findings = self.place.examine();
        findings.push(self.room.examine());
        findings.push(self.check.examine(&self.place.path));
        findings
    }

    /// Writes the number of the schema again, as it is: a page, through the log and onto the disk.
    pub(super) async fn try_to_write(&self) -> Finding {
        let written = self.writer.change(Turn::Usual, |db| {
            let seen: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
            db.pragma_update(None, "user_version", seen)?;
            Ok(((), None::<Change>))
        });
        let written = tokio::time::timeout(WRITTEN, written).await.unwrap_or(Err(StoreError::Late));
        match written {
            Ok(()) => Finding::fine(Concern::Writes),
            Err(error) => Finding::wrong(
                Concern::Writes,
                Gravity::Failure,
                format!(
                    "the database {} cannot be written, so that changes are refused, and stops are in force without it: {error}",
                    self.place.path.display()
                ),
            ),
        }
    }

    /// Whether the database can be read, and the writer runs.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        if !self.writer.alive() {
            return Err(StoreError::Closed);
        }
        self.deciders
            .ask(|db| Ok(db.query_row("SELECT COUNT(*) FROM (SELECT 1 FROM orgs LIMIT 1)", [], |_| Ok(()))?))
            .await
    }

    /// Writes a copy of the database, from one snapshot, to the file `copy`, which must not exist.
    pub(super) async fn back_up(&self, copy: &Path) -> Result<(), StoreError> {
        self.copier.copy(copy).await
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Waits for running operations and closes the database.
    pub(super) async fn close(&self) {
        self.check.end();
        self.copier.end().await;
        self.deciders.end().await;
        self.stoppers.end().await;
        self.browsers.end().await;
        // Last, since the last connection to close writes the WAL back into the database.
        self.writer.end().await;
    }
}

/// A connection to the served file. If the path leads to another file now, that file is neither opened (`SQLite` would
/// create a log beside it) nor used.
fn connect(place: &DatabaseFile) -> rusqlite::Result<Connection> {
    place.unmoved()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&place.path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: an answered revoke survives a power cut, not only a crash of this process.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    place.unmoved()?;
    Ok(connection)
}

/// A connection that only reads, with a page cache of `cache` KiB.
fn reader(place: &DatabaseFile, cache: i64) -> rusqlite::Result<Connection> {
    let connection = connect(place)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -cache)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_opened_anew_leads_to_no_other_file_and_no_other_log() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("test.db");
        let (place, _held) = DatabaseFile::take(&path).unwrap();
        let first = connect(&place).unwrap();
        first.execute_batch("CREATE TABLE t (x)").unwrap();
        let place = place.opened();
        assert!(connect(&place).is_ok());
        let wal = directory.path().join("test.db-wal");
        std::fs::rename(&wal, directory.path().join("away-wal")).unwrap();
        assert!(connect(&place).is_err());
        assert!(!wal.exists(), "no other log is made");
        std::fs::rename(directory.path().join("away-wal"), &wal).unwrap();
        assert!(connect(&place).is_ok());
        std::fs::rename(&path, directory.path().join("away.db")).unwrap();
        assert!(connect(&place).is_err());
        std::fs::write(&path, "").unwrap();
        assert!(connect(&place).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "the other file is left alone");
    }
}
