//! Who the processes of a run are, and a descriptor on each.

use std::collections::HashMap;

use machineid_protocol::Code;
use machineid_protocol::local::SuperviseRequest;
use machineid_sys as sys;
use machineid_tree::{Guardian, Identity, Pid, Process, ProcessTable, namespace_pids};
use tracing::warn;

use super::StartRefusal;
use crate::local::peer::Peer;
use crate::registry::reach::{PinnedGuardian, Reach};

/// Pins the agent's leader, its wrapper and what stands between them. `None` where the daemon cannot see or signal them.
pub(super) fn reach(peer: &Peer, request: &SuperviseRequest) -> Result<Option<Reach>, StartRefusal> {
    let Some(peer_pid) = peer.pid() else { return Ok(None) };
    let wrapper = peer.process();
    let wrapper = wrapper.map_err(|error| {
        StartRefusal::new(Code::Overloaded, format!("cannot get a handle of the calling process: {error}"))
    })?;
    let Some(wrapper) = wrapper else { return Err(refused("the caller has ended")) };
    // In the daemon's own PID namespace the number is the right one, and only its ancestors matter.
    let mut numbers = Numbers::default();
    let near = request.alone && numbers.of(peer_pid).is_some_and(|pids| pids.len() == 1);
    let table = match Pid::new(request.pid).filter(|_| near) {
        Some(requested) => ProcessTable::line_of_descent(requested, peer_pid),
        None => ProcessTable::scan(),
    };
    let table = table.map_err(|errno| {
        StartRefusal::new(Code::Overloaded, format!("cannot look at the processes of this host: {errno}"))
    })?;
    // Its number may be another's by now, and so the table's word about who descends from it.
    if !table.is_alive(wrapper.identity()) {
        return Err(refused("the caller has ended"));
    }
    let leader = table.resolve(peer_pid, request.pid, |pid| numbers.of(pid));
    let leader = leader.ok_or_else(|| refused("that process is neither the caller nor a living descendant of it"))?;
    let guardian = match request.guardian {
        None => None,
        Some(requested) => Some(guardian(&table, &mut numbers, wrapper.identity(), leader, requested)?),
    };
    let pinned = pin(leader)?;
    if !sys::may_signal(&pinned) {
        warn!(
            pid = leader.pid.as_raw(),
            uid = peer.uid(),
            "the daemon may not signal this agent: only its wrapper can end it"
        );
        return Ok(None);
    }
    let guardian = match guardian {
        None => None,
        Some(role) => Some(PinnedGuardian { role, pinned: pin(role.identity())?.into() }),
    };
    Ok(Some(Reach::new(pinned.into(), wrapper.into(), guardian, request.alone, &table)))
}

/// The process that inherits the tree's orphans: the leader's parent and the wrapper's child, or none.
fn guardian(
    table: &ProcessTable,
    numbers: &mut Numbers,
    wrapper: Identity,
    leader: Identity,
    requested: i32,
) -> Result<Guardian, StartRefusal> {
    let named = table.resolve(wrapper.pid, requested, |pid| numbers.of(pid)).and_then(|named| table.find(named));
    let between = |pid: Pid| table.get(leader.pid).is_some_and(|leader| leader.parent == Some(pid));
    let named = named.filter(|named| named.parent == Some(wrapper.pid) && between(named.identity.pid));
    let named = named.ok_or_else(|| refused("the guardian must be the caller's child and the leader's parent"))?;
    let (own, above) =
        (numbers.of(named.identity.pid).unwrap_or_default(), numbers.of(wrapper.pid).unwrap_or_default());
    // Not a claim of the client: the kernel says it.
    let is_init = own.last() == Some(&1) && !above.is_empty() && own.len() > above.len();
    Ok(if is_init { Guardian::Init(named.identity) } else { Guardian::Sweeper(named.identity) })
}

/// The numbers of processes in the namespaces they are in, each read once: they change as little as the table does.
#[derive(Default)]
struct Numbers(HashMap<Pid, Option<Vec<i32>>>);

impl Numbers {
    fn of(&mut self, pid: Pid) -> Option<Vec<i32>> {
        self.0.entry(pid).or_insert_with(|| namespace_pids(pid)).clone()
    }
}

fn pin(identity: Identity) -> Result<Process, StartRefusal> {
    let pinned = Process::pin(identity.pid, identity.start).map_err(|errno| {
        StartRefusal::new(Code::Overloaded, format!("cannot get a handle of the agent's process: {errno}"))
    })?;
    pinned.ok_or_else(|| refused("that process has ended"))
}

fn refused(reason: &str) -> StartRefusal {
    StartRefusal::new(Code::PidNotPermitted, reason)
}
