//! Moves a tree that runs already into a control group of its own.
//!
//! A child begins in its parent's group: once all are inside, what they fork is. Until then a process may be forked by one
//! that is not inside yet, so the tree is looked at until a look finds none outside.

use std::collections::BTreeSet;
use std::sync::Arc;

use machineid_protocol::RunId;
use machineid_tree::{Identity, Leaf, NoCgroup, Pid, Process, ProcessTable, Tree};
use rustix::io::Errno;
use thiserror::Error;

use crate::local::supervise::StartRefusal;
use crate::local::supervise::containment_rules::{ContainmentAction, FoundContainment, WantedContainment};
use crate::registry::RunContainment;

/// How many looks at a tree that changes are enough: one that forks all the time never stands still.
const LOOKS: usize = 32;

/// Why a tree is not in a control group.
#[derive(Debug, Error)]
enum GatherError {
    #[error("{0}")]
    Make(NoCgroup),
    #[error("the processes of this host cannot be read: {0}")]
    Look(Errno),
    #[error("process {0} cannot be moved: {1}")]
    Move(Pid, Errno),
    #[error("it forks faster than its processes can be moved")]
    Restless,
    #[error("process {0} of it is in another control group than the first process, where it stays")]
    Elsewhere(Pid),
    #[error("its control group cannot be frozen")]
    NotFreezable,
}

impl From<Errno> for GatherError {
    fn from(errno: Errno) -> Self {
        Self::Look(errno)
    }
}

/// Looks at the tree until two looks in a row find the same processes, which the tree then knows: one whose parent ends
/// later stays its member.
pub(super) fn settle(tree: &mut Tree) -> Result<(), Errno> {
    let mut before: BTreeSet<Identity> = BTreeSet::new();
    for _ in 0..LOOKS {
        let found = tree.members(&ProcessTable::scan()?).into_iter().map(|member| member.identity).collect();
        if found == before {
            break;
        }
        before = found;
    }
    Ok(())
}

/// How many processes the tree has now.
pub(super) fn count(tree: &mut Tree) -> usize {
    ProcessTable::scan().map_or(0, |table| tree.members(&table).len())
}

/// Finds what can hold the tree together, as far as the demands allow it.
pub(super) fn contain(tree: &mut Tree, run: RunId, wanted: WantedContainment) -> Result<RunContainment, StartRefusal> {
    let or = match wanted.decide(FoundContainment::Nothing)? {
        ContainmentAction::Make { or } => or,
        ContainmentAction::Take | ContainmentAction::Loose => None,
    };
    match gather(tree, run, wanted.freezable) {
        Ok(leaf) => Ok(RunContainment::gathered(Arc::new(leaf))),
        Err(why) if or.is_some() => Ok(RunContainment::subreaper(format!(
            "no control group: {why}; a process whose parent ends before a look at it is not followed"
        ))),
        Err(why) => Err(wanted.refuse_without_leaf(&why)),
    }
}

fn gather(tree: &mut Tree, run: RunId, freezable: bool) -> Result<Leaf, GatherError> {
    check_groups(tree)?;
    let leaf = Leaf::make_below(tree.leader().pid, run).map_err(GatherError::Make)?;
    let moved = if freezable && !leaf.can_freeze() { Err(GatherError::NotFreezable) } else { move_all(&leaf, tree) };
    match moved {
        Ok(()) => Ok(leaf),
        Err(why) => {
            let _ = leaf.release().and_then(|()| leaf.remove());
            Err(why)
        }
    }
}

/// Checks that all processes are in the group of the first. One that was put elsewhere, as a service manager or a container
/// engine does, is not taken out of what limits it, and could not be put back.
fn check_groups(tree: &mut Tree) -> Result<(), GatherError> {
    let group = |pid: Pid| std::fs::read(format!("/proc/{pid}/cgroup")).ok();
    let first = group(tree.leader().pid);
    for member in tree.members(&ProcessTable::scan()?) {
        let pid = member.identity.pid;
        if group(pid).is_some_and(|other| Some(&other) != first.as_ref()) {
            return Err(GatherError::Elsewhere(pid));
        }
    }
    Ok(())
}

fn move_all(leaf: &Leaf, tree: &mut Tree) -> Result<(), GatherError> {
    for _ in 0..LOOKS {
        let members = tree.members(&ProcessTable::scan()?);
        let inside = leaf.processes()?;
        let mut outside =
            members.iter().filter(|member| inside.binary_search(&member.identity.pid).is_err()).peekable();
        if outside.peek().is_none() {
            return Ok(());
        }
        for member in outside {
            move_one(leaf, member.identity)?;
        }
    }
    Err(GatherError::Restless)
}

/// Moves the process of this identity. The kernel takes a number: if another process has it by then, that one is moved back.
fn move_one(leaf: &Leaf, identity: Identity) -> Result<(), GatherError> {
    let failed = |errno| GatherError::Move(identity.pid, errno);
    let Some(process) = Process::pin(identity.pid, identity.start).map_err(failed)? else { return Ok(()) };
    match leaf.enter(identity.pid) {
        Ok(()) if process.has_exited().map_err(failed)? => leaf.release_one(identity.pid).map_err(failed),
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}
