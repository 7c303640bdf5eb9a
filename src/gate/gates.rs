//! The gates: one for the host's device, one for its workload's, and one for each other device while it is in use.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use machineid_clock::BootTime;
use machineid_protocol::{Denial, DeviceId};
use tokio::sync::watch;

use super::attempt::AuthorityLink;
use super::core::{AskPurpose, First};
use super::driver::Agents;
use super::handle::GateHandle;
use super::standing::{ConfirmedDenial, GateVerdict, Standing};
use crate::config::Live;

/// Devices whose agents a revoke ended are remembered, up to this number and for this time: an operator may still wait for
/// the confirmation that nothing of them is left. Their gates end with the last agent, which may be gone before the next
/// report.
const REMEMBERED: usize = 1024;
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// All gates of the daemon.
#[derive(Debug)]
pub(crate) struct Gates {
    host: GateHandle,
    /// The device that all replicas of this host's workload share: it must allow as well, whatever else is asked.
    workload: Option<GateHandle>,
    others: Others,
}

/// The gates of devices other than the host's.
#[derive(Clone)]
struct Others {
    live: Live,
    authority: Arc<AuthorityLink>,
    agents: Arc<dyn Agents>,
    in_use: Arc<Mutex<HashMap<DeviceId, InUse>>>,
    /// The newest devices whose agents a revoke ended, with the deny.
    ended: Arc<Mutex<VecDeque<EndedDevice>>>,
    /// Notified whenever a gate is added or removed.
    changes: Arc<watch::Sender<()>>,
}

#[derive(Debug)]
struct InUse {
    gate: GateHandle,
    users: usize,
}

/// A device that is no longer in use and was revoked when its last user left.
#[derive(Clone, Debug)]
pub(crate) struct EndedDevice {
    pub(crate) device: DeviceId,
    pub(crate) denial: Denial,
    at: BootTime,
}

impl std::fmt::Debug for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Others").field("in_use", &self.in_use).finish_non_exhaustive()
    }
}

/// The gates that decide about one question or agent: all must allow. They run at least as long as this lives.
#[derive(Debug)]
pub(crate) struct Deciding {
    gates: Vec<GateUse>,
}

#[derive(Debug)]
struct GateUse {
    gate: GateHandle,
    /// Where the use is returned, for a gate other than the host's.
    others: Option<Others>,
}

impl Gates {
    /// Starts the gates of the host and its workload. Fails when the process has no descriptor left.
    pub(crate) fn start(
        host: DeviceId,
        workload: Option<&DeviceId>,
        live: &Live,
        authority: &Arc<AuthorityLink>,
        agents: &Arc<dyn Agents>,
    ) -> io::Result<Self> {
        let host = GateHandle::start(host, live, First::AtOnce, Arc::clone(authority), Arc::clone(agents))?;
        let (authority, agents) = (Arc::clone(authority), Arc::clone(agents));
        let changes = Arc::new(watch::channel(()).0);
        let live = live.clone();
        let others = Others { live, authority, agents, in_use: Arc::default(), ended: Arc::default(), changes };
        // Taken and never given back: it runs as long as the daemon.
        let workload = workload.map(|device| others.take(device, First::AtOnce)).transpose()?;
        Ok(Self { host, workload, others })
    }

    pub(crate) fn host(&self) -> &GateHandle {
        &self.host
    }

    /// The gate of the device that all replicas of this host's workload share.
    pub(crate) fn workload(&self) -> Option<&GateHandle> {
        self.workload.as_ref()
    }

    pub(crate) fn authority(&self) -> &AuthorityLink {
        &self.others.authority
    }

    /// The gates that decide about these devices: their own, the workload's and, while it rules all, the host's. Without
    /// devices: the host's and the workload's. The caller checks whether the devices may be named.
    ///
    /// Fails when the process has no descriptor left for another gate.
    pub(crate) fn deciding(&self, devices: &[DeviceId]) -> io::Result<Deciding> {
        let foreign = |device: &&DeviceId| *device != self.host.device();
        let host_rules_all = self.others.live.now().device.host_rules_all;
        let host_asked = host_rules_all || devices.is_empty() || !devices.iter().all(|device| foreign(&device));
        let mut gates: Vec<GateUse> = Vec::new();
        // A workload that is named stands in its place among the named devices.
        if let Some(workload) = self.workload().filter(|workload| !devices.contains(workload.device())) {
            gates.push(GateUse { gate: workload.clone(), others: None });
        }
        if host_asked {
            gates.push(GateUse { gate: self.host.clone(), others: None });
        }
        for device in devices.iter().filter(foreign) {
            if gates.iter().all(|held| held.gate.device() != device) {
                gates.push(GateUse {
                    gate: self.others.take(device, First::WhenAsked)?,
                    others: Some(self.others.clone()),
                });
            }
        }
        Ok(Deciding { gates })
    }

