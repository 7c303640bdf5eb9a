//! The errors of a store.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::approvals::{Approval, ApprovalRefusal};
use super::super::reports::Unreadable;
use super::super::unwritten::{NotWritten, ReserveError};
use super::keys::KeyRefusal;

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot create {}: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot open the database {}: {source}", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("cannot start the threads of the database: {source}")]
    Threads { source: io::Error },
    #[error(
        "cannot write the database {}: {source}\n\
         An authority that can write nothing cannot revoke. Give its user the file and its directory, on a disk that is \
         mounted read-write.",
        path.display()
    )]
    ReadOnly { path: PathBuf, source: io::Error },
    #[error(
        "the database {} has {names} names (hard links)\n\
         Each name has a write-ahead log of its own, so a server that opens it by another name misses what is in the log of \
         this one, revokes too. Remove the other names; copy a database with `machineid-authority backup`.",
        path.display()
    )]
    Linked { path: PathBuf, names: u64 },
    #[error(
        "the database {} is damaged: {damage}\n\
         Nothing was changed. Put a backup in its place (`machineid-authority backup` makes one), or have `sqlite3 FILE \
         .recover` save what can be saved, and compare the revokes with the audit.",
        path.display()
    )]
    Damaged { path: PathBuf, damage: Damage },
    #[error("cannot bring the database {} to this version: {source}", path.display())]
    Migrate { path: PathBuf, source: rusqlite::Error },
    #[error(
        "another authority already serves the database {}\n\
         Stop that one first. Several servers on one database need PostgreSQL.",
        path.display()
    )]
    InUse { path: PathBuf },
    /// Every user may write to the file.
    #[error(
        "every user of this host may write to {} (mode {mode:04o}), and so lift every revoke\nRun chmod 600 on it, and look at what \
         it contains before you serve it.", path.display()
    )]
    OpenToAll { path: PathBuf, mode: u32 },
    #[error(
        "the database was written by a newer version: it has migration {found}, and this version knows {known}\n\
         Nothing was changed. Run the newer version, or restore a backup from before it."
    )]
    Newer { found: String, known: usize },
    #[error("{} is the database of another program\nNothing was changed. Name another --database.", path.display())]
    Foreign { path: PathBuf },
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    #[error("cannot connect to PostgreSQL at {place}: {source}{remedy}")]
    Connect { place: String, source: StoreError, remedy: &'static str },
    #[error("cannot bring the database at {place} to this version: {source}")]
    MigratePostgres { place: String, source: sqlx::migrate::MigrateError },
    #[error(
        "the database at {place} is a read-only standby\n\
         Name the primary: what a standby says may be old, and a decision must not be."
    )]
    Standby { place: String },
    #[error("--require-synchronous, but {problem}\nNothing is served.")]
    Asynchronous { problem: String },
    #[error("--require-synchronous applies only to PostgreSQL: a SQLite database has no standbys")]
    NoStandbys,
    #[error(
        "the pooler at {place} gives a session another server connection for each transaction\n\
         Decisions and news of other servers need a server that stays: set pool_mode = session for this database in \
         PgBouncer, or name the server itself. --database-connections says how many connections are kept."
    )]
    Pooled { place: String },
    #[error(
        "the database at {place} grants {granted} connections, and {needed} are needed; it said: {said}\n\
         Raise max_connections of the server, the limit of the role, or pool_size of the pooler. \
         --database-connections says how many are used if there are more."
    )]
    TooFew { place: String, granted: usize, needed: usize, said: String },
}

/// The damage that a check of the database found.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Damage {
    /// What `SQLite` reports, one line for each damage.
    #[error("{}", .0.join("; ").replace('\n', " "))]
    Reported(Vec<String>),
    /// The file is too damaged to be checked.
    #[error("{0}")]
    Unreadable(Arc<rusqlite::Error>),
}

impl OpenError {
    /// A failed connection, with advice where the server's message gives none.
    pub(super) fn connect(place: &str, source: StoreError) -> Self {
        let text = source.to_string();
        let remedy = if text.contains("unsupported startup parameter") {
            "\nPgBouncer refuses parameters that it does not know: take options out of the address and PGOPTIONS out of \
             the environment, or name them in its ignore_startup_parameters."
        } else {
            ""
        };
        Self::Connect { place: place.to_owned(), source, remedy }
    }
}

