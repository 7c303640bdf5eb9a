//! Checks whether the database is damaged: `SQLite` reads every page once, when the database is opened (`PRAGMA
//! quick_check`).
//!
//! The start waits for the check of a small database, and a damaged one is not served. A large database takes longer
//! than a start may; it is served meanwhile, and reported when the check has ended.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle};

use super::super::failure::{Damage, OpenError};
use crate::health::{Concern, Finding, Gravity};

/// How long a start waits for the check.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many damages a message names.
const NAMED: u32 = 5;

/// A check that is running or has ended.
#[derive(Clone)]
pub(super) struct Check {
    verdict: Arc<OnceLock<Result<(), Damage>>>,
    running: Arc<Mutex<Option<InterruptHandle>>>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Check").field(&self.verdict.get()).finish()
    }
}

impl Check {
    /// Begins the check on `connection` and waits up to [`PATIENCE`]. Fails when the database is damaged.
    pub(super) fn begin(connection: Connection, path: &Path) -> Result<Self, OpenError> {
        let running = Arc::new(Mutex::new(Some(connection.get_interrupt_handle())));
        let check = Self { verdict: Arc::default(), running };
        let (end, ended) = sync_channel(1);
        let mine = check.clone();
        let thread = thread::Builder::new().name("store-checks".to_owned()).spawn(move || {
            if let Some(verdict) = look(&connection) {
                let _ = mine.verdict.set(verdict);
            }
            mine.running.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(connection);
            let _ = end.send(());
        });
        thread.map_err(|source| OpenError::Threads { source })?;
        match ended.recv_timeout(PATIENCE) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        match check.verdict.get() {
            Some(Err(damage)) => Err(OpenError::Damaged { path: path.to_owned(), damage: damage.clone() }),
            Some(Ok(())) | None => Ok(check),
        }
    }

    /// The result of the check so far.
    pub(super) fn examine(&self, path: &Path) -> Finding {
        match self.verdict.get() {
            Some(Err(damage)) => {
                let text = format!("the database {} is damaged: {damage}. Put a backup in its place", path.display());
                Finding::wrong(Concern::Integrity, Gravity::NotReady, text)
            }
            Some(Ok(())) | None => Finding::fine(Concern::Integrity),
        }
    }

    /// Aborts the check, if it is still running.
    pub(super) fn end(&self) {
        if let Some(running) = &*self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            running.interrupt();
        }
    }
}

/// Runs the check; `None` when it was aborted or failed for another reason.
fn look(connection: &Connection) -> Option<Result<(), Damage>> {
    let damages = |connection: &Connection| -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(&format!("PRAGMA quick_check({NAMED})"))?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    match damages(connection) {
        Ok(said) if said == ["ok"] => Some(Ok(())),
        Ok(said) => Some(Err(Damage::Reported(said))),
        Err(error) => match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Some(Err(Damage::Unreadable(Arc::new(error))))
            }
            Some(_) | None => None,
        },
    }
}
