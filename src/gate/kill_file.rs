//! The kill file: while it exists, every device is denied on this host.
//!
//! Its file system may hang, so each look runs on a thread of the kill file's own pool ([`machineid_blocking`]). A look that
//! does not return within [`PATIENCE`] is no answer: nothing is allowed by it, and agents live on their leases. While a look
//! hangs, further looks at the same path begin only rarely, so that they do not use up all threads. A look at another path
//! begins at once, on threads of its own. The result of a late look still counts, unless the path has changed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machineid_blocking::{Bounds, Lost, Pool};
use machineid_clock::BootTime;
use machineid_protocol::{Code, Denial};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Live;

/// Time limit for a look.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between looks at a path where one hangs: another file system may be mounted there by then.
const AGAIN: Duration = Duration::from_mins(1);
const BOUNDS: Bounds = Bounds { at_a_time: 2, most: 16 };

/// The kill file's watcher: looks for the file, and notifies every gate when it appears and disappears.
#[derive(Debug)]
pub(crate) struct KillFile {
    live: Live,
    looks: Mutex<Looks>,
    /// The number of the next look: looks may return in another order than they began.
    next: AtomicU64,
    found: Arc<KillFileState>,
}

/// The looks at one path.
#[derive(Debug)]
struct Looks {
    path: Option<PathBuf>,
    pool: Pool,
    running: Arc<Mutex<Vec<Running>>>,
    /// When a look last began while another one hung.
    retried: Option<BootTime>,
}

/// A look that has begun.
#[derive(Clone, Copy, Debug)]
struct Running {
    number: u64,
    began: BootTime,
}

/// The result of the looks.
#[derive(Debug)]
struct KillFileState {
    /// The deny while the file exists, for the gates to follow.
    told: watch::Sender<Option<Denial>>,
    /// The number of the newest look that counted.
    newest: AtomicU64,
}

/// A look that brought no answer.
#[derive(Debug)]
pub(crate) struct Unseen {
    path: PathBuf,
    why: Lost,
}

impl KillFile {
    /// Creates the watcher, and looks once on the calling thread.
    pub(super) fn new(live: Live) -> Self {
        let path = live.look(|settings| settings.enforcement.kill_file.clone());
        let found = KillFileState { told: watch::channel(path.as_deref().and_then(look)).0, newest: AtomicU64::new(0) };
        Self { live, looks: Mutex::new(Looks::at(path)), next: AtomicU64::new(1), found: Arc::new(found) }
    }

    /// Notifies when the file appears and disappears.
    pub(super) fn follow(&self) -> watch::Receiver<Option<Denial>> {
        self.found.told.subscribe()
    }

    /// Looks now; returns the deny if the file exists.
    ///
    /// Fails when the look does not return within its time.
    pub(super) async fn look(&self) -> Result<Option<Denial>, Unseen> {
        let path = self.live.look(|settings| settings.enforcement.kill_file.clone());
        let (number, pool, running, may_begin) = {
            let mut looks = lock(&self.looks);
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if looks.path != path {
                // A look that hangs at the old path occupies threads of the old pool only.
                *looks = Looks::at(path.clone());
                self.found.forget_before(number);
            }
            let may_begin = looks.may_begin(BootTime::now());
            (number, looks.pool.clone(), Arc::clone(&looks.running), may_begin)
        };
        let Some(path) = path else { return Ok(self.found.note(number, None)) };
        if !may_begin {
            return Err(Unseen { path, why: Lost::Late });
        }
        let (found, at) = (Arc::clone(&self.found), path.clone());
        let work = move || {
            lock(&running).push(Running { number, began: BootTime::now() });
            let seen = look(&at);
            // The path answers: looks that still hang concern a file system that was there before.
            lock(&running).retain(|running| running.number > number);
            found.note(number, seen)
        };
        pool.call_within(PATIENCE, work).await.map_err(|why| Unseen { path, why })
    }
}

impl Looks {
    fn at(path: Option<PathBuf>) -> Self {
        Self { path, pool: Pool::new("kill-file", BOUNDS), running: Arc::default(), retried: None }
    }

    /// Whether another look may begin: while one hangs, only rarely.
    fn may_begin(&mut self, now: BootTime) -> bool {
        let hanging =
            lock(&self.running).iter().map(|running| running.began).filter(|&began| now >= began + PATIENCE).min();
        let Some(oldest) = hanging else { return true };
        let begins = now >= self.retried.map_or(oldest, |retried| retried.max(oldest)) + AGAIN;
        if begins {
            self.retried = Some(now);
        }
        begins
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KillFileState {
    /// Makes the results of earlier looks void.
    fn forget_before(&self, number: u64) {
        // Under the lock of `told`, as in `note`.
        self.told.send_if_modified(|_| {
            self.newest.fetch_max(number, Ordering::SeqCst);
            false
        });
    }

    /// Takes the result of a look, unless a later look has counted; returns it.
    fn note(&self, number: u64, now: Option<Denial>) -> Option<Denial> {
        let changed = self.told.send_if_modified(|known| {
            // Under the lock of `told`.
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

/// The deny of the kill file. Only "no such file" counts as absent: any other error counts as present.
fn look(path: &Path) -> Option<Denial> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Ok(_) => Some(Denial::local(Code::LocalKill, format!("the kill file {} exists", path.display()))),
        Err(error) => Some(Denial::local(
            Code::LocalKill,
            format!("the kill file {} cannot be examined ({error}), which counts as existing", path.display()),
        )),
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot look for the kill file {}: {}", self.path.display(), self.why)?;
        match self.why {
            Lost::Late => f.write_str("; check its file system, or set enforcement.kill_file to a path on a local one"),
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
        let found = KillFileState { told: watch::channel(None).0, newest: AtomicU64::new(0) };
        let there = || Some(Denial::local(Code::LocalKill, "it exists"));
        found.note(2, there());
        assert!(found.note(1, None).is_none(), "the asker hears what its own look found");
        assert!(found.told.borrow().is_some(), "the gates go by the later one");
        found.note(3, None);
        assert!(found.told.borrow().is_none());
    }

    #[test]
    fn while_a_look_hangs_another_one_begins_only_now_and_then() {
        let start = BootTime::now();
        let mut looks = Looks::at(None);
        assert!(looks.may_begin(start));
        lock(&looks.running).push(Running { number: 1, began: start });
        assert!(looks.may_begin(start + PATIENCE / 2), "it may just be slow");
        assert!(!looks.may_begin(start + PATIENCE));
        assert!(looks.may_begin(start + AGAIN));
        assert!(!looks.may_begin(start + AGAIN), "one of a crowd");
        assert!(looks.may_begin(start + AGAIN * 2));
        lock(&looks.running).clear();
        assert!(looks.may_begin(start + AGAIN * 2));
    }

    #[test]
    fn a_late_look_at_a_path_of_before_counts_no_more() {
        let found = KillFileState { told: watch::channel(None).0, newest: AtomicU64::new(0) };
        found.forget_before(2);
        found.note(1, Some(Denial::local(Code::LocalKill, "it exists")));
        assert!(found.told.borrow().is_none());
    }
}
