//! The thread that ends trees.
//!
//! A thread of its own, started at boot: from a deny to the last SIGKILL no thread is started, and a stalled runtime or a
//! slow request holds no stop up. It watches the end of every run's lease by itself, and whether a wrapper that has not
//! come back since the daemon's start still lives. Each tree is looked at by itself, at the cost of what there is of it; one look
//! at `/proc` serves all those that have lost a supervisor. It does no work that an agent could make long.
//!
//! | file | concept |
//! |---|---|
//! | `bell` | waking the thread, and waiting for a point on the boot clock |
//! | `end_watch` | which trees have ended, as the kernel tells it |
//! | `tidy` | removing control groups, on a thread of its own |
//! | `under_way` | one stop: its signals, its looks, what it came to |
//! | `work` | the thread's loop |

mod bell;
mod end_watch;
mod tidy;
mod under_way;
mod work;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use bell::Bell;
use end_watch::EndWatch;
use machineid_clock::Moment;
use machineid_protocol::Denial;
use machineid_tree::{self as tree, Leaf};
use tidy::Tidy;
use tokio::sync::oneshot;

use super::ledger::Ledger;
use super::roster::Roster;
use super::run::Run;
use crate::config::Live;

/// A handle to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Enforcer {
    inbox: Arc<Inbox>,
}

/// One tree to end.
#[derive(Debug)]
pub(crate) struct TreeToEnd {
    pub(crate) run: Arc<Run>,
    pub(crate) signal_by: SignalBy,
    pub(crate) reason: Reason,
}

/// Who sends the stop signal: one side does, so that no process gets it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalBy {
    /// We do.
    Us,
    /// The wrapper does; we do when it is dead or stopped.
    Wrapper,
    /// It is done already: by a previous daemon, or by the guardian, which found none.
    Earlier,
}

/// Why a tree ends.
#[derive(Clone, Debug)]
pub(crate) enum Reason {
    /// By a decision, or the end of the lease; the wrapper is told.
    Denied(Denial),
    /// The wrapper is gone; what it left, if anything, goes too.
    WrapperGone,
}

#[derive(Debug)]
enum EnforcerOrder {
    End(Vec<TreeToEnd>),
    /// Freeze or thaw this run, as it now is to be.
    ApplyFreeze(Arc<Run>),
    /// There is a new deadline, or a wrapper to look after.
    Watch,
    /// A leaf of a run that did not start: remove it when it is empty.
    Remove(Arc<Leaf>),
    /// Say when this turn is over.
    Pulse(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Inbox {
    orders: Mutex<VecDeque<EnforcerOrder>>,
    bell: Bell,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Enforcer {
    /// Starts the thread, which takes runs out of the record when nothing of them is left. Fails when no thread or
    /// descriptor is available.
    pub(crate) fn start(roster: Arc<Roster>, ledger: Ledger, live: Live) -> io::Result<Self> {
        tree::prepare_to_read()?;
        let inbox = Arc::new(Inbox { orders: Mutex::default(), bell: Bell::new()? });
        let (tidy, end_watch) = (Tidy::start()?, EndWatch::new()?);
        let worker = work::Worker::new(Arc::clone(&inbox), roster, ledger, live, (tidy, end_watch), Moment::now());
        thread::Builder::new().name("enforcer".to_owned()).spawn(move || worker.work())?;
        Ok(Self { inbox })
    }

    /// Ends these trees; returns at once.
    pub(crate) fn end(&self, endings: Vec<TreeToEnd>) {
        if endings.is_empty() {
            return;
        }
        self.order(EnforcerOrder::End(endings));
    }

    /// Freezes or thaws a run as it now is to be; returns at once.
    pub(crate) fn apply_freeze(&self, run: &Arc<Run>) {
        self.order(EnforcerOrder::ApplyFreeze(Arc::clone(run)));
    }

    /// Watches the deadline of a run that was admitted, or the wrapper of one that was adopted.
    pub(crate) fn watch(&self) {
        self.order(EnforcerOrder::Watch);
    }

    /// Removes the leaf of a run that did not start, as soon as it is empty.
    pub(crate) fn remove(&self, leaf: Arc<Leaf>) {
        self.order(EnforcerOrder::Remove(leaf));
    }

    /// Returns when the thread has had its turn; a hung one never does.
    pub(crate) async fn pulse(&self) {
        let (turn, had) = oneshot::channel();
        self.order(EnforcerOrder::Pulse(turn));
        let _ = had.await;
    }

    fn order(&self, order: EnforcerOrder) {
        self.inbox.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        self.inbox.bell.ring();
    }
}
