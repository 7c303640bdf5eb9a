//! Looks for the control group a run came with, or makes one. A cgroup is never taken on a client's word.

use std::path::PathBuf;
use std::sync::Arc;

use machineid_protocol::RunId;
use machineid_tree::{Guardian, Leaf, NoCgroup, Pid, ProcessTable};
use rustix::io::Errno;
use thiserror::Error;
use tracing::debug;

use super::StartRefusal;
use super::containment_rules::{ContainmentAction, FoundContainment, WantedContainment};
use crate::registry::reach::Reach;
use crate::registry::{Run, RunContainment, RunRegistry};

/// What holds a run, until it is taken over. A control group that was made for one that does not start after all is
/// removed.
#[derive(Debug)]
pub(super) struct Contained {
    containment: Option<RunContainment>,
    made: Option<Arc<Leaf>>,
    runs: Arc<RunRegistry>,
}

impl Contained {
    /// Takes it over.
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

/// Finds out what holds the run, or makes something that does. Takes up to 12 ms: writing to `cgroup.procs` waits for every
/// processor of the machine.
pub(super) fn contain(
    run: &Run,
    runs: &Arc<RunRegistry>,
    wanted: WantedContainment,
) -> Result<Contained, StartRefusal> {
    let (containment, made) = find_or_make(run, wanted)?;
    Ok(Contained { containment: Some(containment), made, runs: Arc::clone(runs) })
}

/// The hold, and the leaf that was made for it.
fn find_or_make(run: &Run, wanted: WantedContainment) -> Result<(RunContainment, Option<Arc<Leaf>>), StartRefusal> {
    let (id, uid) = (run.id(), run.opened.uid);
    let Some(reach) = &run.opened.reach else {
        wanted.decide(FoundContainment::Unseen)?;
        return Ok((RunContainment::unseen(wanted.claimed()), None));
    };
    if matches!(reach.guardian(), Some(Guardian::Init(_))) {
        wanted.decide(FoundContainment::Namespace)?;
        return Ok((RunContainment::namespace(), None));
    }
    let (leader, wrapper) = (reach.leader.identity.pid, reach.wrapper.identity.pid);
    let found = wrappers_leaf(reach, id);
    let action = wanted.decide(if found.is_some() { FoundContainment::Leaf } else { FoundContainment::Nothing })?;
    let or = match (action, found) {
        (ContainmentAction::Take, Some(leaf)) => {
            return taken(leaf, uid, wanted).map(|containment| (containment, None));
        }
        (ContainmentAction::Loose, _) => {
            return Ok((RunContainment::subreaper("no control group: none was asked for".to_owned()), None));
        }
        (ContainmentAction::Make { or }, _) => or,
        (ContainmentAction::Take, None) => None,
    };
    match make(leader, wrapper, id) {
        Ok(leaf) => {
            let leaf = Arc::new(leaf);
            taken(Arc::clone(&leaf), uid, wanted).map(|containment| (containment, Some(leaf)))
        }
        Err(why) if or.is_some() => Ok((RunContainment::subreaper(format!("no control group: {why}")), None)),
        Err(why) => Err(wanted.refuse_without_leaf(&why)),
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
    #[error("the agent cannot be moved into {}: {errno}", .path.display())]
    Enter { path: PathBuf, errno: Errno },
    #[error(
        "the daemon may not write to {}; run the daemon as root, so that it makes the control group itself",
        .0.display()
    )]
    NotWritable(PathBuf),
}

fn make(leader: Pid, wrapper: Pid, id: RunId) -> Result<Leaf, LeafError> {
    let leaf = Leaf::make_below(wrapper, id).map_err(LeafError::Make)?;
    match leaf.enter(leader) {
        Ok(()) => Ok(leaf),
        Err(errno) => {
            // It is empty.
            let _ = leaf.remove();
            Err(LeafError::Enter { path: leaf.path().to_owned(), errno })
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
