//! The store: organisations and devices, in `SQLite` or `PostgreSQL`.
//!
//! Every operation is one transaction and decides by the pure rules of [`super::plan`]. A change is durable and visible
//! to every later read before the operation returns. `None` means that the organisation was deleted. Every failure is a
//! [`StoreError`], and the caller must then deny.
//!
//! ```text
//!   Store ─┬▶ sqlite     one file, one server: a thread that writes, threads that read
//!          └▶ postgres   one database, any number of servers, which tell each other of changes
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `calls` | the methods of [`Store`]: which operation runs in what kind of transaction |
//! | `operations` | what each operation does, written once for both databases |
//! | `transaction` | what an operation needs of a database, and the differences between the SQL dialects |
//! | `values`, `columns`, `rows` | the parameters of a statement, and the decoding of its rows |
//! | `found` | the results of look-ups and lists, and the filter of a list |
//! | `keys` | keys with roles |
//! | `approvals` | what a change comes to that may have to wait for a second key |
//! | `change` | the changes that an operator can make to an organisation |
//! | `checkouts` | plan changes that wait for confirmation |
//! | `last_seen` | the time of a device's last validation |
//! | `stops`, `overlaid` | stops that are in force without the database, and the store's answers with them |
//! | `stop_keys` | which look-ups wait for no other |
//! | `failure` | the errors of a store |
//!
//! An enum selects the database: there are two, both known here, and a look-up costs no allocation. Operations are generic
//! over the transaction ([`transaction`] says why), and one test suite runs over both databases. Only validations have
//! a separate statement for each, since validations are most of the load.

mod approvals;
mod calls;
mod change;
mod checkouts;
mod columns;
mod failure;
mod found;
mod keys;
mod last_seen;
mod operations;
mod overlaid;
mod postgres;
mod rows;
mod sqlite;
mod stop_keys;
mod stops;
#[cfg(test)]
mod tests;
mod transaction;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

pub(super) use self::change::OrgChange;
pub(super) use self::checkouts::{Checkout, CheckoutKey, NewCheckout};
pub(super) use self::failure::{OpenError, StoreError};
use self::found::{AUDIT_PAGE, AUDIT_STEP, FLEET_PAGE, FLEET_STEP, Heard, KEPT_EVENTS, KEPT_SIDECARS, KEPT_STOPS};
pub(super) use self::found::{
    Aftermath, Filter, FleetRow, FleetRows, HeardOf, Kept, KnownDevice, LatelyRevoked, ListedDevice, OldKey, Page,
    Presented, RestoredAll, Surplus,
};
pub(super) use self::keys::{KEPT_KEYS, KeyChange, KeyRefusal, KeyRow, NewRoleKey, RotatedKey, WhichKey};
pub(super) use self::last_seen::LastSeen;
use self::postgres::Postgres;
use self::sqlite::Sqlite;
use self::stop_keys::StopKeys;
use super::batch::Outcome;
use super::changes::Changes;
use super::database::Database;
use super::health::Finding;
use super::plan::{Account, Admission, Restoration, Suspension};
use super::unwritten::Unwritten;

/// How long a decision may take, for either database. Less than clients wait, so that they are told that there is no
/// decision; longer than one statement waits for a lock or a lost connection.
const DECISION: Duration = Duration::from_millis(2_500);

/// The minimum number of `PostgreSQL` connections for a server.
pub(super) const FEWEST_CONNECTIONS: usize = postgres::FEWEST;

/// How a server uses `PostgreSQL`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The maximum number of connections.
    pub(super) connections: usize,
    /// Whether the server decides only while commits are confirmed (`--fence`).
    pub(super) fence: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { connections: 16, fence: false }
    }
}

/// What is reserved for stops.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserves {
    /// Free space on the disk of an `SQLite` database, in bytes, into which nothing but stops grows; 0 for none.
    pub(super) space: u64,
    /// The file for stops that the database does not take; `None` for memory alone.
    pub(super) file: Option<PathBuf>,
}

