//! The enforcer: the thread that ends process trees.
//!
//! The thread is started with the daemon: between a deny and the last SIGKILL no thread has to be started, and neither a
//! stalled runtime nor a slow request delays a stop. The enforcer watches by itself when leases end, and whether a wrapper
//! that has not reconnected since the daemon's start is still alive. It looks at each tree separately, at a cost that depends
//! on the size of that tree; one read of the process table serves all trees that have lost a supervisor. It does no work
//! whose duration an agent controls.
//!
//! | file | concept |
//! |---|---|
//! | `bell` | waking the thread, and waiting for a point on the boot clock |
//! | `end_watch` | the kernel reports which trees have ended |
//! | `tidy` | removing control groups, on a thread of its own |
//! | `under_way` | one stop: its signals, its looks, its result |
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

pub(super) use under_way::{LEADER_GONE, WRAPPER_GONE};

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

/// An order to end one tree.
#[derive(Debug)]
pub(crate) struct TreeToEnd {
    pub(crate) run: Arc<Run>,
    pub(crate) signal_by: SignalBy,
    pub(crate) reason: EndReason,
}

/// The process that sends the stop signal. One side sends it, so that no process gets it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalBy {
    /// The enforcer sends it.
    Us,
    /// The wrapper sends it; the enforcer does when the wrapper is dead or stopped.
    Wrapper,
    /// It was sent already: by a previous daemon, or by the guardian, which found no daemon.
    Earlier,
}

/// Why a tree ends.
#[derive(Clone, Debug)]
pub(crate) enum EndReason {
    /// A decision, or the end of the lease; the wrapper is told.
    Denied(Denial),
    /// The wrapper has ended; what is left of its tree is ended as well.
    WrapperGone,
    /// The first process of an adopted tree has ended; what is left of the tree is ended as well.
    LeaderGone,
}

#[derive(Debug)]
enum EnforcerOrder {
    End(Vec<TreeToEnd>),
    /// Freeze or thaw this run, whichever its state now demands.
    ApplyFreeze(Arc<Run>),
    /// Look again at deadlines and awaited wrappers: one of them is new.
    Watch,
    /// Remove the leaf of a run that did not start, as soon as it is empty.
    Remove(Arc<Leaf>),
    /// Report the end of this turn.
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
    /// Starts the thread, which removes runs from the roster when nothing of them is left. Fails when no thread or descriptor
    /// is available.
    pub(crate) fn start(roster: Arc<Roster>, ledger: Ledger, live: Live) -> io::Result<Self> {
        tree::prepare_to_read()?;
        let inbox = Arc::new(Inbox { orders: Mutex::default(), bell: Bell::new()? });
        let (tidy, end_watch) = (Tidy::start(live.clone())?, EndWatch::new()?);
        let worker = work::Worker::new(Arc::clone(&inbox), roster, ledger, live, (tidy, end_watch), Moment::now());
        thread::Builder::new().name("enforcer".to_owned()).spawn(move || worker.work())?;
        Ok(Self { inbox })
    }

    /// Ends these trees; returns at once.
    pub(crate) fn end(&self, to_end: Vec<TreeToEnd>) {
        if to_end.is_empty() {
            return;
        }
        self.order(EnforcerOrder::End(to_end));
    }

    /// Freezes or thaws a run, whichever its state now demands; returns at once.
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

    /// Returns when the thread has completed a turn; never returns if the thread hangs.
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
