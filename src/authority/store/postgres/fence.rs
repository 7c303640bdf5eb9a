//! A primary that was cut off answers reads for as long as a server reaches it, and cannot know that another one was
//! promoted. With synchronous replication it can no longer commit: what it would have to wait for follows the new one.
//!
//! So with `--fence` a server commits something small twice a second, and decides only while such a commit was begun and
//! confirmed within [`CONFIRMED`]. Off unless asked for: where the only synchronous standby is away, nothing is decided
//! either, since from inside the two look alike.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::StoreError;
use super::health::Health;
use super::session::{self, Purpose, Server};
use super::{CONNECTED, PROBE, lost};
use crate::clock::BootTime;

/// How old the newest confirmed commit may be when something is decided.
const CONFIRMED: Duration = Duration::from_secs(3);

/// How long after one commit the next is begun.
const PERIOD: Duration = Duration::from_millis(500);

/// A commit that waits for the standbys and leaves nothing in any table.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'machineid', '')";

/// Whether commits are confirmed.
#[derive(Debug, Default)]
pub(super) struct Fence {
    /// When the newest confirmed commit was begun, in milliseconds since boot; 0 before the first.
    begun: AtomicU64,
}

impl Fence {
    /// Whether something may be decided now.
    pub(super) fn holds(&self) -> bool {
        confirmed(self.begun.load(Ordering::Acquire), BootTime::now())
    }

    /// Commits until `stop`.
    pub(super) async fn keep(&self, options: &PgConnectOptions, health: &Health, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let opening = session::open(options, &health.known, Purpose::Operations);
            if let Ok(Ok((mut connection, server))) = tokio::time::timeout(CONNECTED, opening).await {
                let committing = self.commit(&mut connection, server, health);
                if let Some(Err(error)) = stop.run_until_cancelled(committing).await
                    && !lost(&error)
                {
                    warn!(%error, "--fence: the database refuses the commit that it rests on");
                }
                // Without a wait for its end: a commit that is not confirmed never ends.
                let _ = tokio::time::timeout(CONNECTED, connection.close_hard()).await;
            }
            tokio::time::sleep(PROBE).await;
        }
    }

    /// Commits on one connection, until it is lost or the address leads elsewhere. A commit that is not confirmed is waited
    /// for: the server's process for it stays until then, and a new one every time would use all connections up.
    async fn commit(&self, connection: &mut PgConnection, server: Server, health: &Health) -> Result<(), StoreError> {
        let left = async {
            while health.known.is_current(server) {
                tokio::time::sleep(PROBE).await;
            }
        };
        let committing = async {
            loop {
                let begun = BootTime::now().as_millis();
                connection.execute(sqlx::raw_sql(COMMIT)).await?;
                self.begun.store(begun, Ordering::Release);
                tokio::time::sleep(PERIOD).await;
            }
        };
        tokio::select! {
            () = left => Ok(()),
            ended = committing => ended,
        }
    }
}

/// Whether a commit that was begun then is new enough.
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
