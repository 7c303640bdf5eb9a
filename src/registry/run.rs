//! One supervised run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::event::{AgentName, Caller};
use machineid_protocol::local::Killer;
use machineid_protocol::{Code, Denial, DeviceId, RequestId, RunId};
use machineid_tree::{Identity, Tree};
use rustix::process::Signal;
use tokio::sync::watch;

use super::containment::RunContainment;
use super::freeze::Undecided;
use super::ledger::{BegunStop, RunRecord};
use super::reach::Reach;
use super::token::TokenHash;
use crate::config::StopTerms;
use crate::gate::Deciding;

/// What the wrapper said, after every check and cap.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: RunId,
    pub(crate) device: DeviceId,
    pub(crate) name: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) uid: u32,
    /// What the wrapper asked for, or what was written down for it.
    pub(crate) asked: AskedTerms,
    /// The tree, when the daemon can see and signal it; else the wrapper alone ends it.
    pub(crate) reach: Option<Reach>,
}

/// How the wrapper wants its agent to be stopped; what it leaves open is the configuration's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AskedTerms {
    pub(crate) signal: Option<Signal>,
    pub(crate) grace: Option<Duration>,
}

impl AskedTerms {
    /// With what the configuration says. A client can make a stop quicker, never slower.
    pub(crate) fn under(self, configured: StopTerms) -> StopTerms {
        StopTerms {
            signal: self.signal.unwrap_or(configured.signal),
            grace: self.grace.map_or(configured.grace, |asked| asked.min(configured.grace)),
        }
    }
}

/// What the stream must still tell the wrapper. Holds the newest of each, so an unread stream costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) until: Option<BootTime>,
    /// How often the terms of its stop and of its lease have changed: they are told anew.
    pub(crate) terms: u64,
    /// Why one of its devices cannot be asked about.
    pub(crate) undecided: Option<Arc<str>>,
    pub(crate) stop: Option<StopNotice>,
}

/// A stop as the wrapper is told of it.
#[derive(Clone, Debug)]
pub(crate) struct StopNotice {
    pub(crate) denial: Denial,
    pub(crate) signalled: bool,
    pub(crate) kill_at: BootTime,
}

/// What a run started on.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) since: BootTime,
    /// The ALLOW's code and name.
    pub(crate) code: Code,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) containment: RunContainment,
    /// What its agent shows at the daemon's own listener, when there is one.
    pub(crate) token: Option<TokenHash>,
}

/// Where a run's deadline moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    Later,
    /// A reload made leases shorter, or the daemon before us gave longer ones.
    Earlier,
}

/// How far a run is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Its question is open; nothing has started.
    Asking,
    /// It lives on these leases, one for each device that rules it.
    Running { leases: Vec<(DeviceId, BootTime)>, undecided: Undecided },
    /// Its stop has begun. A stop is latched: nothing leads back.
    Stopping { stop: BegunStop, leases: Vec<(DeviceId, BootTime)> },
}

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) opened: Opened,
    /// The gates that decide about it, kept running as long as it is recorded.
    deciding: OnceLock<Arc<Deciding>>,
    admission: OnceLock<Admission>,
    phase: Mutex<Phase>,
    terms: Mutex<StopTerms>,
    /// Who on this host asked for its stop.
    stopper: OnceLock<Caller>,
    /// Connections of its wrapper. One that comes back may be there before the old one is known to be gone.
    streams: AtomicUsize,
    /// The record stays until both are true: the wrapper may still ask what became of its agent.
    wrapper_left: AtomicBool,
    tree_ended: AtomicBool,
    /// Whether its leaf is frozen, as far as we froze it.
    frozen: AtomicBool,
    outbox: watch::Sender<Outbox>,
}

impl Run {
    /// One whose question is open, under these terms of the configuration.
    pub(crate) fn new(opened: Opened, configured: StopTerms) -> Self {
        Self {
            terms: Mutex::new(opened.asked.under(configured)),
            opened,
            deciding: OnceLock::new(),
            admission: OnceLock::new(),
            phase: Mutex::new(Phase::Asking),
            stopper: OnceLock::new(),
            streams: AtomicUsize::new(0),
            wrapper_left: AtomicBool::new(false),
            tree_ended: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            outbox: watch::channel(Outbox::default()).0,
        }
    }

