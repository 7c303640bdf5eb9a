//! Stops that are in force although the store did not take them: a full, read-only or broken database must not keep an
//! operator from stopping agents.
//!
//! ```text
//!   a stop ──▶ store ── fails ──▶ unwritten: in force at once ──▶ overlay: what every look-up and list adds to the store
//!                                    │   └──▶ reserve: a file allocated in advance; read at the next start
//!                                    └── as soon as the store takes changes ──▶ store, in order; then forgotten here
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `stop` | what a stop changes, as it is kept, pure |
//! | `overlay` | what the stops make of that which the store says, pure |
//! | `record` | a stop as bytes of the reserve file, pure |
//! | `reserve` | the reserve file |
//!
//! Only denies are kept here. An ALLOW, a restore and a new key come from the store alone: while a stop of an organisation
//! waits here, nothing that could give something back is accepted for it, unless the stop can be written first.
//!
//! The stops are those of this server. Other servers of the same `PostgreSQL` database do not know them.

mod overlay;
mod record;
mod reserve;
mod stop;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tracing::{error, info, warn};

pub(super) use self::overlay::{OrgOverlay, Overlay};
pub(super) use self::record::fuzz as fuzz_reserve;
pub(super) use self::reserve::ReserveError;
use self::reserve::{Reserve, Slot};
pub(super) use self::stop::{StopScope, UnwrittenStop};
use super::health::{Concern, Finding, Gravity};
use super::org::OrgId;

/// How long an answer waits for the reserve file. A disk that hangs must not delay the answer that a stop is in force.
const KEPT_WITHIN: Duration = Duration::from_secs(2);

/// A change with its result: in the database, or in force without it.
#[derive(Clone, Debug)]
pub(super) struct InForce<T> {
    pub(super) done: T,
    /// `None` when the change is in the database.
    pub(super) unwritten: Option<NotWritten>,
}

impl<T> InForce<T> {
    pub(super) fn written(done: T) -> Self {
        Self { done, unwritten: None }
    }

    pub(super) fn map<U>(self, map: impl FnOnce(T) -> U) -> InForce<U> {
        InForce { done: map(self.done), unwritten: self.unwritten }
    }
}

/// A stop that is in force and not in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotWritten {
    /// It is in the reserve file, so that a restart of this server does not lose it.
    pub(super) kept: bool,
    /// Why the database did not take it.
    pub(super) why: String,
}

impl NotWritten {
    /// What an operator has to know.
    pub(super) fn notice(&self) -> String {
        let Self { kept, why } = self;
        if *kept {
            format!(
                "In force at this server now, but not written to the database yet: {why}. It survives a restart of this \
                 server, and is written as soon as the database takes changes."
            )
        } else {
            format!(
                "In force at this server now, but written nowhere: {why}. It is lost if this server ends before the \
                 database takes changes again: keep the server running, and mend the database."
            )
        }
    }
}

/// The stops that are not written. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub(super) struct Unwritten(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    // A std mutex: held for a change of the list or a clone of the overlay, never across an await.
    waiting: Mutex<WaitingStops>,
    /// Held by the thread that writes the file; waited for in a bounded time.
    reserve: Arc<tokio::sync::Mutex<Option<Reserve>>>,
    /// Where the reserve file is; `None` when there is none.
    path: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct WaitingStops {
    stops: Vec<WaitingStop>,
    overlay: Arc<Overlay>,
    next: u64,
    /// Why the reserve file cannot be used, if so.
    no_reserve: Option<String>,
}

#[derive(Clone, Debug)]
struct WaitingStop {
    number: u64,
    stop: Arc<UnwrittenStop>,
    /// Its place in the reserve file, once it is there.
    slot: Option<Slot>,
}

impl WaitingStops {
    fn put(&mut self, mut stop: UnwrittenStop, slot: Option<Slot>) -> u64 {
        // As the databases store it: a sidecar's report repeats the time of the revoke that it knows.
        stop.call.at = Timestamp::from_microsecond(stop.call.at.as_microsecond()).unwrap_or(stop.call.at);
        self.next += 1;
        self.stops.push(WaitingStop { number: self.next, stop: Arc::new(stop), slot });
        self.renew();
        self.next
    }

    fn renew(&mut self) {
        self.overlay = Arc::new(Overlay::new(self.stops.iter().map(|waiting| waiting.stop.as_ref())));
    }
}

