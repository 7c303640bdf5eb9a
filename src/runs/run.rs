//! One supervised run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;

use crate::clock::BootTime;
use crate::protocol::local::Killer;
use crate::protocol::{Denial, DeviceId, RunId};
use crate::tree::{Identity, Process, Tree};

/// What the wrapper said, after every check and cap.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: RunId,
    pub(crate) device: DeviceId,
    pub(crate) name: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) uid: u32,
    pub(crate) containment: String,
    pub(crate) stop_signal: Signal,
    pub(crate) stop_grace: Duration,
    /// The tree, when the daemon can see and signal it; else the wrapper alone ends it.
    pub(crate) reach: Option<Reach>,
}

/// The tree as the daemon reaches it.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) leader: Process,
    pub(crate) wrapper: Process,
    pub(crate) tree: Tree,
}

/// What the stream must still tell the wrapper. Holds the newest of each, so a stream nobody reads costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) until: Option<BootTime>,
    pub(crate) stop: Option<StopNotice>,
}

/// A stop as the wrapper is told of it.
#[derive(Clone, Debug)]
pub(crate) struct StopNotice {
    pub(crate) denial: Denial,
    pub(crate) signalled: bool,
    pub(crate) kill_at: BootTime,
}

/// How far a run is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Its question is open; nothing has started.
    Asking,
    /// It lives on these leases, one for each device that rules it.
    Running { since: BootTime, leases: Vec<(DeviceId, BootTime)> },
    /// Its stop has begun. A stop is latched: nothing leads back.
    Stopping { started: BootTime, denial: Denial },
}

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) opened: Opened,
    phase: Mutex<Phase>,
    /// The record stays until both are true: the wrapper may still ask what became of its agent.
    stream_ended: AtomicBool,
    tree_ended: AtomicBool,
    outbox: watch::Sender<Outbox>,
}

impl Run {
    pub(crate) fn new(opened: Opened) -> Self {
        Self {
            opened,
            phase: Mutex::new(Phase::Asking),
            stream_ended: AtomicBool::new(false),
            tree_ended: AtomicBool::new(false),
            outbox: watch::channel(Outbox::default()).0,
        }
    }

    pub(crate) fn id(&self) -> RunId {
        self.opened.id
    }

    pub(crate) fn killer(&self) -> Killer {
        if self.opened.reach.is_some() { Killer::Daemon } else { Killer::Wrapper }
    }

    pub(crate) fn leader(&self) -> Option<Identity> {
        self.opened.reach.as_ref().map(|reach| reach.leader.identity())
    }

    pub(crate) fn wrapper(&self) -> Option<Identity> {
        self.opened.reach.as_ref().map(|reach| reach.wrapper.identity())
    }

    /// What is to be told, from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Outbox> {
        self.outbox.subscribe()
    }

    pub(crate) fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The question was answered with yes: the run lives on these leases.
    pub(crate) fn admit(&self, now: BootTime, leases: Vec<(DeviceId, BootTime)>) {
        *self.phase() = Phase::Running { since: now, leases };
    }

    /// A device's lease moved. Tells the wrapper when that moves the run's deadline.
    pub(crate) fn lease_moved(&self, device: &DeviceId, until: BootTime) {
        let mut phase = self.phase();
        let Phase::Running { leases, .. } = &mut *phase else { return };
        let before = deadline(leases);
        leases.iter_mut().filter(|(ruling, _)| ruling == device).for_each(|(_, held)| *held = (*held).max(until));
        let after = deadline(leases);
        if after != before {
            self.outbox.send_modify(|outbox| outbox.until = after);
        }
    }

    /// The end of the lease it runs on, while it runs.
    pub(crate) fn deadline(&self) -> Option<BootTime> {
        match &*self.phase() {
            Phase::Running { leases, .. } => deadline(leases),
            Phase::Asking | Phase::Stopping { .. } => None,
        }
    }

    /// Whether this device rules the run.
    pub(crate) fn is_ruled_by(&self, device: &DeviceId) -> bool {
        match &*self.phase() {
            Phase::Running { leases, .. } => leases.iter().any(|(ruling, _)| ruling == device),
            Phase::Asking | Phase::Stopping { .. } => false,
        }
    }

    /// Begins the stop. `false` when it has begun already, or nothing runs yet.
    pub(crate) fn begin_stop(&self, denial: &Denial) -> bool {
        let mut phase = self.phase();
        let Phase::Running { since, .. } = &*phase else { return false };
        *phase = Phase::Stopping { started: *since, denial: denial.clone() };
        true
    }

    /// Notes that the wrapper's connection is gone. Whether the tree ended before it.
    pub(crate) fn note_stream_end(&self) -> bool {
        self.stream_ended.store(true, Ordering::SeqCst);
        self.tree_ended.load(Ordering::SeqCst)
    }

    /// Notes that nothing is left of the tree. Whether the wrapper's connection ended before it.
    pub(crate) fn note_tree_end(&self) -> bool {
        self.tree_ended.store(true, Ordering::SeqCst);
        self.stream_ended.load(Ordering::SeqCst)
    }

    /// The stop, once it has begun.
    pub(crate) fn stop(&self) -> Option<Denial> {
        match &*self.phase() {
            Phase::Stopping { denial, .. } => Some(denial.clone()),
            Phase::Asking | Phase::Running { .. } => None,
        }
    }

    /// Tells the wrapper of the stop.
    pub(crate) fn notify_stop(&self, notice: StopNotice) {
        self.outbox.send_modify(|outbox| outbox.stop = Some(notice));
    }
}

/// When the run must stop: at the end of the shortest lease.
pub(crate) fn deadline(leases: &[(DeviceId, BootTime)]) -> Option<BootTime> {
    leases.iter().map(|(_, until)| *until).min()
}
