//! The intake of reports: stores many in one transaction, since a thousand sidecars must not queue a thousand commits before a revoke. The
//! size of a transaction is limited, since a revoke waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::org::OrgId;
use super::repeated::rarely;
use super::reports::HeardReport;
use super::store::Store;

/// How long the first report of a batch waits for others.
const GATHER: Duration = Duration::from_millis(20);

/// How many rows go into one transaction, except for a single report with more.
const TOGETHER: usize = 1_000;

/// The maximum number of waiting rows, of all organisations and of one: no holder of a key can exhaust the memory or
/// fill the whole queue. Reports beyond it are refused, and are sent again.
const MOST: usize = 64 * 1024;
const MOST_OF_ONE: usize = MOST / 2;

/// The queue of reports to be stored.
#[derive(Debug, Default)]
pub(super) struct Intake {
    // A std mutex: held for one push or pop, never across an await.
    queue: Mutex<Queue>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<WaitingReport>,
    /// The number of waiting rows, by organisation and in total.
    rows: HashMap<OrgId, usize>,
    all: usize,
}

#[derive(Debug)]
struct WaitingReport {
    report: HeardReport,
    kept: oneshot::Sender<()>,
}

/// The report was not stored: too many wait, or the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotKept;

impl Intake {
    /// Stores a report. When this succeeds, every replica sees the report, also after a restart.
    pub(super) async fn keep(&self, report: HeardReport) -> Result<(), NotKept> {
        let (kept, done) = oneshot::channel();
        if !self.lock().push(WaitingReport { report, kept }) {
            return Err(NotKept);
        }
        self.bell.notify_one();
        done.await.map_err(|_| NotKept)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the queued reports, until `stop`.
    pub(super) async fn work(self: Arc<Self>, store: Store, stop: CancellationToken) {
        while stop.run_until_cancelled(self.bell.notified()).await.is_some() {
            tokio::time::sleep(GATHER).await;
            self.keep_waiting(&store).await;
        }
        self.keep_waiting(&store).await;
    }

    async fn keep_waiting(&self, store: &Store) {
        loop {
            let taken = self.lock().take();
            if taken.is_empty() {
                return;
            }
            let (reports, kept): (Vec<_>, Vec<_>) = taken.into_iter().map(|one| (one.report, one.kept)).unzip();
            match store.save_reports(reports).await {
                Ok(()) => {
                    for kept in kept {
                        // A client that hung up needs no answer.
                        let _ = kept.send(());
                    }
                }
                // The drop of `kept` fails their requests, and the sidecars report again.
                Err(error) => rarely!(warn, %error, reports = kept.len(), "could not store the reports of sidecars"),
            }
        }
    }
}

impl Queue {
    /// Adds a report; `false` when there is no room.
    fn push(&mut self, one: WaitingReport) -> bool {
        let rows = one.report.rows();
        let of_org = self.rows.entry(one.report.org).or_default();
        if *of_org + rows > MOST_OF_ONE || self.all + rows > MOST {
            if *of_org == 0 {
                self.rows.remove(&one.report.org);
            }
            return false;
        }
        *of_org += rows;
        self.all += rows;
        self.waiting.push_back(one);
        true
    }

    /// Takes the reports of the next transaction.
    fn take(&mut self) -> Vec<WaitingReport> {
        let (mut taken, mut rows) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            rows += next.report.rows();
            if rows > TOGETHER && !taken.is_empty() {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            self.all -= next.report.rows();
            if let Some(of_org) = self.rows.get_mut(&next.report.org) {
                *of_org -= next.report.rows();
                if *of_org == 0 {
                    self.rows.remove(&next.report.org);
                }
            }
            taken.push(next);
        }
        taken
    }
}