impl Unwritten {
    /// Opens the reserve file at `path` and puts into force what an earlier server left there. A file that cannot be made
    /// is a problem that [`Self::examine`] reports; one that cannot be read is an error, since it may hold a revoke.
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, ReserveError> {
        let mut waiting = WaitingStops::default();
        let reserve = match &path {
            None => None,
            Some(path) => match Reserve::open(path) {
                Ok((reserve, left)) => {
                    for (stop, slot) in left {
                        warn!(org = %stop.org, stop = stop.stop.name(), at = %stop.call.at, "a stop that was not written to \
                            the database is in force again");
                        waiting.put(stop, Some(slot));
                    }
                    Some(reserve)
                }
                Err(ReserveError::Make { source, .. }) => {
                    waiting.no_reserve = Some(source.to_string());
                    None
                }
                Err(
                    error @ (ReserveError::Read { .. } | ReserveError::Foreign { .. } | ReserveError::InUse { .. }),
                ) => {
                    return Err(error);
                }
            },
        };
        let reserve = Arc::new(tokio::sync::Mutex::new(reserve));
        Ok(Self(Arc::new(Shared { waiting: Mutex::new(waiting), reserve, path })))
    }

    /// What the stops make of the store's answers, as of now. Taken *before* the store is asked: a stop that is written
    /// and forgotten meanwhile is in one of the two.
    pub(super) fn overlay(&self) -> Arc<Overlay> {
        Arc::clone(&self.lock().overlay)
    }

    /// Puts a stop into force. Returns its number.
    pub(super) fn put(&self, stop: UnwrittenStop) -> u64 {
        error!(org = %stop.org, stop = stop.stop.name(), request_id = stop.call.request_id,
            "a stop cannot be written to the database; it is in force at this server");
        self.lock().put(stop, None)
    }

    /// Writes a stop to the reserve file, within a bounded time. Returns whether it is there.
    pub(super) async fn keep(&self, number: u64) -> bool {
        tokio::time::timeout(KEPT_WITHIN, self.keep_in_file(number)).await.unwrap_or(false)
    }

    async fn keep_in_file(&self, number: u64) -> bool {
        let Some(stop) = self.find(number).map(|waiting| waiting.stop) else { return true };
        let mut reserve = Arc::clone(&self.0.reserve).lock_owned().await;
        if self.find(number).is_none_or(|waiting| waiting.slot.is_some()) {
            return true;
        }
        let this = self.clone();
        // The thread goes on when this future is dropped, and keeps the lock meanwhile.
        let written = tokio::task::spawn_blocking(move || {
            let Some(reserve) = reserve.as_mut() else { return false };
            match reserve.append(&stop) {
                Ok(slot) => {
                    this.appended(number, slot, reserve);
                    true
                }
                Err(problem) => {
                    error!(%problem, "a stop cannot be written to the reserve file either");
                    false
                }
            }
        });
        written.await.unwrap_or(false)
    }

    /// Notes where a stop is in the file.
    fn appended(&self, number: u64, slot: Slot, reserve: &mut Reserve) {
        let mut waiting = self.lock();
        if let Some(found) = waiting.stops.iter_mut().find(|waiting| waiting.number == number) {
            found.slot = Some(slot);
            return;
        }
        drop(waiting);
        // The database took it meanwhile. If this fails, it is written once more at the next start, which does no harm.
        let _ = reserve.done(slot);
    }

    /// The stops that wait, of this organisation or of all, in their order.
    pub(super) fn waiting(&self, org: Option<OrgId>) -> Vec<(u64, Arc<UnwrittenStop>)> {
        let waiting = self.lock();
        let wanted = waiting.stops.iter().filter(|waiting| org.is_none_or(|org| waiting.stop.org == org));
        wanted.map(|waiting| (waiting.number, Arc::clone(&waiting.stop))).collect()
    }

    /// Forgets a stop that is in the database now.
    pub(super) async fn written(&self, number: u64) {
        let Some(found) = self.take(number) else { return };
        info!(org = %found.stop.org, stop = found.stop.stop.name(), left = self.lock().stops.len(),
            "a stop that waited is in the database now");
        if let Some(slot) = found.slot {
            self.cross_out(slot).await;
        }
    }

    /// Takes back a stop that turned out to stop nothing, or nothing more than those before it.
    pub(super) fn forget(&self, number: u64) {
        if let Some(found) = self.take(number) {
            info!(org = %found.stop.org, stop = found.stop.stop.name(), "a stop was taken back: it stops nothing more");
            self.cross_out_later(found.slot);
        }
    }

    /// Makes a stop in force what it was found to be. Does nothing when it is in the database already.
    pub(super) fn amend(&self, number: u64, stop: StopScope, counted: u64) {
        let mut waiting = self.lock();
        if let Some(found) = waiting.stops.iter_mut().find(|waiting| waiting.number == number) {
            let UnwrittenStop { org, stop: _, counted: _, call } = found.stop.as_ref().clone();
            found.stop = Arc::new(UnwrittenStop { org, stop, counted, call });
            waiting.renew();
        }
    }

