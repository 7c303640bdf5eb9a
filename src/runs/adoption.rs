//! What becomes of the runs that a daemon before us wrote down.
//!
//! Their wrappers come back by themselves. Until then, and for those that do not, the recorded lease holds: the run is
//! registered before any gate starts, so that no deny can miss it, and gets its gates afterwards. Nothing is done but for
//! a record, and nothing to a process whose start time is not the recorded one.

use std::sync::Arc;

use machineid_clock::BootTime;
use machineid_protocol::Containment;
use machineid_tree::{Leaf, ProcessTable};
use tracing::{info, warn};

use super::enforcer::{Ending, Reason, SignalBy};
use super::freeze::Undecided;
use super::hold::Hold;
use super::ledger::{Entry, Store};
use super::reach::{Pinned, PinnedGuardian, Reach};
use super::registry::{Runs, wrapper_gone};
use super::run::{Admission, AskedTerms, Opened, Run};
use crate::gate::Gates;

/// What is done about a run that was found written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Its wrapper lives: wait for it, until the recorded deadline.
    Await,
    /// Its wrapper is dead: stop what is left of it.
    Stop(SignalBy),
    /// Its stop had begun: go on with it.
    GoOn,
}

/// Decides that. A guardian that lives and found no daemon has sent the stop signal itself, and no process gets it twice.
fn course(stop_began: bool, wrapper_lives: bool, guardian_lives: bool) -> Course {
    match (stop_began, wrapper_lives, guardian_lives) {
        (true, _, _) => Course::GoOn,
        (false, true, _) => Course::Await,
        (false, false, true) => Course::Stop(SignalBy::Earlier),
        (false, false, false) => Course::Stop(SignalBy::Us),
    }
}

impl Runs {
    /// Takes on every run that is written down. To be called before any gate starts, and before the socket is served.
    pub(crate) fn adopt_all(&self, store: &Store) {
        let entries = match store.read_all() {
            Ok(entries) => entries,
            Err(error) => {
                warn!(%error, "cannot read the records of earlier runs; their wrappers enforce their leases");
                return;
            }
        };
        // For wrappers that had children of their own, which are told by their age.
        let table = if entries.iter().all(|entry| entry.alone) { None } else { ProcessTable::scan().ok() };
        let table =
            table.unwrap_or_else(|| ProcessTable::from_entries(machineid_tree::Observer::current(), Vec::new()));
        for entry in entries {
            self.adopt(entry, &table);
        }
        self.enforcer.watch();
    }

    /// Keeps the gates of the adopted runs running, and has them asked at once.
    pub(crate) fn attach(&self, gates: &Gates) {
        for run in self.record.all().into_iter().filter(|run| run.deciding().is_none()) {
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
        let runs = self.record.all();
        self.record.tell_gates(runs.iter().map(AsRef::as_ref));
    }

    fn adopt(&self, entry: Entry, table: &ProcessTable) {
        let (id, now) = (entry.id, BootTime::now());
        let reach = reach_of(&entry, table);
        let wrapper_lives = !reach.wrapper.has_ended();
        let guardian_lives = reach.guardian.as_ref().is_some_and(|guardian| !guardian.pinned.has_ended());
        let course = course(entry.stop.is_some(), wrapper_lives, guardian_lives);
        let hold = hold_of(&entry);
        let frozen = hold.leaf.as_ref().and_then(|leaf| leaf.state().ok()).is_some_and(|state| state.frozen);
        let mut undecided = Undecided::default();
        if frozen {
            // Until there is an answer.
            for (device, _) in &entry.leases {
                undecided.unavailable(device, &Arc::from("the daemon has restarted and has no answer yet"));
            }
        }
        let opened = Opened {
            id,
            device: entry.device,
            name: entry.name,
            command: entry.command,
            uid: entry.uid,
            // What the wrapper left open then is not known any more.
            asked: AskedTerms { signal: Some(entry.stop_signal), grace: Some(entry.stop_grace) },
            reach: Some(reach),
        };
        let run = Arc::new(Run::new(opened, self.live.now().stop_terms()));
        run.note_frozen(frozen);
        let admission = Admission {
            since: entry.started,
            code: entry.code,
            request_id: entry.request_id,
            hold,
            token: entry.token,
        };
        run.admit(admission, entry.leases, undecided);
        self.record.put(&mut self.record.lock(), Arc::clone(&run));
        let device_id = &run.opened.device;
        match course {
            Course::Await => {
                info!(run_id = %id, %device_id, "adopted agent from previous run; waiting for its wrapper to reconnect");
                if frozen && !self.freezes() {
                    self.enforcer.hold(&run);
                }
            }
            Course::Stop(signal_by) => {
                info!(run_id = %id, %device_id, "the wrapper of an adopted agent is dead; stopping what is left of \
                                                 the agent");
                let ending = wrapper_gone(now, &run, &self.record, &self.ledger);
                self.enforcer.end(ending.into_iter().map(|ending| Ending { signal_by, ..ending }).collect());
            }
            Course::GoOn => {
                let Some(stop) = entry.stop else { return };
                info!(run_id = %id, %device_id, code = %stop.denial.code, "continuing a stop that began before the \
                    restart");
                let reason = Reason::Denied(stop.denial.clone());
                run.adopt_stop(stop);
                self.enforcer.end(vec![Ending { run, signal_by: SignalBy::Earlier, reason }]);
            }
        }
    }
}

fn reach_of(entry: &Entry, table: &ProcessTable) -> Reach {
    let pinned = |role: machineid_tree::Guardian| PinnedGuardian { role, pinned: Pinned::find(role.identity()) };
    let guardian = entry.guardian.map(pinned);
    Reach::new(Pinned::find(entry.leader), Pinned::find(entry.wrapper), guardian, entry.alone, table)
}

/// What holds it by now: who owns the leaf is looked at again, as everything about it is.
fn hold_of(entry: &Entry) -> Hold {
    let leaf = entry.leaf.as_ref().and_then(|path| match Leaf::reopen(path, entry.id) {
        Ok(leaf) => leaf.map(Arc::new),
        Err(why) => {
            warn!(run_id = %entry.id, %why, "the control group of an adopted agent can no longer be used");
            None
        }
    });
    match (entry.containment, leaf) {
        (Containment::Pidns, leaf) => Hold { leaf, ..Hold::namespace() },
        (Containment::Cgroup | Containment::Subreaper, Some(leaf)) => Hold::leaf(leaf, entry.uid),
        (Containment::Cgroup | Containment::Subreaper, None) => {
            Hold::subreaper("no control group: it had none, or had lost it, when the daemon restarted".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_else_has_asked_to_stop_is_asked_by_us() {
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
