//! The thread that looks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, Weak};
use std::{io, thread};

use machineid_clock::{BootTime, ThreadTime};
use machineid_log::keep_up;
use machineid_outside::{Budget, Helpers, LOOK, LeftHelper, Look, Looker, Proc, TreeMembers, Via, budget, list};
use machineid_protocol::RunId;
use machineid_protocol::event::{Happening, OutsideFound};
use machineid_protocol::outside::OutsideHelper;
use machineid_tree::{Identity, Member, Pid, ProcessEntry, ProcessTable};
use tracing::{debug, info};

use super::ending::Ender;
use super::schedule::{Schedule, Task};
use super::{StoppingRun, WatchOrder};
use crate::config::Live;
use crate::config::settings::OutsidePolicy;
use crate::registry::roster::Roster;
use crate::registry::run::Run;

/// The niceness of the thread: agents, answers and stops come first.
const NICENESS: i32 = 10;

/// Starts the thread. It ends with the roster. Fails when no thread can be started.
pub(super) fn start(orders: Receiver<WatchOrder>, roster: Weak<Roster>, live: Live, ender: Ender) -> io::Result<()> {
    let mut watch =
        Watch { orders, roster, live, ender, looker: Looker::default(), schedule: Schedule::default(), deaf: false };
    thread::Builder::new().name("outside".to_owned()).spawn(move || {
        // Without the right to be nicer, the thread works as the others.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
        keep_up("looks outside the trees", || watch.work());
    })?;
    Ok(())
}

struct Watch {
    orders: Receiver<WatchOrder>,
    roster: Weak<Roster>,
    live: Live,
    ender: Ender,
    looker: Looker,
    schedule: Schedule,
    /// Whether the kernel last refused to list sockets.
    deaf: bool,
}