    pub(crate) fn id(&self) -> RunId {
        self.opened.id
    }

    /// The run as events name it.
    pub(crate) fn as_named(&self) -> AgentName {
        let opened = &self.opened;
        AgentName {
            run_id: opened.id,
            device_id: opened.device.clone(),
            name: opened.name.clone(),
            pid: self.leader().and_then(|leader| u32::try_from(leader.pid.as_raw()).ok()),
            uid: opened.uid,
        }
    }

    /// How it is stopped from now on.
    pub(crate) fn terms(&self) -> StopTerms {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration changed: a later stop is under its terms, and the wrapper is told of them.
    pub(crate) fn set_configured_terms(&self, configured: StopTerms) {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = self.opened.asked.under(configured);
        self.outbox.send_modify(|outbox| outbox.terms += 1);
    }

    pub(crate) fn killer(&self) -> Killer {
        if self.opened.reach.is_some() { Killer::Daemon } else { Killer::Wrapper }
    }

    pub(crate) fn leader(&self) -> Option<Identity> {
        self.opened.reach.as_ref().map(|reach| reach.leader.identity)
    }

    pub(crate) fn wrapper(&self) -> Option<Identity> {
        self.opened.reach.as_ref().map(|reach| reach.wrapper.identity)
    }

    /// What it started on, once it has.
    pub(crate) fn admission(&self) -> Option<&Admission> {
        self.admission.get()
    }

    /// The gates that decide about it; `None` only for a moment after a start of the daemon.
    pub(crate) fn deciding(&self) -> Option<&Deciding> {
        self.deciding.get().map(AsRef::as_ref)
    }

    /// Keeps its gates running as long as it is recorded.
    pub(crate) fn keep_gates(&self, deciding: Arc<Deciding>) {
        // Set once, when it is opened or adopted.
        let _ = self.deciding.set(deciding);
    }

    /// The tree to end, where the daemon reaches it. `shares_wrapper`: the wrapper's children are not all this run's.
    pub(crate) fn tree(&self, shares_wrapper: bool) -> Option<Tree> {
        let tree = self.opened.reach.as_ref()?.tree(self.id(), shares_wrapper);
        Some(match self.admission().and_then(|admission| admission.containment.leaf.as_ref()) {
            Some(leaf) => tree.in_leaf(Arc::clone(leaf)),
            None => tree,
        })
    }

    /// What is to be told, from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Outbox> {
        self.outbox.subscribe()
    }

    pub(crate) fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The question was answered with yes, or had been before the daemon was restarted: the run lives on these leases.
    pub(crate) fn admit(&self, admission: Admission, leases: Vec<(DeviceId, BootTime)>, undecided: Undecided) {
        let mut phase = self.phase();
        // Set once, when it is opened or adopted.
        let _ = self.admission.set(admission);
        self.tell_cause(&undecided);
        *phase = Phase::Running { leases, undecided };
    }

    /// A stop that was under way before the daemon was restarted.
    pub(crate) fn adopt_stop(&self, stop: BegunStop) {
        let mut phase = self.phase();
        let Phase::Running { leases, .. } = &mut *phase else { return };
        let leases = std::mem::take(leases);
        *phase = Phase::Stopping { stop, leases };
    }

    /// A device's lease moved. Tells the wrapper when that moves the run's deadline, and says where to, if it did.
    pub(crate) fn lease_moved(&self, device: &DeviceId, until: BootTime) -> Option<Moved> {
        let mut phase = self.phase();
        let Phase::Running { leases, undecided } = &mut *phase else { return None };
        let before = deadline(leases);
        leases.iter_mut().filter(|(ruling, _)| ruling == device).for_each(|(_, held)| *held = until);
        let after = deadline(leases);
        undecided.lease_moved(after);
        if after == before {
            return None;
        }
        self.outbox.send_modify(|outbox| outbox.until = after);
        Some(if after > before { Moved::Later } else { Moved::Earlier })
    }