    /// Of the stops before this one that are equal to it, forgets all but the first, whose time is that of the revoke. This
    /// one stays since it counts where the first was taken back meanwhile.
    pub(super) fn forget_repeats(&self, number: u64) {
        let repeats = {
            let mut waiting = self.lock();
            let Some(newest) = waiting.stops.iter().find(|waiting| waiting.number == number).cloned() else { return };
            let equal = waiting.stops.iter().filter(|one| {
                one.number < number && one.stop.org == newest.stop.org && one.stop.stop == newest.stop.stop
            });
            // What is in the file is not given up for what is not.
            let repeats: Vec<_> =
                equal.skip(1).filter(|one| newest.slot.is_some() || one.slot.is_none()).cloned().collect();
            if repeats.is_empty() {
                return;
            }
            waiting.stops.retain(|one| repeats.iter().all(|repeat| repeat.number != one.number));
            waiting.renew();
            repeats
        };
        for repeat in repeats {
            self.cross_out_later(repeat.slot);
        }
    }

    fn take(&self, number: u64) -> Option<WaitingStop> {
        let mut waiting = self.lock();
        let at = waiting.stops.iter().position(|waiting| waiting.number == number)?;
        let found = waiting.stops.remove(at);
        waiting.renew();
        Some(found)
    }

    fn cross_out_later(&self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            let this = self.clone();
            // Nothing waits for it.
            tokio::spawn(async move { this.cross_out(slot).await });
        }
    }

    async fn cross_out(&self, slot: Slot) {
        let cross_out = async {
            let mut reserve = Arc::clone(&self.0.reserve).lock_owned().await;
            tokio::task::spawn_blocking(move || reserve.as_mut().map(|reserve| reserve.done(slot))).await
        };
        match tokio::time::timeout(KEPT_WITHIN, cross_out).await {
            Ok(Ok(None | Some(Ok(())))) => {}
            // Written once more at the next start, which does no harm.
            Ok(Ok(Some(Err(problem)))) => {
                warn!(%problem, "a stop that was written cannot be crossed out in the reserve file");
            }
            Ok(Err(_)) | Err(_) => {
                warn!("a stop that was written cannot be crossed out in the reserve file in time");
            }
        }
    }

    /// How many stops wait: those in the reserve file, and those in memory alone.
    pub(super) fn counts(&self) -> (usize, usize) {
        let waiting = self.lock();
        let kept = waiting.stops.iter().filter(|waiting| waiting.slot.is_some()).count();
        (kept, waiting.stops.len() - kept)
    }

    /// Makes the reserve file where it could not be made before, and writes to it what is in memory alone.
    pub(super) async fn mend_reserve(&self) {
        let missing = self.lock().no_reserve.is_some();
        if let Some(path) = self.0.path.clone().filter(|_| missing) {
            let opening = async {
                let mut reserve = Arc::clone(&self.0.reserve).lock_owned().await;
                tokio::task::spawn_blocking(move || match Reserve::open(&path) {
                    Ok((made, left)) => {
                        *reserve = Some(made);
                        Ok(left)
                    }
                    Err(error) => Err(error.to_string()),
                })
                .await
            };
            if let Ok(Ok(opened)) = tokio::time::timeout(KEPT_WITHIN, opening).await {
                let mut waiting = self.lock();
                waiting.no_reserve = opened.as_ref().err().cloned();
                for (stop, slot) in opened.into_iter().flatten() {
                    waiting.put(stop, Some(slot));
                }
            }
        }
        let only_in_memory: Vec<u64> =
            self.lock().stops.iter().filter(|waiting| waiting.slot.is_none()).map(|waiting| waiting.number).collect();
        if self.0.path.is_some() {
            for number in only_in_memory {
                if !self.keep(number).await {
                    return;
                }
            }
        }
    }

    /// What is wrong, for operators.
    pub(super) fn examine(&self) -> Finding {
        let (kept, memory) = self.counts();
        let no_reserve = self.lock().no_reserve.clone();
        let reserve = self.0.path.as_ref().map_or_else(String::new, |path| path.display().to_string());
        match (kept + memory, memory, no_reserve) {
            (0, _, None) => Finding::fine(Concern::Stops),
            (0, _, Some(problem)) => Finding::wrong(
                Concern::Stops,
                Gravity::Warning,
                format!(
                    "the reserve file {reserve} cannot be made ({problem}): a stop that the database does not take would be \
                     lost with this process"
                ),
            ),
            (all, 0, _) => Finding::wrong(
                Concern::Stops,
                Gravity::Failure,
                format!(
                    "{all} stop(s) are in force at this server and in its reserve file, but not in the database; they are \
                     written as soon as it takes changes"
                ),
            ),
            (all, memory, _) => Finding::wrong(
                Concern::Stops,
                Gravity::Failure,
                format!(
                    "{all} stop(s) are in force at this server, but not in the database, and {memory} of them in no file: \
                     those are lost if this server ends before the database takes changes"
                ),
            ),
        }
    }

    fn find(&self, number: u64) -> Option<WaitingStop> {
        self.lock().stops.iter().find(|waiting| waiting.number == number).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, WaitingStops> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
