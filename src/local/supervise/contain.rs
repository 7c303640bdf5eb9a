//! Looks for the control group a run came with, or makes one. A cgroup is never taken on a client's word.

use std::sync::Arc;

use machineid_protocol::RunId;
use machineid_tree::{Guardian, Leaf, Pid, ProcessTable};
use tracing::debug;

use super::No;
use super::terms::{Found, Plan, Wanted};
use crate::runs::reach::Reach;
use crate::runs::{Hold, Run, Runs};

/// What holds a run, until it is taken over. A control group that was made for one that does not start after all is
/// removed.
#[derive(Debug)]
pub(super) struct Contained {
    hold: Option<Hold>,
    made: Option<Arc<Leaf>>,
    runs: Arc<Runs>,
}

impl Contained {
    /// Takes it over.
    pub(super) fn take(mut self) -> Hold {
        self.made = None;
        self.hold.take().unwrap_or_else(|| Hold::subreaper(String::new()))
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if let Some(leaf) = self.made.take() {
            self.runs.discard(leaf);
        }
    }
}

/// Finds out what holds the run, or makes something that does. Takes up to 12 ms: writing to `cgroup.procs` waits for every
/// processor of the machine.
pub(super) fn contain(run: &Run, runs: &Arc<Runs>, wanted: Wanted) -> Result<Contained, No> {
    let (hold, made) = find_or_make(run, wanted)?;
    Ok(Contained { hold: Some(hold), made, runs: Arc::clone(runs) })
}

/// The hold, and the leaf that was made for it.
fn find_or_make(run: &Run, wanted: Wanted) -> Result<(Hold, Option<Arc<Leaf>>), No> {
    let (id, uid) = (run.id(), run.opened.uid);
    let Some(reach) = &run.opened.reach else {
        wanted.plan(Found::Unseen)?;
        return Ok((Hold::unseen(wanted.claimed()), None));
    };
    if matches!(reach.guardian(), Some(Guardian::Init(_))) {
        wanted.plan(Found::Namespace)?;
        return Ok((Hold::namespace(), None));
    }
    let (leader, wrapper) = (reach.leader.identity.pid, reach.wrapper.identity.pid);
    let found = wrappers_leaf(reach, id);
    let plan = wanted.plan(if found.is_some() { Found::Leaf } else { Found::Nothing })?;
    let or = match (plan, found) {
        (Plan::Take, Some(leaf)) => return taken(leaf, uid, wanted).map(|hold| (hold, None)),
        (Plan::Loose, _) => return Ok((Hold::subreaper("no control group: none was asked for".to_owned()), None)),
        (Plan::Make { or }, _) => or,
        (Plan::Take, None) => None,
    };
    match make(leader, wrapper, id) {
        Ok(leaf) => {
            let leaf = Arc::new(leaf);
            taken(Arc::clone(&leaf), uid, wanted).map(|hold| (hold, Some(leaf)))
        }
        Err(why) if or.is_some() => Ok((Hold::subreaper(format!("no control group: {why}")), None)),
        Err(why) => Err(wanted.refuse_without_leaf(&why)),
    }
}

fn taken(leaf: Arc<Leaf>, uid: u32, wanted: Wanted) -> Result<Hold, No> {
    if wanted.freezable && !leaf.can_freeze() {
        let why = format!(
            "the daemon may not write to {}; run the daemon as root, so that it makes the control group itself",
            leaf.path().display()
        );
        return Err(wanted.refuse_without_leaf(&why));
    }
    Ok(Hold::leaf(leaf, uid))
}

fn make(leader: Pid, wrapper: Pid, id: RunId) -> Result<Leaf, String> {
    let leaf = Leaf::make_below(wrapper, id).map_err(|why| why.to_string())?;
    match leaf.enter(leader) {
        Ok(()) => Ok(leaf),
        Err(errno) => {
            // It is empty.
            let _ = leaf.remove();
            Err(format!("the agent cannot be moved into {}: {errno}", leaf.path().display()))
        }
    }
}

/// The leaf that the wrapper made, if the leader is in one that is named after the run and holds only descendants of the
/// wrapper: not the wrapper, not us, nobody's process but the tree's.
fn wrappers_leaf(reach: &Reach, id: RunId) -> Option<Arc<Leaf>> {
    let (leader, wrapper) = (reach.leader.identity.pid, reach.wrapper.identity.pid);
    let leaf = match Leaf::around(leader, id) {
        Ok(leaf) => leaf?,
        Err(why) => {
            debug!(run_id = %id, %why, "cannot tell which control group the agent is in");
            return None;
        }
    };
    let inside = leaf.processes().ok()?;
    let descends =
        |pid: Pid| ProcessTable::line_of_descent(pid, wrapper).is_ok_and(|line| line.is_descendant(wrapper, pid));
    let ours = inside.contains(&leader)
        && inside.iter().all(|&pid| pid != wrapper && pid != Pid::own() && (pid == leader || descends(pid)));
    if !ours {
        debug!(run_id = %id, "the agent's control group is not used: it holds processes outside the agent's tree");
    }
    ours.then(|| Arc::new(leaf))
}
