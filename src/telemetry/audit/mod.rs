//! The audit file: which device was allowed, which agent started and stopped, and when, as a chain in which every change is
//! detectable (`machineid_audit` makes and verifies its lines).
//!
//! | file | concept |
//! |---|---|
//! | `file` | opening, continuing and appending to the file |
//! | `key` | reading the key of the chain |
//! | `writer` | the thread that writes |

pub(crate) mod file;
pub(crate) mod key;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use prometheus_client::metrics::counter::Counter;

use machineid_audit::chain::Hash;
use machineid_audit::key::Chain;
use machineid_protocol::event::{Caller, Happening};
use machineid_protocol::status::AuditStatus;
use writer::Writer;

/// The most records that wait for the disk: two for each of a few thousand agents.
const WAITING: usize = 8192;
/// How long the daemon, when it ends, waits for its last records.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A handle to the thread that writes.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    orders: SyncSender<WriterOrder>,
    shared: Arc<Shared>,
    path: PathBuf,
    keyed: bool,
}

/// A record on its way to the file.
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
    /// Reply when everything before this is on disk, or has failed.
    Flush(SyncSender<()>),
}

/// The state that the thread shares with its handles.
#[derive(Debug)]
struct Shared {
    /// The number of lost records that the file does not mention yet.
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
    /// Starts the thread, which opens the file. `dropped` counts lost records. Fails when no thread can be started; a file
    /// that cannot be written is not a failure, but reported.
    pub(crate) fn start(path: PathBuf, chain: Chain, dropped: Counter) -> io::Result<Self> {
        let (orders, inbox) = sync_channel(WAITING);
        let shared = Arc::new(Shared { undeclared: AtomicU64::new(0), dropped, state: Mutex::default() });
        let (of_writer, at, keyed) = (Arc::clone(&shared), path.clone(), chain.is_keyed());
        // After a panic, another writer opens the file as a later daemon would.
        let work = move || {
            machineid_log::keep_up("audit", || {
                Writer::new(at.clone(), chain.clone(), Arc::clone(&of_writer)).work(&inbox);
            });
        };
        thread::Builder::new().name("audit".to_owned()).spawn(work)?;
        Ok(Self { orders, shared, path, keyed })
    }

    /// Queues a record; returns at once. If the queue is full, the record is lost and counted.
    pub(super) fn tell(&self, record: QueuedRecord) {
        if self.orders.try_send(WriterOrder::Record(Box::new(record))).is_err() {
            self.shared.lose(1);
        }
    }

    /// Makes the thread open the file again; returns at once.
    pub(crate) fn reopen(&self) {
        // A full queue contains records, and each makes the thread check whether the file is in its place.
        let _ = self.orders.try_send(WriterOrder::Reopen);
    }

    /// Waits a moment for the queued records. For the end of the process.
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
            keyed: self.keyed,
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

    /// Notes a problem, or that there is none; returns whether that changed.
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
