//! Finds the control group that a run came with, makes one, or has the leaf helper make one. Neither a client's claim about its
//! control group nor the helper's word is accepted.

use std::path::PathBuf;
use std::sync::Arc;

use machineid_leaf::{HelperError, LeafHelper};
use machineid_protocol::RunId;
use machineid_tree::{Guardian, Leaf, NoCgroup, Pid, ProcessTable};
use rustix::io::Errno;
use thiserror::Error;
use tracing::debug;

use super::StartRefusal;
use super::containment_rules::{ContainmentAction, FoundContainment, WantedContainment};
use crate::registry::reach::Reach;
use crate::registry::{Run, RunContainment, RunRegistry};

/// The containment found or made for a run that has not started yet. A control group made for a run that does not start after
/// all is removed.
#[derive(Debug)]
pub(super) struct Contained {
    containment: Option<RunContainment>,
    made: Option<Arc<Leaf>>,
    runs: Arc<RunRegistry>,
}

impl Contained {
    /// The containment, for a run that starts.
    pub(super) fn take(mut self) -> RunContainment {
        self.made = None;
        self.containment.take().unwrap_or_else(|| RunContainment::subreaper(String::new()))
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if let Some(leaf) = self.made.take() {
            self.runs.discard(leaf);
        }
    }
}

/// Finds or makes the containment of a run. Takes up to 12 ms: writing to `cgroup.procs` waits for every processor of the
/// machine. A helper that has to be started first may take longer.
pub(super) fn contain(
    run: &Run,
    runs: &Arc<RunRegistry>,
    wanted: WantedContainment,
    helper: &LeafHelper,
) -> Result<Contained, StartRefusal> {
    let (containment, made) = find_or_make(run, wanted, helper)?;
    Ok(Contained { containment: Some(containment), made, runs: Arc::clone(runs) })
}

/// The containment, and the leaf that was made for it.
fn find_or_make(
    run: &Run,
    wanted: WantedContainment,
    helper: &LeafHelper,
) -> Result<(RunContainment, Option<Arc<Leaf>>), StartRefusal> {
    let (id, uid) = (run.id(), run.opened.uid);
    let Some(reach) = &run.opened.reach else {
        wanted.decide(FoundContainment::Unseen)?;
        return Ok((RunContainment::unseen(wanted.claimed()), None));
    };
    if matches!(reach.guardian(), Some(Guardian::Init(_))) {
        wanted.decide(FoundContainment::Namespace)?;
        return Ok((RunContainment::namespace(), None));
    }
    let found = leaf_around(reach, id);
    let action = wanted.decide(if found.is_some() { FoundContainment::Leaf } else { FoundContainment::Nothing })?;
    let or = match (action, found) {
        (ContainmentAction::Take, Some(leaf)) => {
            let leaf = within_reach(leaf, reach, id, helper);
            return taken(leaf, uid, wanted).map(|containment| (containment, None));
        }
        (ContainmentAction::Loose, _) => {
            return Ok((RunContainment::subreaper("no control group: none was asked for".to_owned()), None));
        }
        (ContainmentAction::Make { or }, _) => or,
        (ContainmentAction::Take, None) => None,
    };
    match make(reach, id, helper) {
        Ok(leaf) => taken(Arc::clone(&leaf), uid, wanted).map(|containment| (containment, Some(leaf))),
        Err(why) if or.is_some() => Ok((RunContainment::subreaper(format!("no control group: {why}")), None)),
        Err(why) => Err(wanted.refuse_without_leaf(&why)),
    }
}

/// The leaf that the wrapper made, with the right to kill and freeze it, where the helper can give that.
fn within_reach(leaf: Arc<Leaf>, reach: &Reach, id: RunId, helper: &LeafHelper) -> Arc<Leaf> {
    if leaf.can_kill() && leaf.can_freeze() {
        return leaf;
    }
    match by_helper(reach, id, helper) {
        Ok(shared) => shared.unwrap_or(leaf),
        Err(why) => {
            debug!(run_id = %id, %why, "this agent's control group cannot be killed or frozen as one");
            leaf
        }
    }
}

fn taken(leaf: Arc<Leaf>, uid: u32, wanted: WantedContainment) -> Result<RunContainment, StartRefusal> {
    if wanted.freezable && !leaf.can_freeze() {
        return Err(wanted.refuse_without_leaf(&LeafError::NotWritable(leaf.path().to_owned())));
    }
    Ok(RunContainment::leaf(leaf, uid))
}

/// Why a run has no control group that will do.
#[derive(Debug, Error)]
enum LeafError {
    #[error("{0}")]
    Make(NoCgroup),
    #[error("{own}; {helper}")]
    Helper { own: NoCgroup, helper: HelperError },
    #[error("the leaf helper reports that it moved the agent, but the agent is not in a control group of its own")]
    NotInside,
    #[error("the agent cannot be moved into {}: {errno}", .path.display())]
    Enter { path: PathBuf, errno: Errno },
    #[error(
        "the daemon may not write to {}; run the daemon as root, so that it makes the control group itself",
        .0.display()
    )]
    NotWritable(PathBuf),
}

fn make(reach: &Reach, id: RunId, helper: &LeafHelper) -> Result<Arc<Leaf>, LeafError> {
    let (leader, wrapper) = (reach.leader.identity.pid, supervisor(reach));
    let leaf = match Leaf::make_below(wrapper, id) {
        Ok(leaf) => leaf,
        Err(own @ NoCgroup::NotPermitted(_)) => {
            return match by_helper(reach, id, helper) {
                Ok(leaf) => leaf.ok_or(LeafError::NotInside),
                // The own failure says what would help.
                Err(error) if error.is_absent() => Err(LeafError::Make(own)),
                Err(helper) => Err(LeafError::Helper { own, helper }),
            };
        }
        Err(why) => return Err(LeafError::Make(why)),
    };
    match leaf.enter(leader) {
        Ok(()) => Ok(Arc::new(leaf)),
        Err(errno) => {
            // The leaf is empty.
            let _ = leaf.remove();
            Err(LeafError::Enter { path: leaf.path().to_owned(), errno })
        }
    }
}

/// The wrapper; an adopted tree has none, and its leader takes the place.
fn supervisor(reach: &Reach) -> Pid {
    reach.wrapper.as_ref().unwrap_or(&reach.leader).identity.pid
}

/// Has the helper put the leader into a leaf that this daemon may kill and freeze, and looks whether it is there.
fn by_helper(reach: &Reach, id: RunId, helper: &LeafHelper) -> Result<Option<Arc<Leaf>>, HelperError> {
    let Some(leader) = reach.leader.process() else { return Ok(None) };
    helper.contain(leader, id)?;
    Ok(leaf_around(reach, id))
}

/// The leaf that the leader is in, made by the wrapper or the helper: only if it is named after the run, contains the leader, and contains only descendants of
/// the wrapper, which are the tree's processes (neither the wrapper nor the daemon).
fn leaf_around(reach: &Reach, id: RunId) -> Option<Arc<Leaf>> {
    let (leader, wrapper) = (reach.leader.identity.pid, supervisor(reach));
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
