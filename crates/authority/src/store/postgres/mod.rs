//! The store on one `PostgreSQL` database, shared by any number of servers.
//!
//! Every decision is a statement to the one primary, begun after the question arrived. It sees every change that any
//! server has answered, since each change is committed before its answer. Questions that wait together share one
//! statement. Nothing is cached between questions.
//!
//! | file | concept |
//! |---|---|
//! | `session` | a connection: how it is made, and which server it leads to |
//! | `survey` | what the address offers, tested at the start |
//! | `schema` | its tables |
//! | `lanes`, `lookup` | connections for decisions, and their statement |
//! | `health` | whether the database can be reached, as the probe finds it |
//! | `fence` | whether commits are confirmed, with `--fence` |
//! | `transaction` | a transaction, and whether the address has moved to another server |
//! | `news` | what servers tell each other |
//! | `replication`, `examine` | problems of a database that answers |
//!
//! A lost connection does not mean a lost database: its questions are asked again on another connection, and only the
//! probe declares the database unavailable.

mod examine;
mod fence;
mod health;
mod lanes;
mod lookup;
mod news;
mod replication;
mod schema;
mod session;
mod survey;
mod transaction;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Postgres as Db, Transaction};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use self::health::DatabaseHealth;
use self::lanes::{LANES, Lanes, Urgency};
use self::lookup::LookupQuestion;
use self::session::SessionPurpose;
use self::survey::{Survey, survey};
pub(super) use self::transaction::PostgresWriting;
use machineid_protocol::DeviceId;

use super::{Kept, OpenError, Presented, StoreError, Surplus, Terms, rows};
use crate::changes::Changes;
use crate::database::place;
use crate::keys::SecretHash;

/// The connections that do not run operations: those of the lanes, the listener, and the probe's, which exists only
/// during a probe.
const RESERVED: usize = LANES + 2;
/// The minimum number of connections for a server.
pub(super) const FEWEST: usize = RESERVED + 1;
/// How long making a connection may take, including its first statements.
const CONNECTED: Duration = Duration::from_secs(1);
/// How long an operation may take.
pub(super) const OPERATION: Duration = Duration::from_secs(10);
/// How long a commit may take. No timeout of the server bounds the wait for a lost synchronous standby
/// (findings/postgres-timeouts-do-not-bound-a-commit.sh): the change may then be committed, but is not answered as
/// done.
const COMMIT: Duration = Duration::from_secs(6);
/// How long an operation may take while the probe finds no database: long enough for a session that still reaches the
/// primary.
const OPERATION_IN_TROUBLE: Duration = Duration::from_secs(1);
/// How many rows are deleted in one statement: well within the time of an operation.
const FORGOTTEN_AT_ONCE: u64 = 10_000;
/// The interval between attempts to reach a lost database.
const PROBE: Duration = Duration::from_millis(200);

/// The database.
#[derive(Clone, Debug)]
pub(super) struct Postgres {
    options: Arc<PgConnectOptions>,
    /// For decisions.
    lanes: Lanes,
    /// For everything else.
    pool: PgPool,
    /// The name by which other servers know this one, so that it ignores its own news.
    server: String,
    /// Set after a commit without an answer: its changes may become visible later, and only its own news say when.
    hears_itself: Arc<AtomicBool>,
    changes: Changes,
    health: Arc<DatabaseHealth>,
    stop: CancellationToken,
}

impl Postgres {
    /// Connects, creates missing tables, runs the migrations, and listens for news.
    pub(super) async fn open(options: &PgConnectOptions, terms: Terms, changes: &Changes) -> Result<Self, OpenError> {
        let place = place(options);
        let options = Arc::new(
            options
                .clone()
                .application_name("machineid-authority")
                .disable_statement_logging()
                // No stored value is a float, and a pooler refuses unknown parameters in the first packet.
                .extra_float_digits(None),
        );
        let health = Arc::new(DatabaseHealth::new(terms.fence));
        let reserved = RESERVED + usize::from(terms.fence);
        let connections = granted(&options, &health, (terms.connections, reserved + 1), &place).await?;
        let failed = |source: sqlx::Error| OpenError::connect(&place, source.into());
        let pool = operations(&options, &health, connections - reserved).await.map_err(failed)?;
        schema::migrate(&pool, &place).await?;
        let stop = CancellationToken::new();
        let lanes = Lanes::start(&options, &health, &stop);
        let store = Self {
            options,
            lanes,
            pool,
            server: Uuid::new_v4().to_string(),
            hears_itself: Arc::default(),
            changes: changes.clone(),
            health,
            stop,
        };
        store.listen().await.map_err(|source| OpenError::connect(&place, source))?;
        let watching = store.clone();
        tokio::spawn(async move { watching.health.watch(&watching.options, &watching.lanes, &watching.stop).await });
        let fencing = store.clone();
        tokio::spawn(async move {
            if let Some(fence) = &fencing.health.fence {
                fence.keep(&fencing.options, &fencing.health, &fencing.stop).await;
            }
        });
        Ok(store)
    }