    /// Every running gate, and the devices no longer in use that were recently revoked when their last user left; all of one
    /// moment.
    pub(crate) fn used_and_ended(&self, now: BootTime) -> (Vec<GateHandle>, Vec<EndedDevice>) {
        let in_use = self.others.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let used = std::iter::once(self.host.clone()).chain(in_use.values().map(|other| other.gate.clone())).collect();
        let ended = self.others.ended();
        let lately = ended.iter().filter(|one| now.saturating_since(one.at) < REMEMBERED_FOR);
        (used, lately.cloned().collect())
    }

    /// Hints this device's gate, if it has one, to validate now.
    pub(crate) fn hint(&self, device: &DeviceId) {
        self.all().iter().filter(|gate| gate.device() == device).for_each(GateHandle::hint);
    }

    /// Hints every gate to validate now.
    pub(crate) fn hint_all(&self) {
        self.host.hint();
        let in_use = self.others.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.values().for_each(|other| other.gate.hint());
    }

    /// Makes every gate read the clocks: the machine may have been suspended.
    pub(crate) fn wake_all(&self) {
        self.all().iter().for_each(GateHandle::wake);
    }

    /// Notifies when a gate is added or removed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.others.changes.subscribe()
    }

    /// The running gate of this device.
    pub(crate) fn get(&self, device: &DeviceId) -> Option<GateHandle> {
        if device == self.host.device() {
            return Some(self.host.clone());
        }
        let in_use = self.others.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.get(device).map(|other| other.gate.clone())
    }

    /// Returns when every gate has completed a turn.
    pub(crate) async fn pulse(&self) {
        for gate in self.all() {
            gate.pulse().await;
        }
    }

    /// Every running gate, the host's first.
    pub(crate) fn all(&self) -> Vec<GateHandle> {
        let in_use = self.others.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others: Vec<_> = in_use.values().map(|other| other.gate.clone()).collect();
        others.sort_by(|a, b| a.device().cmp(b.device()));
        std::iter::once(self.host.clone()).chain(others).collect()
    }
}

impl Others {
    fn take(&self, device: &DeviceId, first: First) -> io::Result<GateHandle> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = in_use.get_mut(device) {
            other.users += 1;
            return Ok(other.gate.clone());
        }
        let (authority, agents) = (Arc::clone(&self.authority), Arc::clone(&self.agents));
        let gate = GateHandle::start(device.clone(), &self.live, first, authority, agents)?;
        in_use.insert(device.clone(), InUse { gate: gate.clone(), users: 1 });
        self.ended().retain(|one| one.device != *device);
        self.changes.send_replace(());
        Ok(gate)
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<EndedDevice>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_end(&self, end: EndedDevice) {
        let mut ended = self.ended();
        ended.retain(|one| one.device != end.device && end.at.saturating_since(one.at) < REMEMBERED_FOR);
        ended.push_back(end);
        if ended.len() > REMEMBERED {
            ended.pop_front();
        }
    }

    fn give_back(&self, device: &DeviceId) {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = in_use.get_mut(device) {
            other.users -= 1;
            if other.users == 0 {
                if let Standing::Denied { refusal, .. } = other.gate.view().standing
                    && refusal.denial.revoked_at.is_some()
                {
                    self.note_end(EndedDevice { device: device.clone(), denial: refusal.denial, at: BootTime::now() });
                }
                in_use.remove(device);
                self.changes.send_replace(());
            }
        }
    }
}

impl Drop for GateUse {
    fn drop(&mut self) {
        if let Some(others) = &self.others {
            others.give_back(self.gate.device());
        }
    }
}

impl Deciding {
    /// The device the decision is about: the last one named, else the host's.
    pub(crate) fn device(&self) -> Option<&DeviceId> {
        self.gates.last().map(|held| held.gate.device())
    }

    pub(crate) fn gates(&self) -> impl Iterator<Item = &GateHandle> {
        self.gates.iter().map(|held| &held.gate)
    }

    /// The deny of a hold on one of the devices.
    pub(crate) fn held(&self) -> Option<Denial> {
        self.gates().find_map(GateHandle::held)
    }

