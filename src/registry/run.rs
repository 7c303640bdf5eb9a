//! One supervised run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::event::{AgentEnd, AgentName, Caller};
use machineid_protocol::local::Killer;
use machineid_protocol::outside::OutsideHelper;
use machineid_protocol::{Code, Denial, DeviceId, RequestId, RunId};
use machineid_tree::{Identity, OomWatch, Pid, PidNamespaces, Tree, memory_of};
use rustix::process::Signal;
use tokio::sync::watch;

use super::containment::RunContainment;
use super::freeze::Undecided;
use super::ledger::{BegunStop, RunRecord};
use super::outside::{LeftHelper, SharedHelpers};
use super::reach::{Pinned, Reach};
use super::token::TokenHash;
use crate::config::StopTerms;
use crate::gate::Deciding;
use crate::telemetry::AgentOwner;

/// What the wrapper asked for, checked and capped.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: RunId,
    pub(crate) device: DeviceId,
    pub(crate) name: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) uid: u32,
    /// The PID namespaces of the agent, or of its wrapper when the daemon does not reach the agent.
    pub(crate) namespaces: PidNamespaces,
    /// The stop terms that the wrapper asked for, or those of the record.
    pub(crate) asked: AskedTerms,
    /// The processes, when the daemon can see and signal them; otherwise only the wrapper can end the run.
    pub(crate) reach: Option<Reach>,
}

/// How the wrapper wants its agent to be stopped; the configuration supplies what it leaves open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AskedTerms {
    pub(crate) signal: Option<Signal>,
    pub(crate) grace: Option<Duration>,
}

impl AskedTerms {
    /// Completes them from the configuration. A client can shorten the grace, never lengthen it.
    pub(crate) fn under(self, configured: StopTerms) -> StopTerms {
        StopTerms {
            signal: self.signal.unwrap_or(configured.signal),
            grace: self.grace.map_or(configured.grace, |asked| asked.min(configured.grace)),
        }
    }
}

/// What the stream must still tell the wrapper. It holds the newest of each, so that an unread stream costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) until: Option<BootTime>,
    /// The number of changes to the terms of stop and lease: each change is told.
    pub(crate) terms: u64,
    /// Why one of the run's devices cannot be validated.
    pub(crate) undecided: Option<Arc<str>>,
    pub(crate) stop: Option<StopNotice>,
    /// The helpers outside the tree, without ordinary services.
    pub(crate) helpers: Arc<[OutsideHelper]>,
    /// The number of looks that the wrapper was asked for.
    pub(crate) looks: u64,
}

/// The notice of a stop for the wrapper.
#[derive(Clone, Debug)]
pub(crate) struct StopNotice {
    pub(crate) denial: Denial,
    pub(crate) signalled: bool,
    pub(crate) kill_at: BootTime,
}

/// The ALLOW and the containment with which a run started.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) since: BootTime,
    /// The code and request id of the ALLOW.
    pub(crate) code: Code,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) containment: RunContainment,
    /// The hash of the agent's token for `compat.listen`, when that is set.
    pub(crate) token: Option<TokenHash>,
}

/// The direction in which a run's deadline moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    Later,
    /// A reload made leases shorter, or the previous daemon gave longer ones.
    Earlier,
}

/// The phase of a run.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The question is open; nothing has started.
    Asking,
    /// The run lives on these leases, one for each device that rules it.
    Running { leases: Vec<(DeviceId, BootTime)>, undecided: Undecided },
    /// The stop has begun. A stop is latched: no phase follows.
    Stopping { stop: BegunStop, leases: Vec<(DeviceId, BootTime)> },
}

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) opened: Opened,
    /// The gates that decide about it, kept running as long as the run is in the roster.
    deciding: OnceLock<Arc<Deciding>>,
    admission: OnceLock<Admission>,
    phase: Mutex<Phase>,
    terms: Mutex<StopTerms>,
    /// The client on this host that asked for the stop.
    stopper: OnceLock<Caller>,
    /// The number of the wrapper's connections. A wrapper that reconnects may be there before its old connection is known to
    /// be lost.
    streams: AtomicUsize,
    /// The run stays in the roster until both are true: the wrapper may still ask for the result.
    wrapper_left: AtomicBool,
    tree_ended: AtomicBool,
    /// Whether this daemon has frozen the leaf.
    frozen: AtomicBool,
    /// What the agent uses outside its tree.
    pub(super) helpers: SharedHelpers,
    /// What the wrapper told of that and no thread has taken yet.
    told: Mutex<Option<Vec<OutsideHelper>>>,
    outbox: watch::Sender<Outbox>,
    /// The size of the tree at the newest look.
    usage: Mutex<Usage>,
}

