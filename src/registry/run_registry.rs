//! Admits runs, updates their leases and stops them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::event::{AgentStart, Caller, Happening};
use machineid_protocol::outside::OutsideHelper;
use machineid_protocol::status::{OomReport, StopReport};
use machineid_protocol::{Code, Denial, DeviceId, RunId};
use machineid_tree::{Identity, Leaf, ProcessTable};
use tokio::sync::watch;
use tracing::info;

use super::containment::RunContainment;
use super::enforcer::{EndReason, Enforcer, LEADER_GONE, SignalBy, TreeToEnd, WRAPPER_GONE};
use super::freeze::Undecided;
use super::ledger::{Ledger, Store};
use super::reach::Pinned;
use super::roster::{Census, Roster};
use super::run::{Admission, Moved, Opened, Phase, Run};
use super::token::TokenHash;
use crate::config::{self, Live};
use crate::gate::{Agents, Deciding, Standing};
use crate::telemetry::{AgentOwner, Journal};

/// The supervised runs, with the enforcer that ends them and the ledger that records them.
#[derive(Debug)]
pub(crate) struct RunRegistry {
    pub(super) roster: Arc<Roster>,
    pub(super) enforcer: Enforcer,
    pub(super) ledger: Ledger,
    pub(super) live: Live,
    closing: AtomicBool,
}

/// Why a run does not start although its gates answered ALLOW.
#[derive(Debug)]
pub(crate) enum Refused {
    /// A deny came between the ALLOW and the start.
    Denied(Denial),
    /// The lease was lost between the ALLOW and the start.
    NoLease,
}

/// Makes the enforcer look at the deadlines when dropped.
struct WatchedAfter<'a>(&'a Enforcer);

impl Drop for WatchedAfter<'_> {
    fn drop(&mut self) {
        self.0.watch();
    }
}

/// The terms on which an admitted run starts.
#[derive(Debug)]
pub(crate) struct StartTerms {
    /// The code and request id of the ALLOW.
    pub(crate) code: Code,
    pub(crate) request_id: Option<machineid_protocol::RequestId>,
    pub(crate) containment: RunContainment,
    pub(crate) token: Option<TokenHash>,
    /// The client that asked.
    pub(crate) caller: Caller,
}

impl RunRegistry {
    /// Starts an empty registry with the threads of enforcer and ledger. Fails when no thread or descriptor is available.
    pub(crate) fn start(store: Store, live: Live, journal: Arc<Journal>) -> io::Result<Self> {
        let roster = Arc::new(Roster::new(journal));
        let ledger = Ledger::start(store)?;
        let enforcer = Enforcer::start(Arc::clone(&roster), ledger.clone(), live.clone())?;
        roster.watch_outside(live.clone())?;
        Ok(Self { roster, enforcer, ledger, live, closing: AtomicBool::new(false) })
    }

    /// Adds a run whose question is open; `None` when its id is in use.
    pub(crate) fn open(&self, opened: Opened, deciding: Arc<Deciding>) -> Option<Arc<Run>> {
        // A reload looks at the roster after it has replaced the settings: either it finds this run, or this run sees the new
        // settings.
        let mut runs = self.roster.lock();
        let run = Arc::new(Run::new(opened, self.live.now().stop_terms()));
        run.keep_gates(deciding);
        if runs.contains_key(&run.id()) {
            return None;
        }
        run.note_stream();
        self.roster.put(&mut runs, Arc::clone(&run));
        Some(run)
    }

    /// Adds a tree that is adopted while it runs. `None` when its leader is in the roster already.
    pub(crate) fn open_adopted(&self, opened: Opened, deciding: Arc<Deciding>) -> Option<Arc<Run>> {
        let mut runs = self.roster.lock();
        let leader = opened.reach.as_ref().map(|reach| reach.leader.identity);
        if runs.values().any(|other| other.leader() == leader) || runs.contains_key(&opened.id) {
            return None;
        }
        let run = Arc::new(Run::new(opened, self.live.now().stop_terms()));
        run.keep_gates(deciding);
        // There is none to wait for: the run is over when its tree is.
        run.note_wrapper_left();
        self.roster.put(&mut runs, Arc::clone(&run));
        Some(run)
    }

    /// Removes a run that was opened and is not admitted.
    pub(crate) fn abandon(&self, run: &Arc<Run>) {
        self.roster.forget(run, &self.ledger);
    }

