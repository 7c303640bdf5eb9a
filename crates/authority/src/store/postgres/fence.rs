//! The fence (`--fence`): decides only while a standby confirms commits. An isolated primary keeps answering reads for
//! every server that still reaches it, and cannot know that another server was promoted. With synchronous replication
//! it can no longer commit, since the standbys it would wait for follow the new primary.
//!
//! So with `--fence` a server commits something small twice a second, and decides only while such a commit was begun
//! and confirmed within [`CONFIRMED`]. The fence is off by default: when the only synchronous standby is down, nothing
//! is decided either, because the two cases look the same from inside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use machineid_clock::BootTime;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::StoreError;
use super::health::Health;
use super::session::{self, Purpose, Server};
use super::{CONNECTED, PROBE, lost};

/// The maximum age of the newest confirmed commit for a decision.
const CONFIRMED: Duration = Duration::from_secs(3);

/// The pause between the end of one commit and the start of the next.
const PERIOD: Duration = Duration::from_millis(500);

/// A commit that waits for the standbys and writes to no table.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'machineid', '')";

/// How long a commit may go unanswered before another connection checks whether the server still runs it. A silently
/// cut connection looks like a commit that waits for a lost standby.
const UNANSWERED: Duration = Duration::from_secs(2);

/// Whether the server process of a connection waits for a standby.
const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep')";

/// The state of the fence: whether commits are confirmed.
#[derive(Debug, Default)]
pub(super) struct Fence {
    /// When the newest confirmed commit was begun, in milliseconds since boot; 0 before the first.
    begun: AtomicU64,
}

impl Fence {
    /// Whether the server may decide now.
    pub(super) fn holds(&self) -> bool {
        confirmed(self.begun.load(Ordering::Acquire), BootTime::now())
    }

    /// Commits periodically until `stop`.
    pub(super) async fn keep(&self, options: &PgConnectOptions, health: &Health, stop: &CancellationToken) {
        let mut next = None;
        while !stop.is_cancelled() {
            let opening = session::open(options, &health.known, Purpose::Operations);
            let opened = match next.take() {
                Some(replacement) => Some(replacement),
                None => tokio::time::timeout(CONNECTED, opening).await.ok().and_then(Result::ok),
            };
            if let Some((mut connection, server)) = opened {
                let committing = self.commit(&mut connection, server, options, health);
                match stop.run_until_cancelled(committing).await {
                    Some(Ok(replacement)) => next = replacement,
                    Some(Err(error)) if !lost(&error) => {
                        warn!(%error, "--fence: the database refuses the periodic commit");
                    }
                    Some(Err(_)) | None => {}
                }
                close(connection).await;
            }
            if next.is_none() {
                tokio::time::sleep(PROBE).await;
            }
        }
    }

    /// Commits on one connection until it is lost or the address leads elsewhere. A commit that is not confirmed is not
    /// abandoned: its server process stays until the confirmation, and a new one for each attempt would use up all
    /// connections. Returns the connection to continue with, if this one was lost without an error.
    async fn commit(
        &self,
        connection: &mut PgConnection,
        server: Server,
        options: &PgConnectOptions,
        health: &Health,
    ) -> Result<Option<(PgConnection, Server)>, StoreError> {
        let identifying = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection);
        let process: i32 = tokio::time::timeout(CONNECTED, identifying).await.map_err(|_| StoreError::Late)??;
        // When the running commit was begun; 0 while none is running.
        let waiting = AtomicU64::new(0);
        let left = async {
            while health.known.is_current(server) {
                tokio::time::sleep(PROBE).await;
            }
        };
        let committing = async {
            loop {
                let begun = BootTime::now().as_millis();
                waiting.store(begun, Ordering::Release);
                connection.execute(sqlx::raw_sql(COMMIT)).await?;
                waiting.store(0, Ordering::Release);
                self.begun.store(begun, Ordering::Release);
                tokio::time::sleep(PERIOD).await;
            }
        };
        tokio::select! {
            () = left => Ok(None),
            ended = committing => ended,
            replacement = replacement(&waiting, process, options, health) => Ok(Some(replacement)),
        }
    }
}

/// Makes a new connection once a commit has gone unanswered for [`UNANSWERED`] and the server no longer runs it.
async fn replacement(
    waiting: &AtomicU64,
    process: i32,
    options: &PgConnectOptions,
    health: &Health,
) -> (PgConnection, Server) {
    loop {
        tokio::time::sleep(UNANSWERED).await;
        let begun = waiting.load(Ordering::Acquire);
        if begun == 0 || BootTime::now().saturating_since(BootTime::from_millis(begun)) < UNANSWERED {
            continue;
        }
        let looking = async {
            let (mut connection, server) = session::open(options, &health.known, Purpose::Operations).await?;
            let waits: bool = sqlx::query_scalar(WAITS).bind(process).fetch_one(&mut connection).await?;
            Ok::<_, StoreError>((connection, server, waits))
        };
        if let Ok(Ok((connection, server, waits))) = tokio::time::timeout(CONNECTED, looking).await {
            if !waits && waiting.load(Ordering::Acquire) == begun {
                return (connection, server);
            }
            close(connection).await;
        }
    }
}

/// Closes a connection without waiting for its end: a commit that is not confirmed never ends.
async fn close(connection: PgConnection) {
    let _ = tokio::time::timeout(CONNECTED, connection.close_hard()).await;
}

/// Whether a commit that was begun at `begun` is recent enough.
fn confirmed(begun: u64, now: BootTime) -> bool {
    begun != 0 && now.saturating_since(BootTime::from_millis(begun)) < CONFIRMED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_confirmed_before_the_first_commit_even_right_after_boot() {
        assert!(!confirmed(0, BootTime::from_millis(1)));
        assert!(confirmed(1, BootTime::from_millis(2)));
        assert!(!confirmed(1, BootTime::from_millis(3001)));
    }
}
