//! All supervised runs.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tracing::{info, warn};

use super::enforcer::{Ending, Enforcer, Reason};
use super::record::Record;
use super::run::{Opened, Phase, Run, StopNotice};
use crate::clock::BootTime;
use crate::gate::{Agents, Deciding, Standing};
use crate::protocol::{Code, Denial, DeviceId, RunId};
use crate::tree::{FirstSignal, Identity, ProcessEntry};

/// What the daemon does with its runs.
#[derive(Debug)]
pub(crate) struct Runs {
    record: Arc<Record>,
    enforcer: Enforcer,
}

/// Why a run that was asked for does not start after all.
#[derive(Debug)]
pub(crate) enum Refused {
    /// A deny came between the ALLOW and the start.
    Denied(Denial),
    /// The lease was lost between the ALLOW and the start.
    NoLease,
}

impl Runs {
    /// Starts with none, and with the thread that will end them. Fails when no thread is to be had.
    pub(crate) fn start() -> io::Result<Self> {
        let record = Arc::<Record>::default();
        Ok(Self { enforcer: Enforcer::start(Arc::clone(&record))?, record })
    }

    /// Records a run whose question is open. `None` when its id is in use.
    pub(crate) fn open(&self, opened: Opened) -> Option<Arc<Run>> {
        let mut runs = self.record.lock();
        if runs.contains_key(&opened.id) {
            return None;
        }
        let run = Arc::new(Run::new(opened));
        runs.insert(run.id(), Arc::clone(&run));
        Some(run)
    }

    /// Lets a run start on what its gates hold *now*. A gate publishes a deny before it stops the device's agents: a deny
    /// that this look misses finds the run admitted, and stops it.
    pub(crate) fn admit(&self, run: &Run, deciding: &Deciding) -> Result<BootTime, Refused> {
        let runs = self.record.lock();
        let Some(leases) = deciding.leases() else {
            let denial = deciding.gates().find_map(|gate| {
                gate.look(|report| match &report.standing {
                    Standing::Denied { refusal, .. } => Some(refusal.denial.clone()),
                    Standing::Unknown | Standing::Allowed { .. } | Standing::Unavailable { .. } => None,
                })
            });
            return Err(denial.map_or(Refused::NoLease, Refused::Denied));
        };
        let until = super::run::deadline(&leases).ok_or(Refused::NoLease)?;
        run.admit(BootTime::now(), leases);
        drop(runs);
        let opened = &run.opened;
        info!(
            run_id = %opened.id, device_id = %opened.device, name = opened.name.as_deref().unwrap_or(""), uid = opened.uid,
            pid = run.leader().map(|leader| leader.pid.as_raw()), killer = run.killer().as_str(), "agent started"
        );
        for gate in deciding.gates() {
            gate.set_agents(self.count(gate.device()));
        }
        Ok(until)
    }

    /// The wrapper's stream ended: it is done, or it died. What is left of the tree is stopped.
    pub(crate) fn stream_ended(&self, run: &Arc<Run>) {
        let never_started = matches!(&*run.phase(), Phase::Asking);
        if run.note_stream_end() || never_started || run.opened.reach.is_none() {
            self.record.forget(run.id());
            if !never_started && run.opened.reach.is_none() {
                info!(run_id = %run.id(), device_id = %run.opened.device, "the wrapper of a remote agent is gone");
            }
            return;
        }
        let denial = Denial::local(Code::LocalStop, "the wrapper died");
        let first_signal = if run.begin_stop(&denial) { FirstSignal::Ours } else { FirstSignal::Theirs };
        let shares_wrapper = *self.runs_by_wrapper().get(&run.wrapper()).unwrap_or(&0) > 1;
        let run = Arc::clone(run);
        self.enforcer.end(vec![Ending { run, first_signal, reason: Reason::WrapperGone, shares_wrapper }]);
    }

    pub(crate) fn get(&self, id: RunId) -> Option<Arc<Run>> {
        self.record.lock().get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Run>> {
        let mut all: Vec<_> = self.record.lock().values().cloned().collect();
        all.sort_by_key(|run| run.id());
        all
    }

    /// How many agents live on the device's lease.
    pub(crate) fn count(&self, device: &DeviceId) -> usize {
        self.record.lock().values().filter(|run| run.is_ruled_by(device)).count()
    }

    /// The runs whose tree this process is in, by descent. The process is made out only when there are runs it could be
    /// in: a look at `/proc` costs several times what the rest of a check does.
    ///
    /// Fails when `/proc` cannot be read, which must not read as "in no run".
    pub(crate) fn containing(
        &self,
        process: impl FnOnce() -> io::Result<Option<Identity>>,
    ) -> io::Result<Vec<Arc<Run>>> {
        let runs: Vec<_> = self.record.lock().values().filter(|run| run.leader().is_some()).cloned().collect();
        let mut found = Vec::new();
        if runs.is_empty() {
            return Ok(found);
        }
        let Some(mut at) = process()? else { return Ok(found) };
        let mut parent = ProcessEntry::read(at.pid)?.and_then(|entry| entry.parent);
        // Bounded, should the chain change into a circle while it is read.
        for _ in 0..1024 {
            let is_in = |run: &&Arc<Run>| run.leader() == Some(at) || run.wrapper() == Some(at);
            found.extend(runs.iter().filter(is_in).cloned());
            let Some(next) = parent else { break };
            let Some(entry) = ProcessEntry::read(next)? else { break };
            at = entry.identity;
            parent = entry.parent;
        }
        found.dedup_by_key(|run| run.id());
        Ok(found)
    }

    /// How many runs each wrapper has: one, but for programs that supervise several children themselves.
    fn runs_by_wrapper(&self) -> HashMap<Option<Identity>, usize> {
        let mut count = HashMap::new();
        for run in self.record.lock().values() {
            *count.entry(run.wrapper()).or_insert(0) += 1;
        }
        count
    }
}

impl Agents for Runs {
    fn lease_moved(&self, device: &DeviceId, until: BootTime) {
        self.record.lock().values().for_each(|run| run.lease_moved(device, until));
    }

    fn stop(&self, device: &DeviceId, denial: &Denial) {
        let now = BootTime::now();
        let ruled: Vec<_> = self.record.lock().values().filter(|run| run.is_ruled_by(device)).cloned().collect();
        let by_wrapper = self.runs_by_wrapper();
        let mut endings = Vec::with_capacity(ruled.len());
        for run in ruled.into_iter().filter(|run| run.begin_stop(denial)) {
            warn!(
                run_id = %run.id(), device_id = %run.opened.device, code = %denial.code,
                request_id = denial.request_id.as_ref().map_or("", |id| id.as_str()), "stopping the agent"
            );
            if run.opened.reach.is_none() {
                let kill_at = now + run.opened.stop_grace;
                run.notify_stop(StopNotice { denial: denial.clone(), signalled: false, kill_at });
                continue;
            }
            // At the end of a lease the stop signal is the wrapper's: both know the deadline, and no process may get
            // the signal twice. A wrapper that cannot act is found by the enforcer.
            let first_signal = if denial.code == Code::LeaseExpired { FirstSignal::Theirs } else { FirstSignal::Ours };
            let shares_wrapper = *by_wrapper.get(&run.wrapper()).unwrap_or(&0) > 1;
            endings.push(Ending { run, first_signal, reason: Reason::Denied(denial.clone()), shares_wrapper });
        }
        if !endings.is_empty() {
            self.enforcer.end(endings);
        }
    }
}