impl Watch {
    /// Returns when the roster is gone.
    fn work(&mut self) {
        loop {
            let now = BootTime::now();
            let next = self.schedule.due();
            let order = match next {
                Some((due, _)) if due <= now => Err(RecvTimeoutError::Timeout),
                Some((due, _)) => self.orders.recv_timeout(due.saturating_since(now)),
                None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let Some(roster) = self.roster.upgrade() else { return };
            match order {
                Ok(WatchOrder::Started) => self.schedule.started(BootTime::now()),
                Ok(WatchOrder::Stopping(runs)) => self.stopping(&roster, &runs),
                Ok(WatchOrder::Told(run)) => told(&roster, &run, run.take_told()),
                Ok(WatchOrder::Ended) => refresh(&roster),
                Err(RecvTimeoutError::Timeout) => match next {
                    Some((_, Task::Refresh)) => self.refresh(&roster),
                    Some((_, Task::Look)) | None => self.look_at_all(&roster),
                },
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look_at_all(&mut self, roster: &Roster) {
        let began = ThreadTime::now();
        refresh(roster);
        let runs = admitted(roster);
        let looked: Vec<_> = runs.iter().filter(|run| !run.has_tree_ended()).cloned().collect();
        if !looked.is_empty() {
            self.look(roster, &looked, true);
        }
        let goes_on = !runs.is_empty() || roster.has_left_helpers();
        self.schedule.looked(BootTime::now(), began.elapsed(), self.live.now().enforcement.interval, goes_on);
    }

    fn refresh(&mut self, roster: &Roster) {
        refresh(roster);
        let goes_on = !admitted(roster).is_empty() || roster.has_left_helpers();
        self.schedule.refreshed(BootTime::now(), self.live.now().enforcement.interval, goes_on);
    }

    /// Every process of these runs has its signal. The helpers that are known come first: the look may take long.
    fn stopping(&mut self, roster: &Roster, stopping: &[StoppingRun]) {
        for StoppingRun { run, .. } in stopping {
            refresh_run(run);
        }
        self.end_helpers(stopping);
        let runs = stopping.iter().map(|stopping| &stopping.run);
        let runs: Vec<_> = runs.filter(|run| !run.has_tree_ended()).cloned().collect();
        if runs.is_empty() {
            return;
        }
        self.look(roster, &runs, false);
        self.end_helpers(stopping);
    }

    /// Ends the helpers of the runs that are denied, where the configuration says so.
    fn end_helpers(&self, stopping: &[StoppingRun]) {
        match self.live.now().enforcement.outside_helpers {
            OutsidePolicy::Report => {}
            OutsidePolicy::Stop => {
                for StoppingRun { run, .. } in stopping.iter().filter(|stopping| stopping.denied) {
                    self.ender.end(run);
                }
            }
        }
    }

    fn look(&mut self, roster: &Roster, runs: &[Arc<Run>], all: bool) {
        let trees = members(roster, runs);
        let by_id: HashMap<RunId, &Arc<Run>> = runs.iter().map(|run| (run.id(), run)).collect();
        if all {
            // Not while a stop waits for the look.
            for tree in &trees {
                let own = tree.pids.iter().filter(|pid| !tree.supervisors.contains(pid)).copied().collect::<Vec<_>>();
                by_id.get(&tree.run).into_iter().for_each(|run| run.measure(&own));
            }
        }
        let now = BootTime::now();
        let mut budget: Budget = budget(now);
        let sockets = match list(now + LOOK) {
            Ok(sockets) => sockets,
            Err(error) => {
                if !std::mem::replace(&mut self.deaf, true) {
                    info!(%error, "the kernel lists no sockets: what agents use outside their trees is not known");
                }
                for run in runs {
                    note_gap(run, Some(format!("the kernel lists no sockets: {error}")));
                }
                return;
            }
        };
        self.deaf = false;
        let own = [own_socket(&self.live.now().local.socket)];
        let look = self.looker.look(&trees, all, &sockets, &own, &mut Proc, &mut budget);
        self.publish(roster, &by_id, look);
    }

    fn publish(&self, roster: &Roster, runs: &HashMap<RunId, &Arc<Run>>, look: Look) {
        for found in look.found {
            let Some(run) = runs.get(&found.run) else { continue };
            learn(roster, run, LeftHelper::seen(found));
        }
        for run in runs.values() {
            let gap = if run.opened.reach.is_none() || look.not_permitted.contains(&run.id()) {
                run.ask_wrapper_to_look();
                Some("the daemon may not read the descriptors of the agent's processes; its wrapper looks for it")
            } else if look.unfinished {
                Some("a look was longer than its budget; the next one goes on")
            } else {
                None
            };
            note_gap(run, gap.map(str::to_owned));
            self.note_policy(run);
        }
    }

    /// Notes which helpers end with their runs, so that a wrapper that reports the stop knows.
    fn note_policy(&self, run: &Arc<Run>) {
        let ends = match self.live.now().enforcement.outside_helpers {
            OutsidePolicy::Report => Vec::new(),
            OutsidePolicy::Stop => self.ender.may_end(run),
        };
        if lock(run).note_ends_with_run(&ends) {
            run.tell_helpers();
        }
    }
}

fn lock(run: &Run) -> std::sync::MutexGuard<'_, Helpers> {
    run.helpers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what a wrapper tells. It informs, so it is bounded and shown as it is.
fn told(roster: &Roster, run: &Arc<Run>, helpers: Vec<OutsideHelper>) {
    // Of a wrapper that the daemon cannot see, the numbers are those of another PID namespace.
    let visible = run.opened.reach.is_some();
    let told = helpers.into_iter().map(|helper| {
        let pid = helper.pid.filter(|_| visible).and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::new);
        let process = pid.and_then(|pid| ProcessEntry::read(pid).ok().flatten()).map(|entry| entry.identity);
        let helper = OutsideHelper { pid: helper.pid.filter(|_| visible), ending: false, ..helper };
        LeftHelper { process, helper, by_wrapper: true, ends_with_run: false }
    });
    let told: Vec<_> = told.collect();
    let (new, changed) = lock(run).told(told);
    for helper in new {
        tell(roster, run, helper);
    }
    if changed {
        run.tell_helpers();
    }
}

/// Adds a helper, and reports one that is new.
fn learn(roster: &Roster, run: &Run, found: LeftHelper) {
    let Some(helper) = lock(run).learn(found).cloned() else { return };
    tell(roster, run, helper);
    run.tell_helpers();
}

/// Reports a helper that is no ordinary service.
fn tell(roster: &Roster, run: &Run, helper: OutsideHelper) {
    let (run_id, via, kind) = (run.id(), &helper.via, helper.kind.as_str());
    if helper.kind.is_helper() && lock(run).may_report() {
        info!(
            %run_id, device_id = %run.opened.device, name = helper.name, pid = helper.pid, via, kind,
            "the agent uses a process outside its tree"
        );
        let found = OutsideFound { agent: run.as_named(), helper };
        roster.journal.tell_of(&run.owner(), Happening::OutsideHelper(found), None);
    } else {
        debug!(%run_id, name = helper.name, pid = helper.pid, via, "the agent uses an ordinary service");
    }
}

fn note_gap(run: &Run, gap: Option<String>) {
    lock(run).set_gap(gap);
}

fn is_alive(process: Identity) -> bool {
    // What cannot be read is not known to have ended.
    ProcessEntry::read(process.pid)
        .map_or(true, |entry| entry.is_some_and(|entry| entry.identity == process && entry.is_alive()))
}

fn admitted(roster: &Roster) -> Vec<Arc<Run>> {
    roster.all().into_iter().filter(|run| run.admission().is_some()).collect()
}

/// Forgets helpers that have ended, of every run and of the stops that are kept.
fn refresh(roster: &Roster) {
    roster.all().iter().for_each(|run| refresh_run(run));
    roster.forget_ended_helpers(is_alive);
}

fn refresh_run(run: &Run) {
    if lock(run).forget_ended(is_alive) {
        run.tell_helpers();
    }
}

fn own_socket(path: &Path) -> Via {
    Via::Unix(path.as_os_str().as_encoded_bytes().to_vec())
}

/// The processes of each tree: those in its control group, or found by descent; where neither is enough, by one table for all.
fn members(roster: &Roster, runs: &[Arc<Run>]) -> Vec<TreeMembers> {
    let by_wrapper = roster.count_by_wrapper();
    let mut table: Option<Option<ProcessTable>> = None;
    let mut of = |run: &Arc<Run>| -> Option<TreeMembers> {
        let reach = run.opened.reach.as_ref()?;
        let shares = run.wrapper().and_then(|wrapper| by_wrapper.get(&wrapper)).is_some_and(|count| *count > 1);
        let mut tree = run.tree(shares)?;
        let numbers = |members: &[Member]| members.iter().map(|member| member.identity.pid).collect::<Vec<_>>();
        let pids = if let Some(inside) = tree.leaf().and_then(|leaf| leaf.processes().ok()) {
            inside
        } else if let Some(members) = tree.members_by_descent().ok().flatten() {
            numbers(&members)
        } else {
            let table = table.get_or_insert_with(|| ProcessTable::scan().ok()).as_ref()?;
            numbers(&tree.members(table))
        };
        let guardian = reach.guardian().map(|guardian| guardian.identity().pid);
        let supervisors = [Some(Pid::own()), run.wrapper().map(|wrapper| wrapper.pid), guardian];
        let supervisors = supervisors.into_iter().flatten().collect();
        Some(TreeMembers { run: run.id(), uid: run.opened.uid, pids, supervisors })
    };
    runs.iter().filter_map(&mut of).collect()
}
