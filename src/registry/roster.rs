//! The roster: the runs there are, and the newest stops.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use machineid_clock::{self as clock, BootTime};
use machineid_protocol::event::{AgentStop, Happening};
use machineid_protocol::status::{OomReport, StopReport};
use machineid_protocol::{DeviceId, RunId};
use machineid_tree::{self as tree, Identity, ProcessEntry};
use tokio::sync::watch;
use tracing::warn;

use super::inside::inside;
use super::ledger::Ledger;
use super::outside::{LeftHelper, OutsideWatch};
use super::run::Run;
use crate::config::Live;
use crate::gate::Deciding;
use crate::telemetry::{AgentOwner, Journal};

/// Stops that are kept.
const REMEMBERED: usize = 64;
/// Agents that ended for lack of memory that are kept.
const REMEMBERED_OOM: usize = 16;

/// Every run whose question is open, or whose tree or wrapper has not ended.
#[derive(Debug)]
pub(crate) struct Roster {
    runs: Mutex<HashMap<RunId, Arc<Run>>>,
    generation: AtomicU64,
    stops: Mutex<VecDeque<Noted>>,
    /// The newest agents that ended for lack of memory.
    oom: Mutex<VecDeque<(AgentOwner, OomReport)>>,
    /// The journal for events of the registry and the enforcer.
    pub(super) journal: Arc<Journal>,
    /// Notified whenever an agent starts, stops or is gone.
    stirred: watch::Sender<()>,
    /// The thread that looks at what agents use outside their trees; set once it runs.
    outside: OnceLock<OutsideWatch>,
}

/// The number of agents, in all and for each device.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// All agents, including those that are being stopped.
    pub(crate) all: u32,
    of: HashMap<DeviceId, DeviceAgents>,
}

/// The agents that live on a device's lease, and those that are being stopped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeviceAgents {
    pub(crate) agents: u32,
    pub(crate) stopping: u32,
}

impl Census {
    pub(crate) fn of(&self, device: &DeviceId) -> DeviceAgents {
        self.of.get(device).copied().unwrap_or_default()
    }
}

/// A stop that is kept.
#[derive(Clone, Debug)]
struct Noted {
    owner: AgentOwner,
    /// The time of the newest report.
    at: BootTime,
    report: StopReport,
    /// The processes of `report.outside`, in the same order.
    left: Vec<Option<Identity>>,
}

impl Roster {
    pub(super) fn new(journal: Arc<Journal>) -> Self {
        Self {
            runs: Mutex::default(),
            generation: AtomicU64::default(),
            stops: Mutex::default(),
            oom: Mutex::default(),
            journal,
            stirred: watch::channel(()).0,
            outside: OnceLock::new(),
        }
    }

    /// Tells that an agent has ended by itself, and keeps it when memory was the reason.
    pub(super) fn note_end(&self, run: &Run) {
        let end = run.as_ended();
        if end.oom_kills > 0 {
            warn!(
                run_id = %run.id(), device_id = %run.opened.device, oom_kills = end.oom_kills,
                "the agent ended; {}", machineid_protocol::oom_in_words(end.oom_kills)
            );
            let report = OomReport {
                run_id: run.id(),
                name: run.opened.name.clone(),
                device_id: run.opened.device.clone(),
                at: clock::wall_now().to_string(),
                oom_kills: end.oom_kills,
            };
            let mut oom = self.oom.lock().unwrap_or_else(PoisonError::into_inner);
            if oom.len() == REMEMBERED_OOM {
                oom.pop_front();
            }
            oom.push_back((run.owner(), report));
        }
        self.journal.tell_of(&run.owner(), Happening::AgentEnded(end), None);
    }

