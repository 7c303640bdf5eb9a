//! The ledger: records of the runs on disk, so that a restarted daemon knows them.
//!
//! [`run_record`] is one record and its format, [`store`] the directory; this file is the thread that writes. The thread is
//! told *that* a run has changed and writes its state at that time: many changes during one write become one. Only the answer
//! to a start waits for the disk, and only for a bounded time, since the disk may be full or hang. When a run cannot be
//! recorded in time, that is reported and the start continues. The price is that a later daemon cannot adopt this run; its
//! wrapper and guardian enforce the lease without a record. Refusing the start was rejected: a full disk would stop all work,
//! and no stop would become more reliable.

mod run_record;
mod store;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::oneshot;
use tracing::{error, info};

pub(crate) use run_record::fuzz as fuzz_record;
pub(crate) use run_record::{BegunStop, Here, RunRecord};
pub(crate) use store::Store;

use machineid_log::Vital;
use machineid_protocol::RunId;

use super::run::Run;

/// Time that a start waits for its record.
const PATIENCE: Duration = Duration::from_secs(1);

/// A handle to the thread. The thread ends with the last handle.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    door: Arc<Door>,
}

/// Closes the queue when the last handle goes.
#[derive(Debug)]
struct Door(Arc<Queue>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.bell.notify_all();
    }
}

/// The work of the thread: at most one item per run, however long the disk hangs.
#[derive(Debug, Default)]
struct Queue {
    pending: Mutex<Pending>,
    bell: Condvar,
    /// Set when a start has waited too long. Later starts do not wait until the thread has made progress.
    hangs: AtomicBool,
    /// Why the newest attempt to write failed.
    failure: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Pending {
    due: BTreeMap<RunId, Due>,
    closed: bool,
}

/// The work for one run, and the tasks that wait for it.
#[derive(Debug, Default)]
struct Due {
    /// The run to record; `None` to remove its record.
    run: Option<Arc<Run>>,
    /// Receivers of whether the record was written.
    waiting: Vec<oneshot::Sender<bool>>,
}

impl Ledger {
    /// Starts the thread. Fails when it cannot be started.
    pub(crate) fn start(store: Store) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let inbox = Arc::clone(&queue);
        thread::Builder::new().name("ledger".to_owned()).spawn(move || work(&inbox, &store))?;
        Ok(Self { door: Arc::new(Door(queue)) })
    }

    /// Records the run. The future completes when that is done, has failed, or takes too long, and yields whether it was
    /// done.
    pub(crate) fn write(&self, run: &Arc<Run>) -> impl Future<Output = bool> + use<> {
        let (done, written) = oneshot::channel();
        let queue = Arc::clone(&self.door.0);
        queue.note(run, Some(done));
        async move {
            if queue.hangs.load(Ordering::SeqCst) {
                return false;
            }
            if let Ok(written) = tokio::time::timeout(PATIENCE, written).await {
                return written.unwrap_or(false);
            }
            queue.has_been_waited_for();
            false
        }
    }

    /// Notes that the run has changed; returns at once.
    pub(crate) fn changed(&self, run: &Arc<Run>) {
        self.door.0.note(run, None);
    }

    /// Notes that nothing of the run is left; returns at once.
    pub(crate) fn over(&self, id: RunId) {
        self.door.0.lock().due.entry(id).or_default().run = None;
        self.door.0.bell.notify_one();
    }

    /// The reason why runs are not recorded at present, for people.
    pub(crate) fn problem(&self) -> Option<String> {
        let queue = &self.door.0;
        if queue.hangs.load(Ordering::SeqCst) {
            return Some("the disk of local.runtime_dir hangs: agents start without a record".to_owned());
        }
        let failure = queue.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|error| format!("cannot record runs in local.runtime_dir: {error}"))
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, run: &Arc<Run>, waiting: Option<oneshot::Sender<bool>>) {
        let mut pending = self.lock();
        // A run whose end was noted before must stay removed.
        if run.is_over() {
            return;
        }
        let due = pending.due.entry(run.id()).or_default();
        due.run = Some(Arc::clone(run));
        due.waiting.extend(waiting);
        drop(pending);
        self.bell.notify_one();
    }

    /// The next work; `None` when the last handle is gone.
    fn next(&self) -> Option<BTreeMap<RunId, Due>> {
        let idle = |pending: &mut Pending| pending.due.is_empty() && !pending.closed;
        let mut pending = self.bell.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let due = std::mem::take(&mut pending.due);
        (!due.is_empty()).then_some(due)
    }

    fn has_been_waited_for(&self) {
        if !self.hangs.swap(true, Ordering::SeqCst) {
            error!(
                waited = machineid_protocol::span::format(PATIENCE),
                "the disk of local.runtime_dir hangs: a run could not be recorded in time; agents start without their \
                 record until it answers, and a daemon that restarts meanwhile will not know them"
            );
        }
    }

    fn has_answered(&self) {
        if self.hangs.swap(false, Ordering::SeqCst) {
            info!("the disk of local.runtime_dir answers again: runs are recorded");
        }
    }
}

fn work(queue: &Queue, store: &Store) {
    let _vital = Vital;
    while let Some(due) = queue.next() {
        for (id, due) in due {
            // A run that has ended meanwhile is not recorded; the order to remove it is on its way.
            let record = due.run.as_ref().map(|run| run.record());
            let result = match &record {
                Some(Some(record)) => store.write(record),
                Some(None) => Ok(()),
                None => store.remove(id),
            };
            queue.has_answered();
            let mut failure = queue.failure.lock().unwrap_or_else(PoisonError::into_inner);
            match &result {
                // A successful removal proves nothing about a full disk.
                Ok(()) if matches!(record, Some(Some(_))) && failure.take().is_some() => {
                    info!("runs are recorded again");
                }
                Err(error) if failure.replace(error.to_string()).is_none() => {
                    error!(
                        run_id = %id, %error,
                        "cannot record a run in local.runtime_dir; enforcement continues, but a daemon that restarts \
                         will not know this run"
                    );
                }
                Ok(()) | Err(_) => {}
            }
            drop(failure);
            for waiting in due.waiting {
                // The waiting task may have been dropped.
                let _ = waiting.send(result.is_ok());
            }
        }
    }
}