    pub(super) async fn look_up(
        &self,
        key: SecretHash,
        device: Option<DeviceId>,
    ) -> Result<Option<Presented>, StoreError> {
        self.can_decide()?;
        self.lanes.ask(LookupQuestion { key, device }, Urgency::Usual).await
    }

    /// The same for a key that stops agents: before all questions that wait.
    pub(super) async fn look_up_first(&self, key: SecretHash) -> Result<Option<Presented>, StoreError> {
        self.can_decide()?;
        self.lanes.ask(LookupQuestion { key, device: None }, Urgency::First).await
    }

    fn can_decide(&self) -> Result<(), StoreError> {
        // Fail at once: a question that waits for a dead database becomes a late denial.
        if let Some(trouble) = self.health.trouble()
            && !self.lanes.connected()
        {
            return Err(trouble);
        }
        if !self.health.fence_holds() {
            return Err(StoreError::Unconfirmed);
        }
        Ok(())
    }

    /// Looks up a key that no organisation has.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.look_up(SecretHash::of_token(""), None).await.map(drop)
    }

    #[expect(clippy::unused_async, reason = "the other store has the same signature")]
    pub(super) async fn back_up(&self, _: &Path) -> Result<(), StoreError> {
        Err(StoreError::NotHere)
    }

    pub(super) async fn close(&self) {
        self.lanes.close();
        self.stop.cancel();
        self.pool.close().await;
    }

    #[cfg(test)]
    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Begins a transaction that may write.
    pub(super) async fn begin(&self) -> Result<PostgresWriting, StoreError> {
        PostgresWriting::begin(&self.pool, &self.health).await
    }

    /// Begins a transaction that only reads: all its statements share one snapshot.
    pub(super) async fn snapshot(&self) -> Result<Transaction<'static, Db>, StoreError> {
        Ok(self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }

    /// A connection for one statement that reads.
    pub(super) async fn connection(&self) -> Result<PoolConnection<Db>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// Deletes some of these rows of a table. Returns whether there may be more.
    pub(super) async fn forget(&self, table: Kept, surplus: Surplus) -> Result<bool, StoreError> {
        let (table, (condition, values)) = (table.name(), surplus.condition(table));
        // The position of a row (`ctid`) may belong to another row by the time that the row is locked.
        let delete = format!(
            "DELETE FROM {table} WHERE {condition}
             AND ctid = ANY (ARRAY (SELECT ctid FROM {table} WHERE {condition} LIMIT {FORGOTTEN_AT_ONCE}))"
        );
        self.within(OPERATION, async {
            let delete = transaction::query(&delete, values)?;
            Ok(delete.execute(&self.pool).await?.rows_affected() == FORGOTTEN_AT_ONCE)
        })
        .await
    }

    /// Runs an operation with a time limit, and triggers the probe when it fails as it would without a database.
    pub(super) async fn within<T>(
        &self,
        time: Duration,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let trouble = self.health.trouble();
        let time = if trouble.is_some() { time.min(OPERATION_IN_TROUBLE) } else { time };
        let result = tokio::time::timeout(time, operation).await.unwrap_or(Err(StoreError::Late));
        match &result {
            Err(error) if lost(error) || late(error) => {
                self.health.suspect();
                // The probe's result says more than a timeout.
                result.map_err(|error| trouble.filter(|_| late(&error)).unwrap_or(error))
            }
            Ok(_) | Err(_) => result,
        }
    }
}