    /// The newest agents that ended for lack of memory, the newest last.
    pub(crate) fn recent_oom(&self) -> Vec<(AgentOwner, OomReport)> {
        self.oom.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Starts to look at what agents use outside their trees. Fails when no thread can be started.
    pub(super) fn watch_outside(self: &Arc<Self>, live: Live) -> io::Result<()> {
        let watch = OutsideWatch::start(self, live)?;
        // Set once, when the registry starts.
        let _ = self.outside.set(watch);
        Ok(())
    }

    /// The thread that looks; `None` where none was started.
    pub(super) fn outside(&self) -> Option<&OutsideWatch> {
        self.outside.get()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that changes whenever a run is added or removed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Adds a run to the locked map. The caller first checks that the id is free.
    pub(super) fn put(&self, runs: &mut HashMap<RunId, Arc<Run>>, run: Arc<Run>) {
        runs.insert(run.id(), run);
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Run>> {
        self.lock().values().cloned().collect()
    }

    /// The numbers of agents, all of one moment.
    pub(crate) fn census(&self) -> Census {
        // One pass for all: a thousand agents may each have a device of their own.
        let mut census = Census::default();
        for (stopping, devices) in self.lock().values().filter_map(|run| run.living()) {
            census.all += 1;
            for device in devices {
                let of_device = census.of.entry(device).or_default();
                *(if stopping { &mut of_device.stopping } else { &mut of_device.agents }) += 1;
            }
        }
        census
    }

    /// Changes whenever an agent starts, stops or is gone.
    pub(crate) fn stirred(&self) -> watch::Receiver<()> {
        self.stirred.subscribe()
    }

    /// The number of runs of each wrapper. Usually one; programs that supervise several children themselves have more.
    pub(crate) fn count_by_wrapper(&self) -> HashMap<Identity, usize> {
        let mut count = HashMap::new();
        for wrapper in self.lock().values().filter_map(|run| run.wrapper()) {
            *count.entry(wrapper).or_insert(0) += 1;
        }
        count
    }

    /// Whether the wrapper of this run has other runs.
    pub(crate) fn shares_wrapper(&self, run: &Run) -> bool {
        let wrapper = run.wrapper();
        wrapper.is_some() && self.lock().values().any(|other| other.id() != run.id() && other.wrapper() == wrapper)
    }

    /// Removes a run of which nothing is left.
    pub(crate) fn forget(&self, run: &Arc<Run>, ledger: &Ledger) {
        self.forget_all(std::slice::from_ref(run), ledger);
    }

    /// Removes several runs of which nothing is left; the gates are told once.
    pub(crate) fn forget_all(&self, gone: &[Arc<Run>], ledger: &Ledger) {
        let removed: Vec<&Run> = gone.iter().filter(|run| self.take_out(run, ledger)).map(AsRef::as_ref).collect();
        if !removed.is_empty() {
            self.tell_gates(removed);
        }
    }

    /// Removes a run; returns whether it was there.
    fn take_out(&self, run: &Arc<Run>, ledger: &Ledger) -> bool {
        let mut runs = self.lock();
        // Another run may have this id by now, if the end of this run is reported twice.
        let removed = match runs.get(&run.id()) {
            Some(known) if Arc::ptr_eq(known, run) => runs.remove(&run.id()),
            Some(_) | None => None,
        };
        if removed.is_some() {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
        // Under the lock: the wrapper may start again with the same id, and the record of that run must stay.
        if removed.is_some() && run.admission().is_some() {
            ledger.over(run.id());
        }
        removed.is_some()
    }

    /// Tells the gates that decide about these runs how many agents now live on their leases.
    pub(crate) fn tell_gates<'a>(&self, runs: impl IntoIterator<Item = &'a Run>) {
        self.stirred.send_replace(());
        let gates = runs.into_iter().filter_map(Run::deciding).flat_map(Deciding::gates);
        let gates: HashMap<_, _> = gates.map(|gate| (gate.device(), gate)).collect();
        // One pass for all: a thousand agents may end at once, each with a device of its own.
        let mut count: HashMap<&DeviceId, usize> = gates.keys().map(|device| (*device, 0)).collect();
        for run in self.lock().values() {
            run.each_ruling(|device| {
                if let Some(agents) = count.get_mut(device) {
                    *agents += 1;
                }
            });
        }
        for (device, gate) in gates {
            gate.set_agents(count.get(device).copied().unwrap_or(0));
        }
    }

    /// Reports and keeps the result of a stop, replacing the earlier report of the same run.
    pub(super) fn note_stop(&self, owner: AgentOwner, mut report: StopReport, left: Vec<LeftHelper>) {
        let processes = left.iter().map(|left| left.process).collect();
        report.outside = left.into_iter().map(|left| left.helper).collect();
        let stop = AgentStop { uid: owner.uid, report: report.clone() };
        let what = if report.confirmed { Happening::AgentStopped(stop) } else { Happening::AgentSurvived(stop) };
        self.journal.tell_of(&owner, what, None);
        let mut stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.retain(|known| known.report.run_id != report.run_id);
        stops.push_back(Noted { owner, at: BootTime::now(), report, left: processes });
        if stops.len() > REMEMBERED {
            stops.pop_front();
        }
        drop(stops);
        self.stirred.send_replace(());
    }

    /// Whether a stop that is kept has left a helper that may be running.
    pub(super) fn has_left_helpers(&self) -> bool {
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.iter().any(|known| known.left.iter().any(Option::is_some))
    }

    /// Forgets the helpers that have ended since.
    pub(super) fn forget_ended_helpers(&self, is_alive: impl Fn(Identity) -> bool) {
        let mut changed = false;
        let mut stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        for known in stops.iter_mut() {
            let lives: Vec<bool> = known.left.iter().map(|process| process.is_none_or(&is_alive)).collect();
            changed |= lives.contains(&false);
            let mut each = lives.iter();
            known.left.retain(|_| *each.next().unwrap_or(&true));
            let mut each = lives.iter();
            known.report.outside.retain(|_| *each.next().unwrap_or(&true));
        }
        drop(stops);
        if changed {
            self.stirred.send_replace(());
        }
    }

    /// The runs whose tree this process is in, the innermost first. `process` is called only when there are runs: reading
    /// `/proc` costs several times as much as the rest of a check.
    ///
    /// `process` returns `None` for a process that cannot be seen from here: it is in no run.
    ///
    /// Fails when `/proc` cannot be read or the process ends meanwhile; neither may read as "in no run".
    pub(super) fn containing(
        &self,
        process: impl FnOnce() -> io::Result<Option<Identity>>,
    ) -> io::Result<Vec<Arc<Run>>> {
        let runs: Vec<_> = self.lock().values().filter(|run| run.leader().is_some()).cloned().collect();
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let Some(caller) = process()? else { return Ok(Vec::new()) };
        let line = tree::ancestry(caller, ProcessEntry::read)?;
        let found = inside(&line, &runs, || tree::usual_groups(caller.pid));
        Ok(found.into_iter().map(|place| Arc::clone(&runs[place])).collect())
    }

    /// The newest stops, the newest last, each with the owner of its agent.
    pub(crate) fn recent_stops(&self) -> Vec<(AgentOwner, StopReport)> {
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.iter().map(|known| (known.owner.clone(), known.report.clone())).collect()
    }

    /// The newest stops, each with how long before `now` it began, independent of changes to the wall clock.
    pub(crate) fn stops_before(&self, now: BootTime) -> Vec<(Duration, StopReport)> {
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = |known: &Noted| now.saturating_since(known.at) + Duration::from_millis(known.report.took_ms);
        stops.iter().map(|known| (ago(known), known.report.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_protocol::{Code, Containment, HoldsAgainst};

    fn report(number: u32, confirmed: bool) -> StopReport {
        StopReport {
            run_id: format!("{number:032x}").parse().unwrap(),
            name: None,
            device_id: "host:1".parse().unwrap(),
            code: Code::LocalStop,
            request_id: None,
            began_at: String::new(),
            mechanism: Containment::Cgroup,
            holds_against: HoldsAgainst::Bugs,
            signalled: 1,
            killed: 0,
            took_ms: 1,
            confirmed,
            survivors: Vec::new(),
            outside: Vec::new(),
        }
    }

    #[test]
    fn a_stop_is_remembered_once_and_only_the_newest_are() {
        let owner = || AgentOwner { uid: 0, namespaces: machineid_tree::PidNamespaces::unknown() };
        let roster = Roster::new(Journal::start(None).unwrap());
        roster.note_stop(owner(), report(0, false), Vec::new());
        roster.note_stop(owner(), report(0, true), Vec::new());
        let reports: Vec<_> = roster.recent_stops().into_iter().map(|(_, report)| report).collect();
        assert_eq!(reports, [report(0, true)]);
        for number in 1..=64 {
            roster.note_stop(owner(), report(number, true), Vec::new());
        }
        let stops = roster.recent_stops();
        assert_eq!((stops.len(), &stops[0].1, &stops[63].1), (64, &report(1, true), &report(64, true)));
    }
}
