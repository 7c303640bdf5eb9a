//! One file, one server: `SQLite` in WAL mode.

mod audit;
mod devices;
mod file;
mod integrity;
mod lane;
mod orgs;
mod reports;
mod rows;
mod schema;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use self::file::Place;
use self::integrity::Check;
use self::lane::{Readers, StartError, Writer};
use super::{OpenError, StoreError};
use crate::authority::changes::{Change, Changes};
use crate::authority::health::{Concern, Finding, Gravity};

/// How long a statement waits for another process's lock on the database.
const BUSY: Duration = Duration::from_secs(2);

/// How long a write may take that is only to see whether one can be done.
const WRITTEN: Duration = Duration::from_secs(10);

/// The page cache of each connection that decides, in KiB. A decision reads a dozen pages.
const DECIDING_CACHE: i64 = 8 * 1024;

/// How many statements a connection keeps prepared: all there are.
const PREPARED: usize = 64;

/// The database. Readers never wait for the writer, and each snapshot sees every transaction committed before it began:
/// that is what "no later validation sees the old state" rests on. Nothing is kept outside the database that a decision
/// could be made from.
#[derive(Clone, Debug)]
pub(super) struct Sqlite {
    /// For decisions, which must not wait behind a list of a large fleet.
    deciders: Arc<Readers>,
    /// For everything else that reads.
    browsers: Arc<Readers>,
    writer: Arc<Writer>,
    place: Place,
    check: Check,
}

impl Sqlite {
    /// Opens the database at `path`, creates it where there is none (mode 0600), and brings it to this version.
    pub(super) fn open(path: &Path, changes: &Changes) -> Result<Self, OpenError> {
        let (place, held) = Place::take(path)?;
        let path = place.path.clone();
        let failed = |source| OpenError::Open { path: path.clone(), source };
        let reader = |cache: i64| {
            let path = path.clone();
            move || -> rusqlite::Result<Connection> {
                let connection = connect(&path)?;
                connection.pragma_update(None, "query_only", true)?;
                connection.pragma_update(None, "cache_size", -cache)?;
                Ok(connection)
            }
        };
        // Before anything is done with it.
        let check = Check::begin(reader(2 * 1024)().map_err(failed)?, &path)?;
        let mut writer = connect(&path).map_err(failed)?;
        schema::migrate(&mut writer, &path)?;
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let started = |error| match error {
            StartError::Open(source) => failed(source),
            StartError::Thread(source) => OpenError::Threads { source },
        };
        let deciders = Readers::start("store-decides", cores.div_ceil(2).clamp(1, 4), reader(DECIDING_CACHE), &held);
        let browsers = Readers::start("store-reads", 2, reader(2 * 1024), &held);
        let again = path.clone();
        let writer = Writer::start(writer, move || connect(&again), changes.clone(), &held);
        Ok(Self {
            deciders: Arc::new(deciders.map_err(started)?),
            browsers: Arc::new(browsers.map_err(started)?),
            writer: Arc::new(writer.map_err(started)?),
            place: place.opened(),
            check,
        })
    }

    pub(super) fn examine(&self) -> Vec<Finding> {
        let mut findings = self.place.examine();
        findings.push(self.check.examine(&self.place.path));
        findings
    }

    /// Writes the number of the schema again, as it is: a page, through the log and onto the disk.
    pub(super) async fn try_to_write(&self) -> Finding {
        let written = self.writer.change(|db| {
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
                    "the database {} cannot be written, so that a revoke is refused: {error}",
                    self.place.path.display()
                ),
            ),
        }
    }

    /// Whether it can be read, and is still written.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        if !self.writer.alive() {
            return Err(StoreError::Closed);
        }
        self.deciders
            .ask(|db| Ok(db.query_row("SELECT COUNT(*) FROM (SELECT 1 FROM orgs LIMIT 1)", [], |_| Ok(()))?))
            .await
    }

    /// Writes a copy of the database, as it is at one moment, to `copy`, which must not exist.
    pub(super) async fn back_up(&self, copy: &Path) -> Result<(), StoreError> {
        back_up(&self.place.path, copy).await
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Waits for running operations and closes the database.
    pub(super) async fn close(&self) {
        self.check.end();
        self.deciders.end().await;
        self.browsers.end().await;
        // Last: the last connection to close writes the WAL back into the database.
        self.writer.end().await;
    }
}

/// A copy of the database at `path`, whoever serves it meanwhile: a snapshot, read like any other.
async fn back_up(path: &Path, copy: &Path) -> Result<(), StoreError> {
    let (path, copy) = (path.to_owned(), copy.to_owned());
    let copied = tokio::task::spawn_blocking(move || -> Result<(), StoreError> {
        // A file that only we may read, before there is anything in it. VACUUM INTO takes an empty one.
        File::options().create_new(true).write(true).mode(0o600).open(&copy).map_err(StoreError::unwritable(&copy))?;
        let connection = connect(&path)?;
        let written = connection.execute("VACUUM INTO ?1", [copy.as_os_str().to_string_lossy()]);
        let synced = written
            .map_err(StoreError::from)
            .and_then(|_| File::open(&copy).and_then(|file| file.sync_all()).map_err(StoreError::unwritable(&copy)));
        if synced.is_err() {
            let _ = std::fs::remove_file(&copy);
        }
        synced
    });
    copied.await.unwrap_or(Err(StoreError::Closed))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: an answered revoke survives a power cut, not only a crash of this process.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}
