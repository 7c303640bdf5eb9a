//! The kill file: while it exists everything is denied on this host.
//!
//! Its file system may hang, so each look is a call on a thread of the kill file's own ([`crate::blocking`]). A look that does
//! not return within [`PATIENCE`] is no answer: nothing is allowed by it, agents live on their leases, and the next look is
//! another call. What a late look finds still counts.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::blocking::{Bounds, Lost, Pool};
use crate::config::Live;
use crate::protocol::{Code, Denial};

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(2);
const BOUNDS: Bounds = Bounds { at_a_time: 2, most: 16 };

/// Looks for the kill file, and tells every gate when it appears and disappears.
#[derive(Debug)]
pub(crate) struct KillFile {
    live: Live,
    pool: Pool,
    /// The number of the next look: looks may return in another order than they began in.
    next: AtomicU64,
    found: Arc<Found>,
}

/// What the looks came to.
#[derive(Debug)]
struct Found {
    /// What gates follow: the deny, while there is one.
    told: watch::Sender<Option<Denial>>,
    /// The newest look that counted.
    newest: AtomicU64,
}

/// A look that brought no answer.
#[derive(Debug)]
pub(crate) struct Unseen {
    path: PathBuf,
    why: Lost,
}

impl KillFile {
    /// Looks once, on the calling thread.
    pub(super) fn new(live: Live) -> Self {
        let path = live.look(|settings| settings.enforcement.kill_file.clone());
        let found = Found { told: watch::channel(path.as_deref().and_then(look)).0, newest: AtomicU64::new(0) };
        Self { live, pool: Pool::new("kill-file", BOUNDS), next: AtomicU64::new(1), found: Arc::new(found) }
    }

    /// Changes when the file appears and disappears.
    pub(super) fn follow(&self) -> watch::Receiver<Option<Denial>> {
        self.found.told.subscribe()
    }

    /// Looks now. Gives its deny when it is there.
    ///
    /// Fails when the look does not return within its time.
    pub(super) async fn look(&self) -> Result<Option<Denial>, Unseen> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let Some(path) = self.live.look(|settings| settings.enforcement.kill_file.clone()) else {
            return Ok(self.found.note(number, None));
        };
        let (found, at) = (Arc::clone(&self.found), path.clone());
        let looked = self.pool.call_within(PATIENCE, move || found.note(number, look(&at))).await;
        looked.map_err(|why| Unseen { path, why })
    }
}

impl Found {
    /// Takes what a look found, unless a later one has counted; gives it back.
    fn note(&self, number: u64, now: Option<Denial>) -> Option<Denial> {
        let changed = self.told.send_if_modified(|known| {
            // Under the lock of what is told.
            if self.newest.fetch_max(number, Ordering::SeqCst) > number || known.is_some() == now.is_some() {
                return false;
            }
            known.clone_from(&now);
            true
        });
        match (changed, &now) {
            (true, Some(denial)) => {
                let reason = denial.reason.as_deref().unwrap_or("");
                warn!(reason, "the kill file is in force: everything is denied");
            }
            (true, None) => info!("the kill file is gone: devices are validated again"),
            (false, _) => {}
        }
        now
    }
}

/// The deny of the kill file. Only "no such file" is absence: whatever else goes wrong counts as presence.
fn look(path: &Path) -> Option<Denial> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Ok(_) => Some(Denial::local(Code::LocalKill, format!("the kill file {} exists", path.display()))),
        Err(error) => Some(Denial::local(
            Code::LocalKill,
            format!("the kill file {} cannot be looked at ({error}), which counts as existing", path.display()),
        )),
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot look for the kill file {}: {}", self.path.display(), self.why)?;
        match self.why {
            Lost::Late => {
                f.write_str("; is its file system there? Name a place on a local one as enforcement.kill_file")
            }
            Lost::Panicked | Lost::NoThread(_) => Ok(()),
        }
    }
}

impl std::error::Error for Unseen {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_returns_after_a_later_one_changes_nothing() {
        let found = Found { told: watch::channel(None).0, newest: AtomicU64::new(0) };
        let there = || Some(Denial::local(Code::LocalKill, "it exists"));
        found.note(2, there());
        assert!(found.note(1, None).is_none(), "the asker hears what its own look found");
        assert!(found.told.borrow().is_some(), "the gates go by the later one");
        found.note(3, None);
        assert!(found.told.borrow().is_none());
    }
}
