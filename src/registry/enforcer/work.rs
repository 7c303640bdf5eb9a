//! The enforcer's loop: waits, takes orders, looks, and leaves all decisions to pure cores.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use machineid_clock::{BootTime, Moment, Suspends};
use machineid_log::Vital;
use machineid_protocol::{Denial, RunId};
use machineid_sys::Uninterrupted;
use machineid_tree::{self as tree, Identity, ProcessTable};
use rustix::io::Errno;
use tracing::{debug, error, info, warn};

use super::end_watch::EndWatch;
use super::tidy::Tidy;
use super::under_way::{Needs, UnderWay, requested};
use super::{EndReason, EnforcerOrder, Inbox, SignalBy, TreeToEnd};
use crate::config::Live;
use crate::config::settings::UndecidedPolicy;
use crate::registry::ledger::Ledger;
use crate::registry::outside::StoppingRun;
use crate::registry::reach::{Pinned, Supervisor};
use crate::registry::roster::Roster;
use crate::registry::run::{Run, StopNotice};
use crate::registry::run_registry::{leader_gone, wrapper_gone};

/// The thread's niceness. It has little to do, and that must not wait.
const NICENESS: i32 = -15;
/// Pause after a failure to read the process table; the next attempt may succeed.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// How long a stopped supervisor that was continued after the end of its tree has to report.
const REPORT: Duration = Duration::from_secs(1);

/// Time for which ends of trees are collected before they are handled.
const TOGETHER: Duration = Duration::from_millis(4);

/// After each read of the process table, the next one waits this many times as long as the read took.
const TABLE_SHARE: u32 = 4;
/// The longest such wait.
const LONGEST_WITHOUT_TABLE: Duration = Duration::from_millis(200);

/// The state of the enforcer's thread.
#[derive(Debug)]
pub(super) struct Worker {
    inbox: Arc<Inbox>,
    roster: Arc<Roster>,
    ledger: Ledger,
    live: Live,
    suspends: Suspends,
    under_way: Vec<UnderWay>,
    /// Runs whose stopped supervisors were continued, each with the time at which those that have not ended are killed.
    reporting: Vec<(BootTime, Arc<Run>, Vec<Supervisor>)>,
    /// Removes the leaves of runs that have ended.
    tidy: Tidy,
    /// Reports which trees have ended.
    end_watch: EndWatch,
    /// The key of the next stop.
    next_key: u64,
    /// When reports of ended trees were last taken.
    ends_taken_at: BootTime,
    blind: bool,
    /// Until then the process table is read only for urgent stops.
    table_at: BootTime,
}

impl Worker {
    pub(super) fn new(
        inbox: Arc<Inbox>,
        roster: Arc<Roster>,
        ledger: Ledger,
        live: Live,
        (tidy, end_watch): (Tidy, EndWatch),
        start: Moment,
    ) -> Self {
        let suspends = Suspends::from(start);
        let table_at = start.boot;
        Self {
            inbox,
            roster,
            ledger,
            live,
            suspends,
            under_way: Vec::new(),
            reporting: Vec::new(),
            tidy,
            end_watch,
            next_key: 0,
            ends_taken_at: start.boot,
            blind: false,
            table_at,
        }
    }

    pub(super) fn work(mut self) {
        let _vital = Vital;
        take_precedence();
        loop {
            self.wait();
            self.hear_ended();
            self.turn(Moment::now());
        }
    }

    /// One turn: does what is due at this moment.
    pub(super) fn turn(&mut self, moment: Moment) {
        let now = moment.boot;
        if self.suspends.until(moment).is_some() {
            self.resume(now);
        }
        let (mut to_end, mut pulses) = (Vec::new(), Vec::new());
        for order in self.take_orders() {
            match order {
                EnforcerOrder::End(more) => to_end.extend(more),
                EnforcerOrder::ApplyFreeze(run) => self.apply_freeze(&run),
                EnforcerOrder::Watch => {}
                EnforcerOrder::Remove(leaf) => self.tidy.remove(&leaf),
                EnforcerOrder::Pulse(turn) => pulses.push(turn),
            }
        }
        to_end.extend(self.expired(now));
        to_end.extend(self.bereaved(now));
        self.enforce(now, to_end);
        for (_, run, continued) in self.reporting.extract_if(.., |(until, ..)| *until <= now) {
            if let Some(reach) = &run.opened.reach {
                reach.kill_supervisors(run.id(), &continued, self.roster.shares_wrapper(&run));
            }
        }
        for turn in pulses {
            // A receiver that gave up waiting needs no answer.
            let _ = turn.send(());
        }
    }