/// The store could not complete an operation. Nothing was changed, unless the answer to a commit was lost. Repeating
/// the operation is safe, since every operation is idempotent.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database failed, or was busy for too long.
    #[error("the database failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The `PostgreSQL` database failed.
    #[error("the database failed: {0}")]
    Postgres(Arc<sqlx::Error>),
    /// Another change in the same transaction failed in a way that undid all of it, as a full disk does.
    #[error("the database undid the transaction; is the disk full?")]
    Undone,
    /// The database did not answer in time.
    #[error("the database did not answer in time")]
    Late,
    /// No server answers at the address, or none that serves this database.
    #[error("the database does not answer")]
    Down,
    /// The address leads to a standby, whose data may be old.
    #[error("the database's address leads to a standby, which cannot decide; name the primary")]
    Standby,
    /// The address leads to a read-only primary, as operators prepare one before they promote another server.
    #[error("the database is read-only, so that it cannot decide: another server may be the primary")]
    ReadOnly,
    /// The address leads to an old primary: another server was promoted.
    #[error("the database's address leads to an old primary, which cannot decide: another server was promoted")]
    Superseded,
    /// With `--fence`: no standby confirms commits, so this may be an isolated old primary, or its standby is down.
    #[error("no standby confirms the database's commits, so it may be an old primary; with --fence nothing is decided")]
    Unconfirmed,
    /// The disk has less free space than is reserved for stops, so that nothing that takes more is written.
    #[error(
        "less than {less_than} MiB are left on the disk of the database, and {reserved} MiB are reserved for stops: nothing \
         that makes the database grow is accepted until there is more space"
    )]
    NoRoom { less_than: u64, reserved: u64 },
    /// A stop is in force and not written, and nothing else of the request could be done.
    #[error("only the stop was done. {}", .0.notice())]
    OnlyStopped(NotWritten),
    /// Stops of the organisation wait to be written, and this could give something back.
    #[error("stops of this organisation are not in the database yet, and until they are nothing is given back: {0}")]
    StopsWait(String),
    /// The store was closed, or its thread failed.
    #[error("the store is closed")]
    Closed,
    /// A row cannot be decoded by this version.
    #[error("the database holds an unusable {0}; was it written by a newer version?")]
    Corrupt(&'static str),
    /// A copy could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: Arc<io::Error> },
    /// Nothing was done: the request waits for a second key.
    #[error("the request waits for a second key")]
    Waits(Box<Approval>),
    /// Nothing was done: restores need two keys, and this is no request that could be made or confirmed.
    #[error(transparent)]
    NotApproved(ApprovalRefusal),
    /// A confirmed request for a key cannot be carried out any more.
    #[error(transparent)]
    KeyRefused(KeyRefusal),
    /// Only `SQLite` databases are backed up by the authority.
    #[error("a PostgreSQL database is backed up with pg_dump or your provider's means, not from here")]
    NotHere,
}

impl StoreError {
    pub(super) fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::Unwritable { path, source: Arc::new(source) }
    }

    /// Whether the store did answer, and the answer is no.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Waits(_) | Self::NotApproved(_) | Self::KeyRefused(_) => true,
            Self::Sqlite(_)
            | Self::Postgres(_)
            | Self::Undone
            | Self::Late
            | Self::Down
            | Self::Standby
            | Self::ReadOnly
            | Self::Superseded
            | Self::Unconfirmed
            | Self::NoRoom { .. }
            | Self::OnlyStopped(_)
            | Self::StopsWait(_)
            | Self::Closed
            | Self::Corrupt(_)
            | Self::Unwritable { .. }
            | Self::NotHere => false,
        }
    }

    /// What an operator does about it, of a change that was not made.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            // The stop itself was made.
            Self::OnlyStopped(_) => "",
            Self::NoRoom { .. } => ". Nothing was changed. Make room on that disk, or lower --reserve-mib",
            Self::StopsWait(_) => ". Nothing was changed. Mend the database first",
            Self::Waits(_) | Self::NotApproved(_) | Self::KeyRefused(_) | Self::NotHere | Self::Unwritable { .. } => {
                ". Nothing was changed"
            }
            Self::Sqlite(_)
            | Self::Postgres(_)
            | Self::Undone
            | Self::Late
            | Self::Down
            | Self::Standby
            | Self::ReadOnly
            | Self::Superseded
            | Self::Unconfirmed
            | Self::Closed
            | Self::Corrupt(_) => "; nothing was changed as far as is known; try again",
        }
    }

    /// What is wrong, in words for clients: nothing of a database's own message.
    pub(crate) fn in_words(&self) -> Cow<'static, str> {
        use rusqlite::ErrorCode;
        Cow::Borrowed(match self {
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => "the disk is full",
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => "the database is read-only",
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another process locks the database",
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "the database is damaged",
                Some(ErrorCode::SystemIoFailure) => "the disk fails, or is full",
                Some(_) | None => "the database fails",
            },
            Self::Postgres(error) => {
                match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
                    Some("53100") => "the disk of the database is full",
                    Some("42501") => "the server's role may not write to the database",
                    Some("XX001" | "XX002") => "the database is damaged",
                    Some("58030") => "the disk of the database fails",
                    Some(_) | None => "the database fails",
                }
            }
            Self::Undone => "the disk is full, or fails",
            Self::Unwritable { .. } => "the disk fails",
            Self::Corrupt(_) => "the database is damaged, or was written by a newer version",
            Self::Late
            | Self::Down
            | Self::Standby
            | Self::ReadOnly
            | Self::Superseded
            | Self::Unconfirmed
            | Self::NoRoom { .. }
            | Self::OnlyStopped(_)
            | Self::StopsWait(_)
            | Self::Waits(_)
            | Self::NotApproved(_)
            | Self::KeyRefused(_)
            | Self::Closed
            | Self::NotHere => return Cow::Owned(self.to_string()),
        })
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
        // `read_only_sql_transaction`: a server that accepts no changes received a change.
        if error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("25006") {
            return Self::ReadOnly;
        }
        Self::Postgres(Arc::new(error))
    }
}
