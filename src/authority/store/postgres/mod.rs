//! One `PostgreSQL` database, any number of servers.
//!
//! Every decision is one statement to the one primary, begun after it was asked for: it sees every change that any
//! server has answered, because each is committed before. Nothing is kept between questions. When the connection is lost
//! everything fails at once until the database has answered a probe: a question that waits for a dead database is a
//! denial that comes late.

mod audit;
mod devices;
mod news;
mod orgs;
mod reports;
mod rows;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Postgres as Db, Transaction};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{OpenError, StoreError};
use crate::authority::changes::Changes;
use crate::authority::database::place;

/// The most connections of one server for decisions, and for everything else. Apart, since changes of one organisation
/// wait for each other: a thousand hosts that register at once must not keep a validation waiting.
const CONNECTIONS: (u32, u32) = (8, 16);
/// How long a probe may take, the making of a connection included.
const PROBED: Duration = Duration::from_secs(1);
/// How long a decision may take: less than clients wait, so that they are told and need not guess.
const DECISION: Duration = Duration::from_secs(1);
/// How long any other operation may take.
const OPERATION: Duration = Duration::from_secs(10);
/// How often a lost database is tried.
const PROBE: Duration = Duration::from_millis(200);

/// The database.
#[derive(Clone, Debug)]
pub(super) struct Postgres {
    options: Arc<PgConnectOptions>,
    /// For decisions.
    deciders: PgPool,
    /// For everything else.
    pool: PgPool,
    /// What other servers know this one by, so that it does not hear its own news.
    server: String,
    changes: Changes,
    health: Arc<Health>,
    stop: CancellationToken,
}

/// Whether the database answers.
#[derive(Debug)]
struct Health {
    up: AtomicBool,
    lost: Notify,
}

impl Postgres {
    /// Connects, creates the tables where there are none, brings them to this version, and listens for news.
    pub(super) async fn open(options: &PgConnectOptions, changes: &Changes) -> Result<Self, OpenError> {
        let place = place(options);
        let failed = |source| OpenError::Connect { place: place.clone(), source };
        let options = options
            .clone()
            .application_name("machineid-authority")
            .disable_statement_logging()
            // The server gives up on what we have given up on.
            .options([
                ("statement_timeout", "8s"),
                ("lock_timeout", "2s"),
                ("idle_in_transaction_session_timeout", "10s"),
            ]);
        let pool = |connections, acquire| {
            let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(acquire).max_lifetime(None);
            // A round trip for each decision; a dead connection shows itself, and then another one is tried.
            pool.test_before_acquire(false).connect_with(options.clone())
        };
        let deciders = pool(CONNECTIONS.0, DECISION).await.map_err(failed)?;
        let pool = pool(CONNECTIONS.1, OPERATION).await.map_err(failed)?;
        let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&pool).await.map_err(failed)?;
        if standby {
            return Err(OpenError::Standby { place });
        }
        let migrations = sqlx::migrate!("migrations/postgres");
        migrations.run(&pool).await.map_err(|source| {
            // One that ran there and is unknown here.
            if let MigrateError::VersionMissing(found) = source {
                return OpenError::Newer { found: found.to_string(), known: migrations.iter().count() };
            }
            OpenError::MigratePostgres { place: place.clone(), source }
        })?;
        let durable: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&pool).await.map_err(failed)?;
        if durable == "off" {
            warn!(place, "synchronous_commit is off: an answered revoke can be lost when the database crashes");
        }
        let store = Self {
            options: Arc::new(options),
            deciders,
            pool,
            server: Uuid::new_v4().to_string(),
            changes: changes.clone(),
            health: Arc::new(Health { up: AtomicBool::new(true), lost: Notify::new() }),
            stop: CancellationToken::new(),
        };
        store.listen().await.map_err(failed)?;
        tokio::spawn(store.clone().probe());
        Ok(store)
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.within(DECISION, async {
            Ok(sqlx::query("SELECT 1 FROM orgs LIMIT 1").execute(&self.deciders).await.map(drop)?)
        })
        .await
    }

    #[expect(clippy::unused_async, reason = "as the other store's")]
    pub(super) async fn back_up(&self, _: &Path) -> Result<(), StoreError> {
        Err(StoreError::NotHere)
    }

    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.deciders.close().await;
        self.pool.close().await;
    }

    #[cfg(test)]
    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Begins a transaction that may write.
    async fn begin(&self) -> Result<Transaction<'static, Db>, StoreError> {
        Ok(self.pool.begin().await?)
    }

    /// Runs an operation while the database is up, for so long at most, and notices when it is not.
    async fn within<T>(
        &self,
        time: Duration,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if !self.health.up.load(Ordering::Acquire) {
            return Err(StoreError::Down);
        }
        let result = tokio::time::timeout(time, operation).await.unwrap_or(Err(StoreError::Late));
        if let Err(error) = &result {
            if lost(error) {
                self.health.up.store(false, Ordering::Release);
                self.health.lost.notify_one();
            } else if late(error) {
                // Busy, or gone without a word: the probe tells.
                self.health.lost.notify_one();
            }
        }
        result
    }

    /// Waits for a loss, then tries until the database answers again.
    async fn probe(self) {
        while self.stop.run_until_cancelled(self.health.lost.notified()).await.is_some() {
            if self.answers().await {
                // One connection was lost, not the database.
                self.health.up.store(true, Ordering::Release);
                continue;
            }
            self.health.up.store(false, Ordering::Release);
            warn!("the database does not answer; everything is denied until it does");
            loop {
                if self.stop.run_until_cancelled(tokio::time::sleep(PROBE)).await.is_none() {
                    return;
                }
                if self.answers().await {
                    break;
                }
            }
            info!("the database answers again");
            self.health.up.store(true, Ordering::Release);
        }
    }

    /// On a connection of its own: that all others are busy is no loss.
    async fn answers(&self) -> bool {
        let probe = async {
            let mut connection = self.options.connect().await?;
            sqlx::query("SELECT 1").execute(&mut connection).await?;
            connection.close().await
        };
        matches!(tokio::time::timeout(PROBED, probe).await, Ok(Ok(())))
    }
}

/// Whether no answer came in time.
fn late(error: &StoreError) -> bool {
    match error {
        StoreError::Late => true,
        StoreError::Postgres(error) => matches!(error.as_ref(), sqlx::Error::PoolTimedOut),
        StoreError::Sqlite(_)
        | StoreError::Undone
        | StoreError::Down
        | StoreError::Closed
        | StoreError::Corrupt(_)
        | StoreError::Unwritable { .. }
        | StoreError::NotHere => false,
    }
}

/// Whether this means that the connection is gone, or may be. What a statement did wrong means that it is not.
fn lost(error: &StoreError) -> bool {
    match error {
        // Class 57: an operator, or a crash, ends the session; 08: the connection; 53: no more of them.
        StoreError::Postgres(error) => match error.as_database_error() {
            Some(error) => {
                error.code().is_some_and(|code| ["57P", "08", "53"].iter().any(|class| code.starts_with(class)))
            }
            None => matches!(error.as_ref(), sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_)),
        },
        StoreError::Late
        | StoreError::Sqlite(_)
        | StoreError::Undone
        | StoreError::Down
        | StoreError::Closed
        | StoreError::Corrupt(_)
        | StoreError::Unwritable { .. }
        | StoreError::NotHere => false,
    }
}
