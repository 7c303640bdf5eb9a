//! Where organisations and devices are kept.
//!
//! Every operation is one transaction, and what it decides it asks the pure rules of [`super::plan`]. A change is
//! durable and visible to every later read before the operation returns. `None` means that the organisation is gone.
//! Every failure is a [`StoreError`], and its caller must say no.
//!
//! ```text
//!   Store ─┬▶ sqlite     one file, one server: a thread that writes, threads that read
//!          └▶ postgres   one database, any number of servers, which tell each other of changes
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `calls` | the methods of [`Store`]: which operation runs in what kind of transaction |
//! | `operations` | what each operation does, once for both |
//! | `transaction` | what an operation needs of a database, and where the dialects differ |
//! | `values`, `columns`, `rows` | what goes into a statement, and what comes out |
//! | `found` | what is found about devices, and by which filter |
//! | `change` | what an operator changes about an organisation |
//! | `checkouts` | purchases that wait to be confirmed |
//! | `failure` | how a store fails |
//!
//! An enum over both chooses the database: there are two, both known here, and a call costs no allocation. What an
//! operation does is generic over the transaction ([`transaction`] says why) and held by one suite of tests, which runs
//! over both. Only validations have a statement of their own in each: what they cost is what the service costs.

mod calls;
mod change;
mod checkouts;
mod columns;
mod failure;
mod found;
mod operations;
mod postgres;
mod rows;
mod sqlite;
#[cfg(test)]
mod tests;
mod transaction;
mod values;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

pub(super) use self::change::OrgChange;
pub(super) use self::checkouts::{Checkout, CheckoutKey, NewCheckout};
use self::columns::{held_key, status, time};
pub(super) use self::failure::{OpenError, StoreError};
pub(super) use self::found::{
    Aftermath, Filter, FleetRow, FleetRows, HeardOf, KnownDevice, ListedDevice, OldKey, Page, Presented, RestoredAll,
};
use self::found::{Heard, KEPT_EVENTS, KEPT_SIDECARS, KEPT_STOPS, Kept};
use self::postgres::Postgres;
use self::sqlite::Sqlite;
use super::batch::Outcome;
use super::changes::Changes;
use super::database::Database;
use super::health::Finding;
use super::plan::{Account, Admission, Restoration, Suspension};

/// How long a decision may take, whichever the store. Less than clients wait, so that they are told that there is no
/// decision; longer than one statement waits for a lock or a lost connection.
const DECISION: Duration = Duration::from_millis(2_500);

/// The fewest connections to `PostgreSQL` that a server can work with.
pub(super) const FEWEST_CONNECTIONS: usize = postgres::FEWEST;

/// How a server uses `PostgreSQL`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How many connections it makes at most.
    pub(super) connections: usize,
    /// Whether it decides only while commits are confirmed.
    pub(super) fence: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { connections: 16, fence: false }
    }
}

/// How many devices age out in one transaction: a revoke that comes meanwhile waits for one of these at most.
const AGED_AT_ONCE: i64 = 500;

/// The store. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Store {
    backend: Backend,
    changes: Changes,
    /// A change could not be written.
    doubt: Arc<Notify>,
}

/// What an operator demands of the database, beyond that it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Nothing,
    /// A change is answered when a standby has it too.
    Synchronous,
}

#[derive(Clone, Debug)]
enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// The same method of either.
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
    /// Opens the database, creates its tables where there are none, and brings it to this version.
    pub(super) async fn open(database: &Database, terms: Terms) -> Result<Self, OpenError> {
        let changes = Changes::new();
        let backend = match database {
            Database::Sqlite(path) => Backend::Sqlite(Sqlite::open(path, &changes)?),
            Database::Postgres(url) => Backend::Postgres(Postgres::open(url, terms, &changes).await?),
        };
        Ok(Self { backend, changes, doubt: Arc::default() })
    }

    /// The channel on which the store tells of changes: its own, and those of other servers on the same database.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether the database answers in the time of a decision.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        in_time(async { either!(self.ping()) }).await
    }

    /// Looks for what is wrong with the database though it answers. Concerns that could not be looked at are left out.
    pub(super) async fn examine(&self, demand: Demand) -> Vec<Finding> {
        match &self.backend {
            // Looks at files, and a disk may take its time.
            Backend::Sqlite(store) => {
                let store = store.clone();
                tokio::task::spawn_blocking(move || store.examine()).await.unwrap_or_default()
            }
            Backend::Postgres(store) => store.examine(demand).await,
        }
    }

    /// Writes something that changes nothing, as durably as a change.
    pub(super) async fn try_to_write(&self) -> Finding {
        either!(self.try_to_write())
    }

    /// Waits until a change could not be written since the last call.
    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// The result of a change, which is a reason to look when it failed.
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

    /// Writes a copy of the database, as it is at one moment, to `copy`, which must not exist.
    pub(super) async fn back_up(&self, copy: &Path) -> Result<(), StoreError> {
        either!(self.back_up(copy))
    }
}

/// A decision that comes later than clients wait is none.
async fn in_time<T>(decision: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(DECISION, decision).await.unwrap_or(Err(StoreError::Late))
}

/// The result of a batch revoke, one entry for each distinct id.
pub(super) type Suspensions = Vec<Outcome<Suspension>>;
/// The result of a batch unrevoke, one entry for each distinct id.
pub(super) type Restorations = Vec<Outcome<Restoration>>;
/// A registration with the account behind it.
pub(super) type Admitted = (Admission, Account);
