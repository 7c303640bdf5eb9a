//! Adoption: what this daemon does about the runs that a previous daemon recorded. (`machineid adopt`, which puts a process
//! under supervision that was started without it, is `local/supervise/adopt`; such a run is recorded as well.)
//!
//! The wrappers reconnect by themselves. Until then, and for a wrapper that does not, the recorded lease holds: each run is
//! registered before any gate starts, so that no deny can miss it, and gets its gates afterwards. The daemon acts only on
//! runs that have a record, and only on processes whose start time is the recorded one.

use std::sync::Arc;

use machineid_clock::BootTime;
use machineid_protocol::Containment;
use machineid_tree::{Leaf, PidNamespaces, ProcessTable, Tree};
use tracing::{info, warn};

use super::containment::RunContainment;
use super::enforcer::{EndReason, SignalBy, TreeToEnd};
use super::freeze::Undecided;
use super::ledger::{RunRecord, Store};
use super::reach::{Pinned, PinnedGuardian, Reach};
use super::run::{Admission, AskedTerms, Opened, Run};
use super::run_registry::{RunRegistry, leader_gone, wrapper_gone};
use crate::gate::Gates;

/// What is done about a recorded run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// The wrapper lives: wait until it reconnects, or until the recorded deadline.
    Await,
    /// The wrapper is dead: stop what is left of the run.
    Stop(SignalBy),
    /// The stop had begun: continue it.
    GoOn,
}

/// Decides the course. A living guardian that found no daemon has sent the stop signal itself, and no process may get it
/// twice.
fn course(stop_began: bool, wrapper_lives: bool, guardian_lives: bool) -> Course {
    match (stop_began, wrapper_lives, guardian_lives) {
        (true, _, _) => Course::GoOn,
        (false, true, _) => Course::Await,
        (false, false, true) => Course::Stop(SignalBy::Earlier),
        (false, false, false) => Course::Stop(SignalBy::Us),
    }
}

impl RunRegistry {
    /// Adopts every recorded run. To be called before any gate starts, and before the socket is served.
    pub(crate) fn adopt_all(&self, store: &Store) {
        let records = match store.read_all() {
            Ok(records) => records,
            Err(error) => {
                warn!(%error, "cannot read the records of earlier runs; their wrappers enforce their leases");
                return;
            }
        };
        // Only needed for wrappers that had other children: those are recognised by their age.
        let table = if records.iter().all(|record| record.alone) { None } else { ProcessTable::scan().ok() };
        let table =
            table.unwrap_or_else(|| ProcessTable::from_entries(machineid_tree::Observer::current(), Vec::new()));
        for record in records {
            self.adopt(record, &table);
        }
        self.enforcer.watch();
        self.look_outside();
    }

    /// Attaches gates to the adopted runs, keeps them running and has them validate at once.
    pub(crate) fn attach(&self, gates: &Gates) {
        for run in self.roster.all().into_iter().filter(|run| run.deciding().is_none()) {
            let deciding = match gates.deciding(std::slice::from_ref(&run.opened.device)) {
                Ok(deciding) => deciding,
                Err(error) => {
                    warn!(run_id = %run.id(), %error, "no gate for a run from before the restart; its recorded lease \
                                                       applies");
                    continue;
                }
            };
            for gate in deciding.gates() {
                if let Some(until) = run.deadline() {
                    gate.inherit(until);
                }
                gate.hint();
            }
            run.keep_gates(Arc::new(deciding));
        }
        let runs = self.roster.all();
        self.roster.tell_gates(runs.iter().map(AsRef::as_ref));
    }