/// The size of a tree, and what the kernel ended of it for lack of memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// Processes and bytes at the newest look.
    pub(crate) size: Option<(usize, u64)>,
    oom: Option<OomWatch>,
    pub(crate) oom_kills: u64,
}

impl Run {
    /// Creates a run whose question is open, under these terms of the configuration.
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
            helpers: SharedHelpers::default(),
            told: Mutex::default(),
            outbox: watch::channel(Outbox::default()).0,
            usage: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> RunId {
        self.opened.id
    }

    /// Whose agent it is.
    pub(crate) fn owner(&self) -> AgentOwner {
        AgentOwner { uid: self.opened.uid, namespaces: self.opened.namespaces.clone() }
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

    /// The run's end as events name it.
    pub(crate) fn as_ended(&self) -> AgentEnd {
        AgentEnd { agent: self.as_named(), oom_kills: self.count_oom_kills() }
    }

    /// Notes what a look has found. Reads a few files of `/proc` and of control groups.
    pub(super) fn measure(&self, pids: &[Pid]) {
        let leaf = self.admission().and_then(|admission| admission.containment.leaf.as_deref());
        let size = (pids.len(), memory_of(leaf, pids));
        // What only the whole host counts may be of any other process.
        let first = || pids.first().and_then(|pid| OomWatch::of(*pid)).filter(|watch| !watch.is_of_the_host());
        let oom = self.usage().oom.or_else(first);
        let mut usage = self.lock_usage();
        (usage.size, usage.oom) = (Some(size), oom);
        drop(usage);
        self.count_oom_kills();
    }

    /// The newest count of processes that the kernel ended for lack of memory.
    fn count_oom_kills(&self) -> u64 {
        // Read without the lock: the thread that looks is a nice one, and the enforcer must not wait for it.
        let now = self.usage().oom.as_ref().map_or(0, OomWatch::kills);
        let mut usage = self.lock_usage();
        // A group that is gone tells nothing more.
        usage.oom_kills = usage.oom_kills.max(now);
        usage.oom_kills
    }

    pub(crate) fn usage(&self) -> Usage {
        self.lock_usage().clone()
    }

    fn lock_usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The terms of a stop from now on.
    pub(crate) fn terms(&self) -> StopTerms {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies changed settings to later stops, and tells the wrapper.
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
        self.opened.reach.as_ref()?.wrapper.as_ref().map(|wrapper| wrapper.identity)
    }

    /// Whether its tree was adopted while it ran, and has no wrapper.
    pub(crate) fn is_adopted(&self) -> bool {
        self.opened.reach.as_ref().is_some_and(Reach::is_adopted)
    }

    /// The admission, once the run has started.
    pub(crate) fn admission(&self) -> Option<&Admission> {
        self.admission.get()
    }

    /// The gates that decide about the run; `None` only for a moment after the daemon's start.
    pub(crate) fn deciding(&self) -> Option<&Deciding> {
        self.deciding.get().map(AsRef::as_ref)
    }

    /// Keeps the run's gates running as long as the run is in the roster.
    pub(crate) fn keep_gates(&self, deciding: Arc<Deciding>) {
        // Set once, when it is opened or adopted.
        let _ = self.deciding.set(deciding);
    }

    /// The tree to end, where the daemon reaches it. `shares_wrapper`: the wrapper has other runs too.
    pub(crate) fn tree(&self, shares_wrapper: bool) -> Option<Tree> {
        let tree = self.opened.reach.as_ref()?.tree(self.id(), shares_wrapper);
        Some(match self.admission().and_then(|admission| admission.containment.leaf.as_ref()) {
            Some(leaf) => tree.in_leaf(Arc::clone(leaf)),
            None => tree,
        })
    }

    /// The messages for the wrapper, from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Outbox> {
        self.outbox.subscribe()
    }