/// How many devices age out in one transaction: a revoke that arrives meanwhile waits for at most one of these.
const AGED_AT_ONCE: i64 = 500;

/// The store. Cheap to clone; all clones share one database.
#[derive(Clone, Debug)]
pub(super) struct Store {
    backend: Backend,
    changes: Changes,
    /// Notified when a change could not be written.
    doubt: Arc<Notify>,
    /// The stops that the database did not take.
    unwritten: Unwritten,
    /// Held by the task that writes those stops: one at a time, in their order.
    late_writer: Arc<tokio::sync::Mutex<()>>,
    /// The keys whose look-ups wait for no other.
    stop_keys: Arc<StopKeys>,
}

/// An operator's additional requirement for the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Nothing,
    /// A change is answered only after a standby has it too.
    Synchronous,
}

#[derive(Clone, Debug)]
enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Calls the same method of the backend in use.
macro_rules! either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &$self.backend {
            Backend::Sqlite(store) => store.$method($($argument),*).await,
            Backend::Postgres(store) => store.$method($($argument),*).await,
        }
    };
}
use either;

impl Store {
    /// Opens the database, creates missing tables, and runs the migrations up to this version.
    pub(super) async fn open(database: &Database, terms: Terms, reserves: Reserves) -> Result<Self, OpenError> {
        let changes = Changes::new();
        let backend = match database {
            Database::Sqlite(path) => Backend::Sqlite(Sqlite::open(path, &changes, reserves.space)?),
            Database::Postgres(url) => Backend::Postgres(Postgres::open(url, terms, &changes).await?),
        };
        // After the database: its lock makes this server the one that the file beside it belongs to.
        let unwritten = Unwritten::open(reserves.file)?;
        let (doubt, late_writer, stop_keys) = (Arc::default(), Arc::default(), Arc::new(StopKeys::new()));
        Ok(Self { backend, changes, doubt, unwritten, late_writer, stop_keys })
    }

    /// The channel on which the store tells of changes: its own, and those of other servers on the same database.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether the database answers within the time of a decision.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        in_time(async { either!(self.ping()) }).await
    }

    /// Checks a database that answers for other problems. Concerns that cannot be checked are left out.
    pub(super) async fn examine(&self, demand: Demand) -> Vec<Finding> {
        match &self.backend {
            // In a blocking thread: file access may be slow.
            Backend::Sqlite(store) => {
                let store = store.clone();
                tokio::task::spawn_blocking(move || store.examine()).await.unwrap_or_default()
            }
            Backend::Postgres(store) => store.examine(demand).await,
        }
    }

    /// Performs a durable write that changes nothing.
    pub(super) async fn try_to_write(&self) -> Finding {
        either!(self.try_to_write())
    }

    /// Waits until a change fails to be written, or one failed since the last call.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Passes on the result of a change; a failure triggers an examination of the database.
    fn doubting<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.doubt.notify_one();
        }
        result
    }

    /// Waits for running operations and closes the database.
    pub(super) async fn close(&self) {
        either!(self.close());
    }

    /// Writes a copy of the database, from one snapshot, to the file `copy`, which must not exist.
    pub(super) async fn back_up(&self, copy: &Path) -> Result<(), StoreError> {
        either!(self.back_up(copy))
    }
}

/// Turns a decision that takes longer than clients wait into an error.
async fn in_time<T>(decision: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(DECISION, decision).await.unwrap_or(Err(StoreError::Late))
}

/// The result of a batch revoke, one entry for each distinct id.
pub(super) type Suspensions = Vec<Outcome<Suspension>>;
/// The result of a batch unrevoke, one entry for each distinct id.
pub(super) type Restorations = Vec<Outcome<Restoration>>;
/// A registration with the account it belongs to.
pub(super) type Admitted = (Admission, Account);
