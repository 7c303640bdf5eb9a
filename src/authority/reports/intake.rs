//! Many reports in one transaction: a thousand sidecars must not queue a thousand commits before a revoke.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::HeardReport;
use crate::authority::store::Store;
use crate::authority::watch::{Changed, Hints};
use crate::clock::wall_now;
use crate::protocol::DeviceId;

/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_millis(20);

/// How many go into one transaction: a revoke that comes meanwhile waits for one of these at most.
const CHUNK: usize = 100;

/// The most that wait. More are turned away, and come again.
const MOST: usize = 4_096;

/// How often what is old is forgotten, and how old that is.
const CLEANING: Duration = Duration::from_hours(1);
const OLD: Duration = Duration::from_hours(24 * 30);

/// Where reports wait to be kept.
#[derive(Debug, Default)]
pub(in crate::authority) struct Intake {
    // A std mutex: held for one push, never across an await.
    waiting: Mutex<Vec<Waiting>>,
    bell: Notify,
}

#[derive(Debug)]
struct Waiting {
    report: HeardReport,
    kept: oneshot::Sender<()>,
}

/// It was not kept: too many wait, or the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::authority) struct NotKept;

impl Intake {
    /// Keeps a report. When this returns with success, every replica and every later start sees it.
    pub(in crate::authority) async fn keep(&self, report: HeardReport) -> Result<(), NotKept> {
        let (kept, done) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= MOST {
                return Err(NotKept);
            }
            waiting.push(Waiting { report, kept });
        }
        self.bell.notify_one();
        done.await.map_err(|_| NotKept)
    }

    /// Keeps what comes, until `stop`.
    pub(in crate::authority) async fn work(self: Arc<Self>, store: Store, hints: Arc<Hints>, stop: CancellationToken) {
        let mut cleaning = tokio::time::interval(CLEANING);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.bell.notified() => {
                    tokio::time::sleep(GATHER).await;
                    self.keep_waiting(&store, &hints).await;
                }
                _ = cleaning.tick() => {
                    let before = wall_now().saturating_sub(OLD).unwrap_or(jiff::Timestamp::MIN);
                    if let Err(error) = store.forget_reports(before).await {
                        warn!(%error, "could not forget old reports; trying again later");
                    }
                }
            }
        }
        self.keep_waiting(&store, &hints).await;
    }

    async fn keep_waiting(&self, store: &Store, hints: &Hints) {
        let mut waiting = mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(CHUNK));
            let (reports, kept): (Vec<_>, Vec<_>) = waiting.into_iter().map(|one| (one.report, one.kept)).unzip();
            match store.save_reports(&reports).await {
                Ok(()) => {
                    for report in &reports {
                        let devices: Vec<DeviceId> = report.devices.iter().map(|(id, _)| id.clone()).collect();
                        hints.changed(report.org, Changed::Reports(&devices));
                    }
                    for kept in kept {
                        // Whoever hung up needs no answer.
                        let _ = kept.send(());
                    }
                }
                // Their senders are told by the drop of `kept`, and report again.
                Err(error) => warn!(%error, reports = reports.len(), "could not keep reports of sidecars"),
            }
            waiting = rest;
        }
    }
}
