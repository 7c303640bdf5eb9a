//! The audit file: who was allowed, started, stopped, and when, in a chain in which every change shows
//! (`machineid_audit` makes and verifies its lines).
//!
//! | file | concept |
//! |---|---|
//! | `file` | the file, opened, gone on with, appended to |
//! | `writer` | the thread that writes |

pub(crate) mod file;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use prometheus_client::metrics::counter::Counter;

use machineid_audit::chain::Hash;
use machineid_protocol::event::{Caller, Happening};
use machineid_protocol::status::AuditStatus;
use writer::Writer;

/// Records that wait for the disk at most: two for each of a few thousand agents.
const WAITING: usize = 8192;
/// How long an ending daemon waits for its last records.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A handle to the thread that writes.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    orders: SyncSender<WriterOrder>,
    shared: Arc<Shared>,
    path: PathBuf,
}

/// One record, as it is told.
#[derive(Debug)]
pub(super) struct QueuedRecord {
    pub(super) time: String,
    pub(super) what: Happening,
    pub(super) caller: Option<Caller>,
}

#[derive(Debug)]
enum WriterOrder {
    Record(Box<QueuedRecord>),
    /// Look for the file at its path again.
    Reopen,
    /// Everything before it is on the disk, or was tried.
    Flush(SyncSender<()>),
}

/// What the thread and everybody else know.
#[derive(Debug)]
struct Shared {
    /// Records that were lost and of which the file does not say so yet.
    undeclared: AtomicU64,
    dropped: Counter,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Hash>,
    problem: Option<String>,
}

impl Audit {
    /// Starts the thread, which opens the file. `dropped` counts what is lost. Fails when no thread is to be had; a file
    /// that cannot be written is no failure, but reported.
    pub(crate) fn start(path: PathBuf, dropped: Counter) -> io::Result<Self> {
        let (orders, inbox) = sync_channel(WAITING);
        let shared = Arc::new(Shared { undeclared: AtomicU64::new(0), dropped, state: Mutex::default() });
        let (of_writer, at) = (Arc::clone(&shared), path.clone());
        // Another writer opens the file as a later daemon does.
        let work =
            move || machineid_log::keep_up("audit", || Writer::new(at.clone(), Arc::clone(&of_writer)).work(&inbox));
        thread::Builder::new().name("audit".to_owned()).spawn(work)?;
        Ok(Self { orders, shared, path })
    }

    /// Queues a record; returns at once. With a full queue it is lost, and counted.
    pub(super) fn tell(&self, record: QueuedRecord) {
        if self.orders.try_send(WriterOrder::Record(Box::new(record))).is_err() {
            self.shared.lose(1);
        }
    }

    /// Has the file looked for again; returns at once.
    pub(crate) fn reopen(&self) {
        // A full queue has records in it, and each looks whether the file is in its place.
        let _ = self.orders.try_send(WriterOrder::Reopen);
    }

    /// Waits a moment for the records that are still queued. For the end of the process.
    pub(crate) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.orders.try_send(WriterOrder::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(LAST_WORDS);
        }
    }

    pub(crate) fn status(&self) -> AuditStatus {
        let state = self.shared.state();
        AuditStatus {
            file: self.path.display().to_string(),
            last_hash: state.last.map(|hash| hash.to_string()),
            dropped: self.shared.dropped.get(),
            problem: state.problem.clone(),
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, records: u64) {
        self.undeclared.fetch_add(records, Ordering::SeqCst);
        self.dropped.inc_by(records);
    }

    fn undeclared(&self) -> u64 {
        self.undeclared.load(Ordering::SeqCst)
    }

    fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// Notes what is wrong, or that nothing is any more. Whether that is news.
    fn set_problem(&self, problem: Option<String>) -> bool {
        let mut state = self.state();
        let news = state.problem.is_none() != problem.is_none();
        state.problem = problem;
        news
    }

    fn set_last(&self, last: Option<Hash>) {
        self.state().last = last;
    }
}