    /// Tells what keeps it undecided, while it runs; its wrapper is told why.
    pub(crate) fn reconsider(&self, tell: impl FnOnce(&mut Undecided)) {
        if let Phase::Running { undecided, .. } = &mut *self.phase() {
            tell(undecided);
            self.tell_cause(undecided);
        }
    }

    fn tell_cause(&self, undecided: &Undecided) {
        self.outbox.send_if_modified(|outbox| {
            let changed = outbox.undecided.as_ref() != undecided.cause();
            if changed {
                outbox.undecided = undecided.cause().cloned();
            }
            changed
        });
    }

    /// The machine has slept. Gives the run this much time from now for an ALLOW when its lease ended meanwhile, and says
    /// whether it did.
    pub(crate) fn overslept(&self, now: BootTime, grace: Duration) -> bool {
        let mut phase = self.phase();
        let Phase::Running { leases, undecided } = &mut *phase else { return false };
        let over = deadline(leases).is_none_or(|until| until <= now);
        if over {
            undecided.overslept(now, now + grace);
        }
        over
    }

    /// Whether it is to be frozen. `while_unavailable`: also while a device cannot be asked about.
    pub(crate) fn freezes(&self, while_unavailable: bool) -> bool {
        matches!(&*self.phase(), Phase::Running { undecided, .. } if undecided.freezes(while_unavailable))
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    pub(crate) fn note_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    /// When it is stopped if nothing happens, while it runs: at the end of the lease it runs on, or of the grace for one that
    /// ended while the machine slept.
    pub(crate) fn deadline(&self) -> Option<BootTime> {
        match &*self.phase() {
            Phase::Running { leases, undecided } => deadline(leases).max(undecided.grace_until()),
            Phase::Asking | Phase::Stopping { .. } => None,
        }
    }

    /// The reason for its stop at this moment, when its lease is over.
    pub(crate) fn expired(&self, now: BootTime) -> Option<Denial> {
        let phase = self.phase();
        let Phase::Running { leases, undecided } = &*phase else { return None };
        if deadline(leases).max(undecided.grace_until()).is_some_and(|until| now < until) {
            return None;
        }
        let cause = undecided.cause().map_or("no validation was answered within the lease", |cause| cause);
        Some(Denial::local(Code::LeaseExpired, format!("the lease ended with no new ALLOW: {cause}")))
    }

    /// Whether this device rules the run.
    pub(crate) fn is_ruled_by(&self, device: &DeviceId) -> bool {
        match &*self.phase() {
            Phase::Running { leases, .. } => leases.iter().any(|(ruling, _)| ruling == device),
            Phase::Asking | Phase::Stopping { .. } => false,
        }
    }

    /// Tells each device that rules the run.
    pub(super) fn each_ruling(&self, mut tell: impl FnMut(&DeviceId)) {
        if let Phase::Running { leases, .. } = &*self.phase() {
            for (ruling, _) in leases {
                tell(ruling);
            }
        }
    }

    /// Whether it is being stopped, and the devices that rule or ruled it; `None` unless it was allowed to start and
    /// something of it may be left.
    pub(super) fn living(&self) -> Option<(bool, Vec<DeviceId>)> {
        let phase = self.phase();
        let (stopping, leases) = match &*phase {
            Phase::Running { leases, .. } => (false, leases),
            Phase::Stopping { leases, .. } if !self.has_tree_ended() => (true, leases),
            Phase::Asking | Phase::Stopping { .. } => return None,
        };
        Some((stopping, leases.iter().map(|(device, _)| device.clone()).collect()))
    }

    /// Begins the stop. `false` when it has begun already, or nothing runs yet.
    pub(crate) fn begin_stop(&self, now: BootTime, denial: &Denial) -> bool {
        let mut phase = self.phase();
        let Phase::Running { leases, .. } = &mut *phase else { return false };
        let stop = BegunStop { denial: denial.clone(), began: now, kill_at: now + self.terms().grace };
        let leases = std::mem::take(leases);
        *phase = Phase::Stopping { stop, leases };
        true
    }

    /// The stop, once it has begun.
    pub(crate) fn stop(&self) -> Option<BegunStop> {
        match &*self.phase() {
            Phase::Stopping { stop, .. } => Some(stop.clone()),
            Phase::Asking | Phase::Running { .. } => None,
        }
    }

    /// Notes who on this host asked for the stop that has begun.
    pub(crate) fn note_stopper(&self, caller: &Caller) {
        // The first one began it.
        let _ = self.stopper.set(caller.clone());
    }

    /// Who on this host asked for its stop.
    pub(crate) fn stopper(&self) -> Option<&Caller> {
        self.stopper.get()
    }

    /// Tells the wrapper of the stop.
    pub(crate) fn notify_stop(&self, notice: StopNotice) {
        self.outbox.send_modify(|outbox| outbox.stop = Some(notice));
    }

    /// A connection of the wrapper begins.
    pub(crate) fn note_stream(&self) {
        self.streams.fetch_add(1, Ordering::SeqCst);
    }

    /// A connection of the wrapper ended. Whether it was the last.
    pub(crate) fn note_stream_end(&self) -> bool {
        self.streams.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Whether its wrapper is expected to come back: after a restart of the daemon.
    pub(crate) fn awaits_wrapper(&self) -> bool {
        self.streams.load(Ordering::SeqCst) == 0
            && !self.wrapper_left.load(Ordering::SeqCst)
            && self.admission().is_some()
    }

    /// Notes that the wrapper is done, or dead. Whether the tree ended before it.
    pub(crate) fn note_wrapper_left(&self) -> bool {
        self.wrapper_left.store(true, Ordering::SeqCst);
        self.tree_ended.load(Ordering::SeqCst)
    }

    /// Notes that nothing is left of the tree. Whether the wrapper left before it.
    pub(crate) fn note_tree_end(&self) -> bool {
        self.tree_ended.store(true, Ordering::SeqCst);
        self.wrapper_left.load(Ordering::SeqCst)
    }

    /// Whether nothing of the tree is left.
    pub(crate) fn has_tree_ended(&self) -> bool {
        self.tree_ended.load(Ordering::SeqCst)
    }

    /// Whether nothing of it is left, tree and wrapper.
    pub(crate) fn is_over(&self) -> bool {
        self.wrapper_left.load(Ordering::SeqCst) && self.has_tree_ended()
    }

    /// The run as it is to be written down; `None` when it need not be: nothing has started, nothing is left, or only its
    /// wrapper can end it, which then holds the lease by itself.
    pub(crate) fn record(&self) -> Option<RunRecord> {
        let (reach, admission) = (self.opened.reach.as_ref()?, self.admission()?);
        let (leases, stop) = match &*self.phase() {
            Phase::Asking => return None,
            Phase::Running { leases, .. } => (leases.clone(), None),
            Phase::Stopping { stop, leases } => (leases.clone(), Some(stop.clone())),
        };
        let opened = &self.opened;
        (!self.is_over()).then(|| RunRecord {
            id: opened.id,
            device: opened.device.clone(),
            name: opened.name.clone(),
            command: opened.command.clone(),
            uid: opened.uid,
            wrapper: reach.wrapper.identity,
            guardian: reach.guardian(),
            leader: reach.leader.identity,
            alone: reach.is_alone(),
            containment: admission.containment.kind,
            leaf: admission.containment.leaf.as_ref().map(|leaf| leaf.path().to_owned()),
            stop_signal: self.terms().signal,
            stop_grace: self.terms().grace,
            token: admission.token,
            code: admission.code.clone(),
            request_id: admission.request_id.clone(),
            started: admission.since,
            leases,
            stop,
        })
    }
}

/// When the run must stop: at the end of the shortest lease.
pub(crate) fn deadline(leases: &[(DeviceId, BootTime)]) -> Option<BootTime> {
    leases.iter().map(|(_, until)| *until).min()
}