    pub(crate) fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits the run on these leases: the question was answered with ALLOW, now or before the daemon's restart.
    pub(crate) fn admit(&self, admission: Admission, leases: Vec<(DeviceId, BootTime)>, undecided: Undecided) {
        let mut phase = self.phase();
        // Set once, when it is opened or adopted.
        let _ = self.admission.set(admission);
        self.tell_cause(&undecided);
        *phase = Phase::Running { leases, undecided };
    }

    /// Restores a stop that was under way before the daemon's restart.
    pub(crate) fn adopt_stop(&self, stop: BegunStop) {
        let mut phase = self.phase();
        let Phase::Running { leases, .. } = &mut *phase else { return };
        let leases = std::mem::take(leases);
        *phase = Phase::Stopping { stop, leases };
    }

    /// Moves a device's lease. When that moves the run's deadline, tells the wrapper and returns the direction.
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

    /// Updates what keeps the run undecided, while it runs, and tells the wrapper why.
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

    /// Gives a run whose lease ended during a suspend this much time for an ALLOW. Returns whether the lease had ended.
    pub(crate) fn overslept(&self, now: BootTime, grace: Duration) -> bool {
        let mut phase = self.phase();
        let Phase::Running { leases, undecided } = &mut *phase else { return false };
        let over = deadline(leases).is_none_or(|until| until <= now);
        if over {
            undecided.overslept(now, now + grace);
        }
        over
    }

