//! How a store fails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::reports::Unreadable;

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::authority) enum OpenError {
    #[error("cannot create {}: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot open the database {}: {source}", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("cannot start the threads of the database: {source}")]
    Threads { source: io::Error },
    #[error("cannot bring the database {} to this version: {source}", path.display())]
    Migrate { path: PathBuf, source: rusqlite::Error },
    #[error(
        "another authority already serves the database {}\n\
         Stop that one first. Several servers on one database need PostgreSQL.",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "the database was written by a newer version: it has migration {found}, and this version knows {known}\n\
         Nothing was changed. Run the newer version, or restore a backup from before it."
    )]
    Newer { found: String, known: usize },
    #[error("{} is the database of another program\nNothing was changed. Name another --database.", path.display())]
    Foreign { path: PathBuf },
    #[error("cannot connect to PostgreSQL at {place}: {source}")]
    Connect { place: String, source: sqlx::Error },
    #[error("cannot bring the database at {place} to this version: {source}")]
    MigratePostgres { place: String, source: sqlx::migrate::MigrateError },
    #[error(
        "the database at {place} is a read-only standby\n\
         Name the primary: what a standby says may be old, and a decision must not be."
    )]
    Standby { place: String },
}

/// The store could not do it. Nothing was changed, unless the answer to a commit was lost; asking again is safe, for
/// every operation is idempotent.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::authority) enum StoreError {
    /// The database failed, or was busy for too long.
    #[error("the database failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The same of `PostgreSQL`.
    #[error("the database failed: {0}")]
    Postgres(Arc<sqlx::Error>),
    /// Another change in the same transaction failed in a way that undid all of it, as a full disk does.
    #[error("the database undid the transaction; is the disk full?")]
    Undone,
    /// It did not answer in time.
    #[error("the database did not answer in time")]
    Late,
    /// The connection to the database was lost, and is being made again.
    #[error("the connection to the database is lost")]
    Down,
    /// The store was closed, or its thread failed.
    #[error("the store is closed")]
    Closed,
    /// A row makes no sense to this version.
    #[error("the database holds an unusable {0}; was it written by a newer version?")]
    Corrupt(&'static str),
    /// A copy could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: Arc<io::Error> },
    /// Only `SQLite` is backed up from here.
    #[error("a PostgreSQL database is backed up with pg_dump or your provider's means, not from here")]
    NotHere,
}

impl StoreError {
    pub(super) fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::Unwritable { path, source: Arc::new(source) }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<Unreadable> for StoreError {
    fn from(_: Unreadable) -> Self {
        Self::Corrupt("report")
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(Arc::new(error))
    }
}
