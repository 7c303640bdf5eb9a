//! Connections that wait for the next question.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Connection;
use crate::clock::BootTime;

/// Connections that are kept while nobody asks. More than a thousand devices need at once when each takes its turn; a burst
/// (all of them asked about on one signal) must not leave a thousand behind.
const MOST: usize = 16;
/// How long one is kept. Proxies and servers forget theirs after a minute or a few.
const LONGEST: Duration = Duration::from_secs(90);

#[derive(Debug, Default)]
pub(in crate::client) struct Pool(Mutex<Vec<Idle>>);

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: BootTime,
}

impl Pool {
    /// The one that was used last, which is the least likely to have died since.
    pub(in crate::client) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.pop().map(|kept| kept.connection)
    }

    /// Keeps one whose answer has been read. Not one that is busy still: an answer may come before its request was taken.
    pub(in crate::client) fn put(&self, connection: Connection) {
        if !connection.is_ready() {
            return;
        }
        let mut idle = self.idle();
        idle.push(Idle { connection, since: BootTime::now() });
        let excess = idle.len().saturating_sub(MOST);
        // The oldest are in front.
        idle.drain(..excess);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = BootTime::now();
        idle.retain(|kept| !kept.connection.is_closed() && now.saturating_since(kept.since) < LONGEST);
        idle
    }
}