    /// Whether the run must be frozen. `while_unavailable`: also while a device cannot be validated.
    pub(crate) fn freezes(&self, while_unavailable: bool) -> bool {
        matches!(&*self.phase(), Phase::Running { undecided, .. } if undecided.freezes(while_unavailable))
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    pub(crate) fn note_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    /// When the run is stopped if nothing happens: at the end of its lease, or of the grace for a lease that ended during a
    /// suspend. `None` unless it runs.
    pub(crate) fn deadline(&self) -> Option<BootTime> {
        match &*self.phase() {
            Phase::Running { leases, undecided } => deadline(leases).max(undecided.grace_until()),
            Phase::Asking | Phase::Stopping { .. } => None,
        }
    }

    /// The reason to stop the run now, when its lease has ended.
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

    /// Calls `tell` with each device that rules the run.
    pub(super) fn each_ruling(&self, mut tell: impl FnMut(&DeviceId)) {
        if let Phase::Running { leases, .. } = &*self.phase() {
            for (ruling, _) in leases {
                tell(ruling);
            }
        }
    }

    /// Whether the run is being stopped, and the devices that rule or ruled it; `None` unless it was admitted and something
    /// of it may be left.
    pub(super) fn living(&self) -> Option<(bool, Vec<DeviceId>)> {
        let phase = self.phase();
        let (stopping, leases) = match &*phase {
            Phase::Running { leases, .. } => (false, leases),
            Phase::Stopping { leases, .. } if !self.has_tree_ended() => (true, leases),
            Phase::Asking | Phase::Stopping { .. } => return None,
        };
        Some((stopping, leases.iter().map(|(device, _)| device.clone()).collect()))
    }

    /// Begins the stop; `false` when it has begun already, or the run has not started.
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

    /// Notes which client on this host asked for the stop that has begun.
    pub(crate) fn note_stopper(&self, caller: &Caller) {
        // Only the first call counts: it began the stop.
        let _ = self.stopper.set(caller.clone());
    }

    /// The client on this host that asked for the stop.
    pub(crate) fn stopper(&self) -> Option<&Caller> {
        self.stopper.get()
    }

    /// Tells the wrapper of the stop.
    pub(crate) fn notify_stop(&self, notice: StopNotice) {
        self.outbox.send_modify(|outbox| outbox.stop = Some(notice));
    }

    /// Tells the wrapper what the agent uses outside its tree.
    pub(super) fn tell_helpers(&self) {
        let helpers: Arc<[OutsideHelper]> = self
            .left_helpers()
            .into_iter()
            // To the wrapper, which reports the stop when the daemon may not have begun to end them.
            .map(|left| OutsideHelper { ending: left.helper.ending || left.ends_with_run, ..left.helper })
            .collect();
        self.outbox.send_if_modified(|outbox| {
            let changed = outbox.helpers != helpers;
            outbox.helpers = helpers;
            changed
        });
    }

    /// Keeps what the wrapper tells, in place of what it told before. Returns whether nothing was kept.
    pub(super) fn put_told(&self, helpers: Vec<OutsideHelper>) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).replace(helpers).is_none()
    }

    /// Takes what the wrapper has told.
    pub(super) fn take_told(&self) -> Vec<OutsideHelper> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    /// Has the wrapper look for what the agent uses outside its tree: the daemon may not.
    pub(super) fn ask_wrapper_to_look(&self) {
        self.outbox.send_modify(|outbox| outbox.looks += 1);
    }

    /// The helpers outside the tree that a stop leaves, as far as is known.
    pub(super) fn left_helpers(&self) -> Vec<LeftHelper> {
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner).left()
    }

    /// Everything that the agent uses outside its tree, and why there may be more.
    pub(crate) fn outside(&self) -> (Vec<OutsideHelper>, Option<String>) {
        let helpers = self.helpers.lock().unwrap_or_else(PoisonError::into_inner);
        (helpers.all(), helpers.gap().map(str::to_owned))
    }

    /// Counts a new connection of the wrapper.
    pub(crate) fn note_stream(&self) {
        self.streams.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a connection that ended; returns whether it was the last.
    pub(crate) fn note_stream_end(&self) -> bool {
        self.streams.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Whether the wrapper is expected to reconnect: after a restart of the daemon.
    pub(crate) fn awaits_wrapper(&self) -> bool {
        self.streams.load(Ordering::SeqCst) == 0
            && !self.wrapper_left.load(Ordering::SeqCst)
            && self.admission().is_some()
    }

    /// The process whose end begins a stop: the wrapper that is expected to reconnect, or the leader of an adopted tree. A
    /// connected wrapper's end is the end of its connection.
    pub(crate) fn watched(&self) -> Option<&Pinned> {
        let reach = self.opened.reach.as_ref()?;
        match &reach.wrapper {
            Some(wrapper) => self.awaits_wrapper().then_some(wrapper),
            None => matches!(&*self.phase(), Phase::Running { .. }).then_some(&reach.leader),
        }
    }

    /// Notes that the wrapper has finished or died; returns whether the tree had ended before.
    pub(crate) fn note_wrapper_left(&self) -> bool {
        self.wrapper_left.store(true, Ordering::SeqCst);
        self.tree_ended.load(Ordering::SeqCst)
    }

    /// Notes that nothing is left of the tree; returns whether the wrapper had left before.
    pub(crate) fn note_tree_end(&self) -> bool {
        self.tree_ended.store(true, Ordering::SeqCst);
        self.wrapper_left.load(Ordering::SeqCst)
    }

    /// Whether nothing of the tree is left.
    pub(crate) fn has_tree_ended(&self) -> bool {
        self.tree_ended.load(Ordering::SeqCst)
    }

    /// Whether both tree and wrapper have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.wrapper_left.load(Ordering::SeqCst) && self.has_tree_ended()
    }

    /// The run's record; `None` when it needs none: it has not started, nothing is left, or only its wrapper can end it,
    /// which then enforces the lease by itself.
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
            wrapper: reach.wrapper.as_ref().map(|wrapper| wrapper.identity),
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