    /// Handles the end of a suspend. Agents whose lease ended meanwhile are frozen, where that is possible, until their gates
    /// have asked: the gates could not ask during the suspend.
    fn resume(&self, now: BootTime) {
        let grace = self.live.now().enforcement.resume_grace;
        for run in self.roster.all() {
            if run.overslept(now, grace) {
                let (run_id, device_id) = (run.id(), &run.opened.device);
                info!(%run_id, %device_id, "the machine was suspended past the end of the agent's lease; the agent \
                                            continues only with a new ALLOW");
                self.apply_freeze(&run);
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let reports = self.reporting.iter().map(|(until, ..)| *until);
        let looks = self.under_way.iter().map(UnderWay::due_at).chain(reports);
        // A lease that is extended during the wait causes one needless wake-up per lease.
        let runs = self.roster.all();
        let point = looks.chain(runs.iter().filter_map(|run| run.deadline())).min();
        let watched = runs.iter().filter_map(|run| run.watched()?.process());
        let mut also: Vec<_> = watched.map(AsFd::as_fd).collect();
        if self.under_way.is_empty() {
            self.inbox.bell.wait(point, &also);
            return;
        }
        let watched = also.len();
        also.push(self.end_watch.as_fd());
        if self.inbox.bell.wait(point, &also) != Some(watched) {
            return;
        }
        // Trees that end shortly after each other share a turn. An order that came meanwhile has already rung, and does not
        // ring again; an order that comes now ends this wait.
        let together = self.ends_taken_at + TOGETHER;
        if self.inbox.is_empty() && BootTime::now() < together {
            self.inbox.bell.wait(Some(point.map_or(together, |point| point.min(together))), &also[..watched]);
        }
    }

    /// Makes a turn due for each stop whose tree may have ended according to the kernel.
    fn hear_ended(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let told: HashSet<u64> = self.end_watch.take().into_iter().collect();
        if told.is_empty() {
            return;
        }
        self.ends_taken_at = BootTime::now();
        for stop in self.under_way.iter_mut().filter(|stop| told.contains(&stop.key())) {
            stop.note_told();
        }
    }

    fn take_orders(&self) -> Vec<EnforcerOrder> {
        self.inbox.orders.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// Begins the stops of runs whose lease has ended. The gate reports that as well; whichever comes first begins the stop.
    fn expired(&self, now: BootTime) -> Vec<TreeToEnd> {
        let mut to_end = Vec::new();
        for run in self.roster.all() {
            let Some(denial) = run.expired(now).filter(|denial| run.begin_stop(now, denial)) else { continue };
            // At the end of a lease the wrapper sends the stop signal: both sides know the deadline.
            to_end.push(TreeToEnd { run, signal_by: SignalBy::Wrapper, reason: EndReason::Denied(denial) });
        }
        to_end
    }

    /// Begins the stops of runs of a previous daemon whose wrapper ended before it reconnected, and of adopted trees whose
    /// leader has ended.
    fn bereaved(&self, now: BootTime) -> Vec<TreeToEnd> {
        let mut to_end = Vec::new();
        for run in self.roster.all() {
            if !run.watched().is_some_and(Pinned::has_ended) {
                continue;
            }
            to_end.extend(if run.is_adopted() {
                leader_gone(now, &run)
            } else {
                wrapper_gone(now, &run, &self.roster, &self.ledger)
            });
        }
        to_end
    }

    /// Begins these stops and continues those under way. The processes with held descriptors are signalled first, then the
    /// other processes are looked for, and reports come last.
    fn enforce(&mut self, now: BootTime, to_end: Vec<TreeToEnd>) {
        let mut known: HashSet<RunId> = self.under_way.iter().map(|stop| stop.run.id()).collect();
        let mut begun = HashSet::new();
        let by_wrapper = if to_end.is_empty() { HashMap::new() } else { self.roster.count_by_wrapper() };
        let mut remote = Vec::new();
        // Each signal takes some ten microseconds and waits for nothing; reports and records come after.
        let uninterrupted = (!to_end.is_empty()).then(Uninterrupted::begin);
        for ending in to_end {
            let id = ending.run.id();
            // The end of a wrapper changes nothing about a stop that is under way or complete.
            if !known.insert(id) || ending.run.has_tree_ended() {
                continue;
            }
            if ending.run.opened.reach.is_none() {
                remote.push(ending);
                continue;
            }
            let shares_wrapper = shares(&by_wrapper, ending.run.wrapper());
            self.next_key += 1;
            if let Some(stop) = UnderWay::begin(now, ending, shares_wrapper, self.next_key) {
                begun.insert(id);
                self.under_way.push(stop);
            }
        }
        drop(uninterrupted);
        for ending in remote {
            self.tell_only(&ending);
        }
        // Only now: what the agents use outside their trees is looked for after the signals, by another thread.
        if let Some(outside) = self.roster.outside().filter(|_| !begun.is_empty()) {
            let begun = self.under_way.iter().filter(|stop| begun.contains(&stop.run.id()));
            let stopping = |stop: &UnderWay| StoppingRun { run: Arc::clone(&stop.run), denied: stop.is_denied() };
            outside.stopping(begun.map(stopping).collect());
        }
        if !begun.is_empty() {
            let took_us = u64::try_from(BootTime::now().saturating_since(now).as_micros()).unwrap_or(u64::MAX);
            debug!(trees = begun.len(), took_us, "signalled the leaders of all trees to stop");
        }
        if !self.under_way.iter().any(|stop| stop.due_at() <= now) {
            return;
        }
        let over = self.look(now);
        for stop in self.under_way.iter().filter(|stop| begun.contains(&stop.run.id())) {
            stop.tell_wrapper();
            self.ledger.changed(&stop.run);
        }
        for stop in self.under_way.iter().filter(|stop| begun.contains(&stop.run.id())) {
            stop.log_begin(now);
        }
        for stop in &mut self.under_way {
            if let Some(requested) = stop.requested() {
                self.roster.journal.tell_of(&stop.run.owner(), requested, stop.run.stopper().cloned());
            }
            if let Some(report) = stop.survivors(now) {
                self.roster.note_stop(stop.run.owner(), report, stop.left_helpers());
            }
        }
        if !over.is_empty() {
            self.finish(now, &over);
        }
    }

    /// Gives each due stop a turn: first a look at its own tree, at a cost that depends on the tree's size; then, for the
    /// trees of which that does not show all (they have lost a supervisor), one read of the process table, limited to a share
    /// of the thread's time. Returns the runs of which nothing is left.
    fn look(&mut self, now: BootTime) -> HashSet<RunId> {
        let mut over = HashSet::new();
        let mut open = HashSet::new();
        let (mut give_up_at, mut urgent) = (None, now >= self.table_at);
        for stop in self.under_way.iter_mut().filter(|stop| stop.due_at() <= now) {
            match stop.advance(now, &self.end_watch) {
                Needs::Nothing => drop(over.insert(stop.run.id())),
                Needs::Time => {}
                Needs::Table => {
                    open.insert(stop.run.id());
                    urgent |= stop.is_urgent(now);
                    give_up_at = [give_up_at, stop.table_deadline(now)].into_iter().flatten().min();
                }
            }
        }
        if open.is_empty() {
            return over;
        }
        let open = self.under_way.iter_mut().filter(|stop| open.contains(&stop.run.id()));
        if !urgent {
            for stop in open {
                stop.wait_for_table(self.table_at);
            }
            return over;
        }
        let began = BootTime::now();
        match ProcessTable::scan_until(give_up_at) {
            Ok(table) => {
                if std::mem::take(&mut self.blind) {
                    info!("the process table of this host can be read again");
                }
                for stop in open {
                    if stop.look(now, &table, &self.end_watch) == Needs::Nothing {
                        over.insert(stop.run.id());
                    }
                }
            }
            // There are too many processes. What needs no table is done first, and then the read is repeated.
            Err(Errno::TIME) => {}
            Err(errno) => {
                if !std::mem::replace(&mut self.blind, true) {
                    error!(
                        %errno, "cannot read the process table of this host; retrying. Until then stops reach only \
                                 agents' leaders and control groups"
                    );
                }
                // The pause prevents a busy loop when the failure lasts.
                for stop in open {
                    stop.act_blindly(now, now + AFTER_FAILURE);
                }
            }
        }
        for skipped in tree::newly_unreadable() {
            warn!(
                pid = skipped.pid.as_raw(),
                "cannot inspect this process (its memory is locked, or on a mount that hangs); whether it belongs to \
                 an agent is not known, and stops skip it"
            );
        }
        let end = BootTime::now();
        self.table_at = end + (end.saturating_since(began) * TABLE_SHARE).min(LONGEST_WITHOUT_TABLE);
        over
    }

    fn finish(&mut self, now: BootTime, over: &HashSet<RunId>) {
        let (over, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.under_way).into_iter().partition(|stop| over.contains(&stop.run.id()));
        self.under_way = left;
        let mut gone = Vec::new();
        for mut stop in over {
            stop.leave(&self.end_watch);
            if let Some(requested) = stop.requested() {
                self.roster.journal.tell_of(&stop.run.owner(), requested, stop.run.stopper().cloned());
            }
            let run = &stop.run;
            match stop.confirm(now) {
                Some(report) => self.roster.note_stop(run.owner(), report, stop.left_helpers()),
                None => self.roster.note_end(run),
            }
            let leaf = run.admission().and_then(|admission| admission.containment.leaf.as_ref());
            if let Some(leaf) = leaf {
                self.tidy.remove(leaf);
            }
            if let Some(reach) = &run.opened.reach {
                // Not earlier: a wrapper that is continued would continue its agent.
                let continued = reach.continue_stopped_supervisors(run.id(), self.roster.shares_wrapper(run));
                if !continued.is_empty() {
                    self.reporting.push((now + REPORT, Arc::clone(run), continued));
                }
            }
            if run.note_tree_end() {
                gone.push(Arc::clone(run));
            }
        }
        self.roster.forget_all(&gone, &self.ledger);
    }

    /// Freezes or thaws a run, whichever its state now demands. No other code does either, so that no freeze can come after a
    /// stop.
    fn apply_freeze(&self, run: &Run) {
        let Some(leaf) = run.admission().and_then(|admission| admission.containment.leaf.as_ref()) else { return };
        // The loop looks again after each change: a task that changes the demanded state gives an order only when the run is
        // not yet in that state.
        loop {
            let wanted = run.freezes(self.live.now().enforcement.undecided == UndecidedPolicy::Freeze);
            if wanted == run.is_frozen() || run.stop().is_some() {
                return;
            }
            let (done, word) = if wanted { (leaf.freeze(), "frozen") } else { (leaf.thaw(), "thawed") };
            let run_id = run.id();
            if let Err(errno) = done {
                error!(%run_id, %errno, wanted = word, "cannot freeze or thaw the agent; its lease and stops still apply");
                return;
            }
            run.note_frozen(wanted);
            info!(%run_id, device_id = %run.opened.device, "the agent is {word}");
        }
    }

    /// Tells the wrapper of a remote agent: only the wrapper can end it.
    fn tell_only(&self, ending: &TreeToEnd) {
        let (EndReason::Denied(denial), Some(stop)) = (&ending.reason, ending.run.stop()) else { return };
        let run = &ending.run;
        run.notify_stop(StopNotice { denial: denial.clone(), signalled: false, kill_at: stop.kill_at });
        log_remote(run, denial);
        self.roster.journal.tell_of(&run.owner(), requested(run, denial.clone()), run.stopper().cloned());
    }
}

/// Raises the thread's priority. A signalled process wakes, and so do its guardian and wrapper: they must not delay the looks
/// at the remaining processes. ([`Uninterrupted`] ensures that every leader is signalled before any of them runs.) Without
/// privileges this fails, and stops take longer.
fn take_precedence() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
}

fn log_remote(run: &Run, denial: &Denial) {
    warn!(
        run_id = %run.id(), device_id = %run.opened.device, code = %denial.code,
        request_id = denial.request_id.as_ref().map_or("", |id| id.as_str()), "telling the wrapper to stop the agent"
    );
}

fn shares(by_wrapper: &HashMap<Identity, usize>, wrapper: Option<Identity>) -> bool {
    wrapper.and_then(|wrapper| by_wrapper.get(&wrapper)).is_some_and(|count| *count > 1)
}