    /// Admits a run if its gates allow it *now*, and records it. A gate publishes a deny before it stops the device's agents:
    /// a deny that comes after this look finds the run admitted, and stops it.
    pub(crate) async fn admit(&self, run: &Arc<Run>, terms: StartTerms) -> Result<BootTime, Refused> {
        let caller = terms.caller.clone();
        let until = self.admit_now(run, terms)?;
        // Watched only after the record is written: waking the enforcer earlier would delay the write, for which the agent
        // waits. But in any case: this future may be dropped while it waits, and the wrapper reconnect.
        let _watched = WatchedAfter(&self.enforcer);
        // The ledger's thread writes while this one reports the start.
        let written = run.opened.reach.is_some().then(|| self.ledger.write(run));
        self.roster.tell_gates([run.as_ref()]);
        let opened = &run.opened;
        let containment = run.admission().map(|admission| &admission.containment);
        info!(
            run_id = %opened.id, device_id = %opened.device, name = opened.name.as_deref().unwrap_or(""), uid = opened.uid,
            pid = run.leader().map(|leader| leader.pid.as_raw()), killer = run.killer().as_str(),
            containment = containment.map_or("", |containment| containment.kind.as_str()),
            holds_against = containment.map_or("", |containment| containment.holds_against.as_str()),
            "{}", if run.is_adopted() { "agent adopted while it ran" } else { "agent started" }
        );
        self.tell_start(run, caller);
        self.look_outside();
        if let Some(written) = written
            && !written.await
        {
            self.roster.journal.metrics.started_unrecorded();
        }
        Ok(until)
    }

    fn admit_now(&self, run: &Run, terms: StartTerms) -> Result<BootTime, Refused> {
        let _runs = self.roster.lock();
        let deciding = run.deciding().ok_or(Refused::NoLease)?;
        let Some(leases) = deciding.leases() else {
            let denied = || {
                deciding.gates().find_map(|gate| {
                    gate.look(|view| match &view.standing {
                        Standing::Denied { refusal, .. } => Some(refusal.denial.clone()),
                        Standing::Unknown | Standing::Allowed { .. } | Standing::Unavailable { .. } => None,
                    })
                })
            };
            return Err(deciding.held().or_else(denied).map_or(Refused::NoLease, Refused::Denied));
        };
        let until = super::run::deadline(&leases).ok_or(Refused::NoLease)?;
        let mut undecided = Undecided::default();
        for gate in deciding.gates() {
            gate.look(|view| match &view.standing {
                Standing::Unavailable { cause, .. } => undecided.unavailable(gate.device(), cause),
                Standing::Unknown | Standing::Allowed { .. } | Standing::Denied { .. } => {}
            });
        }
        let StartTerms { code, request_id, containment, token, caller: _ } = terms;
        run.admit(Admission { since: BootTime::now(), code, request_id, containment, token }, leases, undecided);
        Ok(until)
    }

    /// Takes what a wrapper sees its agent use outside its tree.
    pub(crate) fn told_outside(&self, run: &Arc<Run>, helpers: Vec<OutsideHelper>) {
        if let Some(outside) = self.roster.outside() {
            outside.told(run, helpers);
        }
    }

    /// Has the processes that agents use outside their trees looked for soon.
    pub(super) fn look_outside(&self) {
        if let Some(outside) = self.roster.outside() {
            outside.started();
        }
    }

    fn tell_start(&self, run: &Run, caller: Caller) {
        let Some(admission) = run.admission() else { return };
        let start = AgentStart {
            agent: run.as_named(),
            code: admission.code.clone(),
            request_id: admission.request_id.clone(),
            command: run.opened.command.clone(),
            containment: admission.containment.kind,
            holds_against: admission.containment.holds_against,
            killer: run.killer(),
            adopted: run.is_adopted(),
        };
        self.roster.journal.tell_of(&run.owner(), Happening::AgentStarted(start), Some(caller));
    }

    /// Handles the end of a wrapper's stream: the wrapper has finished or died. What is left of the tree is stopped.
    pub(crate) fn stream_ended(&self, run: &Arc<Run>) {
        if !run.note_stream_end() {
            return;
        }
        if matches!(&*run.phase(), Phase::Asking) {
            self.roster.forget(run, &self.ledger);
            return;
        }
        // The daemon's own end closes the streams as well. Then a run whose wrapper lives stays recorded for the next daemon.
        if self.closing.load(Ordering::SeqCst) && !has_lost_wrapper(run) {
            return;
        }
        let ending = wrapper_gone(BootTime::now(), run, &self.roster, &self.ledger);
        self.enforcer.end(ending.into_iter().collect());
        self.roster.tell_gates([run.as_ref()]);
    }