    fn adopt(&self, record: RunRecord, table: &ProcessTable) {
        let (id, now) = (record.id, BootTime::now());
        let reach = reach_of(&record, table);
        // An adopted tree lives as long as its leader.
        let wrapper_lives = !reach.wrapper.as_ref().unwrap_or(&reach.leader).has_ended();
        let guardian_lives = reach.guardian.as_ref().is_some_and(|guardian| !guardian.pinned.has_ended());
        let course = course(record.stop.is_some(), wrapper_lives, guardian_lives);
        let containment = containment_of(&record);
        let frozen = containment.leaf.as_ref().and_then(|leaf| leaf.state().ok()).is_some_and(|state| state.frozen);
        let mut undecided = Undecided::default();
        if frozen {
            // It stays frozen until there is an answer.
            for (device, _) in &record.leases {
                undecided.unavailable(device, &Arc::from("the daemon has restarted and has no answer yet"));
            }
        }
        let supervisors =
            [Some(&reach.leader), reach.guardian.as_ref().map(|held| &held.pinned), reach.wrapper.as_ref()];
        let living = supervisors.into_iter().flatten().find(|held| !held.has_ended());
        let opened = Opened {
            id,
            device: record.device,
            name: record.name,
            command: record.command,
            uid: record.uid,
            namespaces: living.map(|held| PidNamespaces::of(held.identity)).unwrap_or_default(),
            // Which of them the wrapper left to the configuration is no longer known.
            asked: AskedTerms { signal: Some(record.stop_signal), grace: Some(record.stop_grace) },
            reach: Some(reach),
        };
        let run = Arc::new(Run::new(opened, self.live.now().stop_terms()));
        run.note_frozen(frozen);
        let admission = Admission {
            since: record.started,
            code: record.code,
            request_id: record.request_id,
            containment,
            token: record.token,
        };
        run.admit(admission, record.leases, undecided);
        if run.is_adopted() {
            run.note_wrapper_left();
        }
        self.roster.put(&mut self.roster.lock(), Arc::clone(&run));
        let device_id = &run.opened.device;
        match course {
            Course::Await => {
                if run.is_adopted() {
                    info!(run_id = %id, %device_id, "supervising the tree of an adopted process again");
                } else {
                    info!(
                        run_id = %id, %device_id,
                        "adopted agent from previous run; waiting for its wrapper to reconnect"
                    );
                }
                if frozen && !self.freezes() {
                    self.enforcer.apply_freeze(&run);
                }
            }
            Course::Stop(signal_by) => {
                info!(run_id = %id, %device_id, "the wrapper of an agent from a previous run is dead; stopping what is left \
                                                 of the agent");
                let ending = if run.is_adopted() {
                    leader_gone(now, &run)
                } else {
                    wrapper_gone(now, &run, &self.roster, &self.ledger)
                };
                self.enforcer.end(ending.into_iter().map(|ending| TreeToEnd { signal_by, ..ending }).collect());
            }
            Course::GoOn => {
                let Some(stop) = record.stop else { return };
                info!(run_id = %id, %device_id, code = %stop.denial.code, "continuing a stop that began before the \
                    restart");
                let reason = EndReason::Denied(stop.denial.clone());
                run.adopt_stop(stop);
                self.enforcer.end(vec![TreeToEnd { run, signal_by: SignalBy::Earlier, reason }]);
            }
        }
    }
}

fn reach_of(record: &RunRecord, table: &ProcessTable) -> Reach {
    let pinned = |role: machineid_tree::Guardian| PinnedGuardian { role, pinned: Pinned::find(role.identity()) };
    let guardian = record.guardian.map(pinned);
    let leader = Pinned::find(record.leader);
    if let Some(wrapper) = record.wrapper {
        return Reach::new(leader, Pinned::find(wrapper), guardian, record.alone, table);
    }
    let mut tree = Tree::alone(record.leader, None).without_group();
    // What descends from it is known from here on, also when its parents end.
    if let Ok(table) = ProcessTable::scan() {
        tree.members(&table);
    }
    Reach::adopted(leader, tree)
}

/// The containment of a recorded run as it is now. The owner of the leaf, like everything else about it, is read again.
fn containment_of(record: &RunRecord) -> RunContainment {
    let leaf = record.leaf.as_ref().and_then(|path| match Leaf::reopen(path, record.id) {
        Ok(leaf) => leaf.map(Arc::new),
        Err(why) => {
            warn!(run_id = %record.id, %why, "the control group of an adopted agent can no longer be used");
            None
        }
    });
    match (record.containment, leaf) {
        (Containment::Pidns, leaf) => RunContainment { leaf, ..RunContainment::namespace() },
        (Containment::Cgroup | Containment::Subreaper, Some(leaf)) if record.wrapper.is_none() => {
            RunContainment::gathered(leaf)
        }
        (Containment::Cgroup | Containment::Subreaper, Some(leaf)) => RunContainment::leaf(leaf, record.uid),
        (Containment::Cgroup | Containment::Subreaper, None) => RunContainment::subreaper(
            "no control group: it had none, or had lost it, when the daemon restarted".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_other_process_has_asked_to_stop_is_asked_by_us() {
        for (stop_began, wrapper_lives, guardian_lives, expected) in [
            (true, true, true, Course::GoOn),
            (true, false, false, Course::GoOn),
            (false, true, true, Course::Await),
            (false, true, false, Course::Await),
            (false, false, true, Course::Stop(SignalBy::Earlier)),
            (false, false, false, Course::Stop(SignalBy::Us)),
        ] {
            let found = course(stop_began, wrapper_lives, guardian_lives);
            assert_eq!(found, expected, "{stop_began} {wrapper_lives} {guardian_lives}");
        }
    }
}
