//! One file, one server: `SQLite` in WAL mode.

mod audit;
mod devices;
mod lane;
mod orgs;
mod reports;
mod rows;
mod schema;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use self::lane::{Readers, Writer};
use super::{OpenError, StoreError};
use crate::authority::changes::Changes;

/// How long a statement waits for another process's lock on the database.
const BUSY: Duration = Duration::from_secs(2);

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
    path: PathBuf,
}

impl Sqlite {
    /// Opens the database at `path`, creates it where there is none (mode 0600), and brings it to this version.
    pub(super) fn open(path: &Path, changes: &Changes) -> Result<Self, OpenError> {
        let create = |source| OpenError::Create { path: path.to_owned(), source };
        File::options().create(true).append(true).mode(0o600).open(path).map_err(create)?;
        // The same file under another name has the same lock.
        let path = path.canonicalize().map_err(create)?;
        let lock = lock(&path)?;
        let opened = |source| OpenError::Open { path: path.clone(), source };
        let mut writer = connect(&path).map_err(opened)?;
        schema::migrate(&mut writer, &path)?;
        let reader = |cache: i64| -> rusqlite::Result<Connection> {
            let connection = connect(&path)?;
            connection.pragma_update(None, "query_only", true)?;
            connection.pragma_update(None, "cache_size", -cache)?;
            Ok(connection)
        };
        let threads = |source| OpenError::Threads { source };
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let deciders = (0..cores.div_ceil(2).clamp(1, 4)).map(|_| reader(DECIDING_CACHE)).collect::<Result<_, _>>();
        let browsers = (0..2).map(|_| reader(2 * 1024)).collect::<Result<_, _>>();
        Ok(Self {
            deciders: Arc::new(Readers::start("store-decides", deciders.map_err(opened)?).map_err(threads)?),
            browsers: Arc::new(Readers::start("store-reads", browsers.map_err(opened)?).map_err(threads)?),
            writer: Arc::new(Writer::start(writer, changes.clone(), lock).map_err(threads)?),
            path,
        })
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
        back_up(&self.path, copy).await
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for running operations and closes the database.
    pub(super) async fn close(&self) {
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

/// One server for a database: two would each answer validations from what they alone know was told to watchers, and each
/// think its migrations the newest. The kernel lets go of the lock when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut beside = OsString::from(path);
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let lock = File::options().create(true).append(true).mode(0o600).open(&beside);
    let lock = lock.map_err(|source| OpenError::Create { path: beside.clone(), source })?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => OpenError::InUse { path: path.to_owned() },
        other => OpenError::Create { path: beside, source: other.into() },
    })?;
    Ok(lock)
}