    /// Notes that the daemon is ending: from here on the end of a stream says nothing about its wrapper.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Waits until nothing is left of the runs whose wrappers are dead, at most for `patience`: after the daemon's end no
    /// process would end them.
    pub(crate) async fn settle(&self, patience: Duration) {
        let over_by = BootTime::now() + patience;
        while BootTime::now() < over_by && self.roster.all().iter().any(|run| has_lost_wrapper(run)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Removes the leaf of a run that does not start, as soon as it is empty.
    pub(crate) fn discard(&self, leaf: Arc<Leaf>) {
        self.enforcer.remove(leaf);
    }

    /// Stops the runs that `chosen` selects and that are not being stopped yet. Returns their ids, and whether any run was
    /// selected.
    pub(crate) fn stop_chosen(
        &self,
        denial: &Denial,
        caller: &Caller,
        chosen: impl Fn(&Run) -> bool,
    ) -> (Vec<RunId>, bool) {
        let now = BootTime::now();
        let mut picked: Vec<_> = self.roster.all();
        picked.retain(|run| run.admission().is_some() && chosen(run));
        let found = !picked.is_empty();
        picked.retain(|run| run.begin_stop(now, denial));
        for run in &picked {
            run.note_stopper(caller);
        }
        let begun = picked.iter().map(|run| run.id()).collect();
        self.end(&picked, denial, SignalBy::Us);
        (begun, found)
    }

    /// Lets a frozen run continue until one of its devices becomes unavailable again. Returns whether it was frozen.
    pub(crate) fn thaw(&self, run: &Arc<Run>) -> bool {
        let was_frozen = run.is_frozen();
        run.reconsider(Undecided::let_off);
        self.apply_freeze(run);
        was_frozen
    }

    /// The runs that should have a record in `store` and have none.
    pub(crate) fn unrecorded(&self, store: &Store) -> io::Result<Vec<Arc<Run>>> {
        let known = store.known()?;
        let mut missing = self.roster.all();
        missing.retain(|run| !known.contains(&run.id()) && run.record().is_some());
        Ok(missing)
    }

    /// Records a run again whose record is gone.
    pub(crate) fn record_again(&self, run: &Arc<Run>) {
        self.ledger.changed(run);
    }

    /// The reason why runs are not recorded at present, for people.
    pub(crate) fn record_problem(&self) -> Option<String> {
        self.ledger.problem()
    }

    /// Returns when the enforcer has completed a turn.
    pub(crate) async fn pulse(&self) {
        self.enforcer.pulse().await;
    }

    pub(crate) fn get(&self, id: RunId) -> Option<Arc<Run>> {
        self.roster.lock().get(&id).cloned()
    }

    /// Whether a process of the run's tree holds this socket; `false` also where the daemon may not look at the processes'
    /// descriptors. Reads the process table: not for the thread that answers.
    pub(crate) fn holds_socket(&self, run: &Run, inode: u64) -> bool {
        let shares_wrapper = run
            .wrapper()
            .is_some_and(|wrapper| self.roster.count_by_wrapper().get(&wrapper).is_some_and(|runs| *runs > 1));
        let (Some(mut tree), Ok(table)) = (run.tree(shares_wrapper), ProcessTable::scan()) else { return false };
        let socket = format!("socket:[{inode}]");
        tree.members(&table).iter().any(|member| {
            let descriptors = std::fs::read_dir(format!("/proc/{}/fd", member.identity.pid));
            descriptors.into_iter().flatten().flatten().any(|descriptor| {
                std::fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
            })
        })
    }

    /// The run whose agent was given this token.
    pub(crate) fn of_token(&self, token: &TokenHash) -> Option<Arc<Run>> {
        let has = |run: &&Arc<Run>| run.admission().and_then(|admission| admission.token).as_ref() == Some(token);
        self.roster.lock().values().find(has).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Run>> {
        let mut all = self.roster.all();
        all.sort_by_key(|run| run.id());
        all
    }

    /// The newest agents that ended for lack of memory, with their owners.
    pub(crate) fn recent_oom(&self) -> Vec<(AgentOwner, OomReport)> {
        self.roster.recent_oom()
    }

    /// The newest stops, the newest last, each with the owner of its agent.
    pub(crate) fn recent_stops(&self) -> Vec<(AgentOwner, StopReport)> {
        self.roster.recent_stops()
    }

    /// The newest stops, each with how long before `now` it began.
    pub(crate) fn stops_before(&self, now: BootTime) -> Vec<(Duration, StopReport)> {
        self.roster.stops_before(now)
    }

    /// A number that changes whenever a run is added or removed.
    pub(crate) fn generation(&self) -> u64 {
        self.roster.generation()
    }

    /// The numbers of agents, all of one moment.
    pub(crate) fn census(&self) -> Census {
        self.roster.census()
    }

    /// Changes whenever an agent starts, stops or is gone.
    pub(crate) fn stirred(&self) -> watch::Receiver<()> {
        self.roster.stirred()
    }

    /// The runs whose tree this process is in, the innermost first. `process` is called only when there are runs: reading
    /// `/proc` costs several times as much as the rest of a check.
    ///
    /// `process` returns `None` for a process that cannot be seen from here: it is in no run.
    ///
    /// Fails when `/proc` cannot be read or the process ends meanwhile; neither may read as "in no run".
    pub(crate) fn containing(
        &self,
        process: impl FnOnce() -> io::Result<Option<Identity>>,
    ) -> io::Result<Vec<Arc<Run>>> {
        self.roster.containing(process)
    }

    fn end(&self, runs: &[Arc<Run>], denial: &Denial, signal_by: SignalBy) {
        if runs.is_empty() {
            return;
        }
        let ending =
            |run: &Arc<Run>| TreeToEnd { run: Arc::clone(run), signal_by, reason: EndReason::Denied(denial.clone()) };
        self.enforcer.end(runs.iter().map(ending).collect());
        self.roster.tell_gates(runs.iter().map(AsRef::as_ref));
    }

    fn apply_freeze(&self, run: &Arc<Run>) {
        if self.freezes() || run.is_frozen() {
            self.enforcer.apply_freeze(run);
        }
    }

    /// Applies changed settings to all runs: handling of undecided runs, terms of stops, length of leases.
    pub(crate) fn settings_changed(&self) {
        let configured = self.live.now().stop_terms();
        for run in self.roster.all() {
            run.set_configured_terms(configured);
            if run.opened.reach.is_some() {
                self.ledger.changed(&run);
            }
            self.enforcer.apply_freeze(&run);
        }
    }

    /// Whether undecided runs are frozen.
    pub(super) fn freezes(&self) -> bool {
        self.live.now().enforcement.undecided == config::settings::UndecidedPolicy::Freeze
    }

    fn ruled_by(&self, device: &DeviceId) -> Vec<Arc<Run>> {
        self.roster.lock().values().filter(|run| run.is_ruled_by(device)).cloned().collect()
    }
}

fn has_lost_wrapper(run: &Run) -> bool {
    run.opened.reach.as_ref().and_then(|reach| reach.wrapper.as_ref()).is_some_and(Pinned::has_ended)
}

/// Handles the end of a run's wrapper. Returns the tree to end; `None` when nothing can or need be done.
pub(super) fn wrapper_gone(now: BootTime, run: &Arc<Run>, roster: &Roster, ledger: &Ledger) -> Option<TreeToEnd> {
    let tree_ended = run.note_wrapper_left();
    if run.opened.reach.is_none() {
        info!(run_id = %run.id(), device_id = %run.opened.device, "the wrapper of a remote agent is gone");
        roster.journal.tell_of(&run.owner(), Happening::AgentEnded(run.as_ended()), None);
    }
    if tree_ended || run.opened.reach.is_none() {
        roster.forget(run, ledger);
        return None;
    }
    let denial = Denial::local(Code::LocalStop, WRAPPER_GONE);
    let signal_by = if run.begin_stop(now, &denial) { SignalBy::Us } else { SignalBy::Earlier };
    Some(TreeToEnd { run: Arc::clone(run), signal_by, reason: EndReason::WrapperGone })
}

/// Handles the end of an adopted tree's first process. Returns the tree to end; `None` when it is being ended already.
pub(super) fn leader_gone(now: BootTime, run: &Arc<Run>) -> Option<TreeToEnd> {
    let denial = Denial::local(Code::LocalStop, LEADER_GONE);
    let (run, signal_by) = (Arc::clone(run), SignalBy::Us);
    run.begin_stop(now, &denial).then_some(TreeToEnd { run, signal_by, reason: EndReason::LeaderGone })
}

impl Agents for RunRegistry {
    fn lease_moved(&self, device: &DeviceId, until: BootTime) {
        for run in self.ruled_by(device) {
            let Some(moved) = run.lease_moved(device, until) else { continue };
            if run.opened.reach.is_some() {
                self.ledger.changed(&run);
            }
            if moved == Moved::Earlier {
                self.enforcer.watch();
            }
            // The run may be frozen since the end of a suspend.
            self.apply_freeze(&run);
        }
    }

    fn unavailable(&self, device: &DeviceId, cause: &Arc<str>) {
        for run in self.ruled_by(device) {
            run.reconsider(|undecided| undecided.unavailable(device, cause));
            self.apply_freeze(&run);
        }
    }

    fn allowed(&self, device: &DeviceId) {
        for run in self.ruled_by(device) {
            run.reconsider(|undecided| undecided.allowed(device));
            self.apply_freeze(&run);
        }
    }

    fn stop(&self, device: &DeviceId, denial: &Denial) {
        let now = BootTime::now();
        let mut runs = self.ruled_by(device);
        runs.retain(|run| run.begin_stop(now, denial));
        // At the end of a lease the wrapper sends the stop signal: both sides know the deadline, and no process may get the
        // signal twice. The enforcer detects a wrapper that cannot act.
        let signal_by = if denial.code == Code::LeaseExpired { SignalBy::Wrapper } else { SignalBy::Us };
        self.end(&runs, denial, signal_by);
    }
}