    /// Asks all gates in parallel. The first deny is the answer; otherwise the first "undecided"; otherwise an ALLOW with the
    /// age of the oldest and the lease of the shortest.
    pub(crate) async fn ask(&self, deadline: BootTime, purpose: AskPurpose) -> GateVerdict {
        if let Some(denied) = self.denied_here() {
            return denied;
        }
        let verdict = self.ask_gates(deadline, purpose).await;
        // A hold may have been set during the request.
        self.denied_here().unwrap_or(verdict)
    }

    fn denied_here(&self) -> Option<GateVerdict> {
        self.held().map(|denial| GateVerdict::Denied(ConfirmedDenial { denial, confirmed_at: BootTime::now() }))
    }

    async fn ask_gates(&self, deadline: BootTime, purpose: AskPurpose) -> GateVerdict {
        let mut all = self.gates.iter();
        let Some(first) = all.next() else { return no_gate() };
        let mut verdict =
            Box::pin(first.gate.ask(deadline, purpose)) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>;
        for next in all {
            verdict = Box::pin(both(verdict, next.gate.ask(deadline, purpose)));
        }
        verdict.await
    }

    /// The answer that the present standings give to a caller that accepts one as old as `max_age`.
    pub(crate) fn cached(&self, now: BootTime, max_age: Duration) -> Option<GateVerdict> {
        self.gates().map(|gate| gate.cached(now, max_age)).reduce(|a, b| Some(join(a?, b?)))?
    }

    /// The leases that the gates' present standings give together; `None` when one of them gives none.
    pub(crate) fn leases(&self) -> Option<Vec<(DeviceId, BootTime)>> {
        if self.held().is_some() {
            return None;
        }
        let lease = |gate: &GateHandle| gate.look(|view| view.lease_until).map(|at| (gate.device().clone(), at));
        self.gates().map(lease).collect()
    }
}

async fn both(a: impl Future<Output = GateVerdict> + Unpin, b: impl Future<Output = GateVerdict>) -> GateVerdict {
    let b = Box::pin(b);
    match select(a, b).await {
        Either::Left((GateVerdict::Denied(refusal), _)) | Either::Right((GateVerdict::Denied(refusal), _)) => {
            GateVerdict::Denied(refusal)
        }
        Either::Left((first, other)) => join(first, other.await),
        Either::Right((first, other)) => join(other.await, first),
    }
}

/// Combines two answers, both of which must allow.
fn join(a: GateVerdict, b: GateVerdict) -> GateVerdict {
    match (a, b) {
        (GateVerdict::Denied(refusal), _) | (_, GateVerdict::Denied(refusal)) => GateVerdict::Denied(refusal),
        (undecided @ GateVerdict::Undecided { .. }, _) | (_, undecided @ GateVerdict::Undecided { .. }) => undecided,
        (GateVerdict::Allowed { grant: a, until: a_until }, GateVerdict::Allowed { grant: mut b, until: b_until }) => {
            b.confirmed_at = b.confirmed_at.min(a.confirmed_at);
            GateVerdict::Allowed { grant: b, until: a_until.min(b_until) }
        }
    }
}

fn no_gate() -> GateVerdict {
    GateVerdict::undecided(
        machineid_protocol::Code::AuthorityUnreachable,
        "the daemon has no gate that could ask the \
                                                                        authority",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::standing::Grant;
    use machineid_protocol::Code;

    fn allowed(at: u64) -> GateVerdict {
        let confirmed_at = BootTime::from_millis(at);
        let grant = Grant { code: Code::Allow, request_id: None, confirmed_at };
        GateVerdict::Allowed { grant, until: confirmed_at + Duration::from_secs(30) }
    }

    fn denied() -> GateVerdict {
        let denial = Denial::local(Code::DeviceRevoked, "");
        GateVerdict::Denied(ConfirmedDenial { denial, confirmed_at: BootTime::default() })
    }

    fn undecided() -> GateVerdict {
        no_gate()
    }

    #[test]
    fn yes_takes_two_and_is_as_old_as_the_older() {
        assert_eq!(join(allowed(10), allowed(20)), allowed(10));
        assert_eq!(join(allowed(20), allowed(10)), allowed(10));
        for other in [allowed(1), undecided(), denied()] {
            assert_eq!(join(denied(), other.clone()), denied());
            assert_eq!(join(other, denied()), denied());
        }
        assert_eq!(join(allowed(1), undecided()), undecided());
    }

    #[tokio::test]
    async fn a_deny_does_not_wait_for_the_other_gate() {
        let never = std::future::pending();
        let verdict = both(std::future::ready(denied()), Box::pin(never)).await;
        assert_eq!(verdict, denied());
    }
}