/// How many of the `wanted` connections can be used. Fails when there are fewer than `needed`, and when the address
/// leads to a server that cannot decide.
async fn granted(
    options: &PgConnectOptions,
    health: &DatabaseHealth,
    (wanted, needed): (usize, usize),
    place: &str,
) -> Result<usize, OpenError> {
    // Before any session setting: a pooler in transaction mode would pass the setting on to other clients.
    let Survey { granted, refused, pooled } = survey(options, wanted).await;
    if pooled {
        return Err(OpenError::Pooled { place: place.to_owned() });
    }
    match (granted, refused) {
        (0, Some(error)) => return Err(OpenError::connect(place, error)),
        (granted, refused) if granted < needed => {
            let said = refused.map_or_else(|| "nothing".to_owned(), |error| error.to_string());
            return Err(OpenError::TooFew { place: place.to_owned(), granted, needed, said });
        }
        (granted, Some(error)) => warn!(
            place,
            granted,
            wanted,
            %error,
            "the database grants fewer connections than --database-connections asks for; working with those. Raise the \
             limit of the server, the role or the pooler, or ask for fewer"
        ),
        (_, None) => {}
    }
    let opening = session::open(options, &health.known, SessionPurpose::Operations);
    let opened = tokio::time::timeout(OPERATION, opening).await.unwrap_or(Err(StoreError::Late));
    match opened {
        // Closed, since the pool makes its own connection.
        Ok((connection, _)) => drop(connection.close().await),
        Err(StoreError::Standby) => return Err(OpenError::Standby { place: place.to_owned() }),
        Err(error) => return Err(OpenError::connect(place, error)),
    }
    Ok(granted)
}

/// The pool for operations. All its connections are made now and kept: a connection made on demand could be refused
/// while others are idle.
async fn operations(
    options: &PgConnectOptions,
    health: &Arc<DatabaseHealth>,
    connections: usize,
) -> sqlx::Result<PgPool> {
    let connections = u32::try_from(connections).unwrap_or(u32::MAX);
    let (made, kept) = (Arc::clone(health), Arc::clone(health));
    PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .acquire_timeout(OPERATION)
        .max_lifetime(None)
        .idle_timeout(None)
        // Our check knows more than whether the other end answers, and has a time limit for a dead connection.
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let health = Arc::clone(&made);
            Box::pin(async move { prepared(connection, &health).await })
        })
        .before_acquire(move |connection, _| {
            let health = Arc::clone(&kept);
            Box::pin(async move { Ok(session::still_good(connection, &health.known).await) })
        })
        .connect_with(options.clone())
        .await
}

/// Prepares a new connection of a pool.
async fn prepared(connection: &mut PgConnection, health: &DatabaseHealth) -> sqlx::Result<()> {
    session::prepare(connection, &health.known, SessionPurpose::Operations).await.map(drop).map_err(|error| {
        health.suspect();
        sqlx::Error::Configuration(error.into())
    })
}

/// Whether no answer came in time.
fn late(error: &StoreError) -> bool {
    match error {
        StoreError::Late => true,
        StoreError::Postgres(error) => matches!(error.as_ref(), sqlx::Error::PoolTimedOut),
        StoreError::Sqlite(_)
        | StoreError::Undone
        | StoreError::Down
        | StoreError::Standby
        | StoreError::ReadOnly
        | StoreError::Superseded
        | StoreError::Unconfirmed
        | StoreError::NoRoom { .. }
        | StoreError::OnlyStopped(_)
        | StoreError::StopsWait(_)
        | StoreError::Closed
        | StoreError::Corrupt(_)
        | StoreError::Unwritable { .. }
        | StoreError::Waits(_)
        | StoreError::NotApproved(_)
        | StoreError::KeyRefused(_)
        | StoreError::NotHere => false,
    }
}

/// Whether the error means that the connection is or may be lost. An error of a statement means that it is not.
fn lost(error: &StoreError) -> bool {
    match error {
        // Class 57P: an operator or a crash ended the session; 08: the connection failed; 53: too many connections.
        StoreError::Postgres(error) => match error.as_database_error() {
            Some(error) => {
                error.code().is_some_and(|code| ["57P", "08", "53"].iter().any(|class| code.starts_with(class)))
            }
            None => matches!(error.as_ref(), sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_)),
        },
        StoreError::Standby | StoreError::ReadOnly | StoreError::Superseded => true,
        StoreError::Late
        | StoreError::Sqlite(_)
        | StoreError::Undone
        | StoreError::Down
        | StoreError::Unconfirmed
        | StoreError::NoRoom { .. }
        | StoreError::OnlyStopped(_)
        | StoreError::StopsWait(_)
        | StoreError::Closed
        | StoreError::Corrupt(_)
        | StoreError::Unwritable { .. }
        | StoreError::Waits(_)
        | StoreError::NotApproved(_)
        | StoreError::KeyRefused(_)
        | StoreError::NotHere => false,
    }
}

/// Whether the database is up but has no connection left for us: at the server (`53300`), or at a pooler before it,
/// which has no error code of its own for this.
fn crowded(error: &StoreError) -> bool {
    let StoreError::Postgres(error) = error else { return false };
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("53300") || error.message().contains("no more connections allowed")
    })
}
