//! The `SQLite` database: how it is opened, read and written.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Sqlite, SqlitePool, Transaction};

use super::StoreError;
use crate::authority::changes::Changes;

/// How long a statement waits for another process's lock on the database.
const BUSY: Duration = Duration::from_secs(2);
/// How long an operation waits for a free connection. Above it, the store counts as failed.
const ACQUIRE: Duration = Duration::from_secs(2);

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::authority) enum OpenError {
    #[error("cannot create the database file {}: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot open the database {}: {source}", path.display())]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("cannot bring the database {} to this version: {source}", path.display())]
    Migrate { path: PathBuf, source: sqlx::migrate::MigrateError },
}

/// One writer and several readers on one database in WAL mode.
///
/// Readers never wait for the writer, and each of their statements sees every transaction committed before it began:
/// that is what "no later validation sees the old state" rests on. One writer, because `SQLite` has only one anyway, and
/// waiting in our own queue is fair where its busy handler is not.
#[derive(Clone, Debug)]
pub(in crate::authority) struct Store {
    pub(super) readers: SqlitePool,
    pub(super) writer: SqlitePool,
    pub(super) changes: Changes,
}

impl Store {
    /// Opens the database at `path`, creates it where there is none (mode 0600), and brings it to this version.
    pub(in crate::authority) async fn open(path: &Path) -> Result<Self, OpenError> {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| OpenError::Create { path: path.to_owned(), source })?;
        let opened = |source| OpenError::Open { path: path.to_owned(), source };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: an answered revoke survives a power cut, not only a crash of this process.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            .disable_statement_logging();
        let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE).idle_timeout(None).max_lifetime(None);
        let writer =
            pool().max_connections(1).test_before_acquire(false).connect_with(options.clone()).await.map_err(opened)?;
        sqlx::migrate!("migrations/sqlite")
            .run(&writer)
            .await
            .map_err(|source| OpenError::Migrate { path: path.to_owned(), source })?;
        let cores = std::thread::available_parallelism().map_or(2, |n| u32::try_from(n.get()).unwrap_or(2));
        let readers = pool()
            .max_connections(cores.clamp(2, 8))
            .test_before_acquire(false)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(opened)?;
        Ok(Self { readers, writer, changes: Changes::new() })
    }

    /// Whether the database answers.
    pub(in crate::authority) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT COUNT(*) FROM (SELECT 1 FROM orgs LIMIT 1)").execute(&self.readers).await?;
        Ok(())
    }

    /// Where it tells of changes.
    #[allow(dead_code, reason = "for the watch endpoint, which comes next")]
    pub(in crate::authority) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Begins a transaction that no other writer can come between.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Waits for running operations and closes the database.
    pub(in crate::authority) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
