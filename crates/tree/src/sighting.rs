//! Reads what a look at a tree needs besides the process table: its control group, and the environments of other
//! processes.

use std::collections::HashSet;

use machineid_protocol::RunId;
use rustix::io::Errno;

use super::cgroup::Leaf;
use super::ladder::LeafLook;
use super::members::{Member, Sighting, Tree};
use super::orphans::{self, Visited};
use super::pid::Pid;
use super::stat::ProcessEntry;
use super::table::ProcessTable;

/// Returns the entries of the processes in a leaf. One that is not in the table has been forked since, and is read by
/// itself.
pub(super) fn as_described(inside: &[Pid], table: &ProcessTable) -> Result<Vec<ProcessEntry>, Errno> {
    let mut found = Vec::new();
    for &pid in inside {
        match table.get(pid) {
            Some(entry) => found.push(*entry),
            None => found.extend(ProcessEntry::read(pid)?),
        }
    }
    Ok(found)
}

/// Describes a leaf for the ladder. A leaf that cannot be looked at is taken to be populated.
pub(super) fn look_at_leaf(leaf: &Leaf) -> LeafLook {
    let (populated, frozen) = leaf.state().map_or((true, false), |state| (state.populated, state.frozen));
    LeafLook { populated, can_kill: leaf.can_kill(), needs_thawing: frozen && leaf.can_freeze() }
}

/// The living processes that carry this run's id and are neither older than the tree nor known as its members already.
///
/// A number may pass to another process between the table and the read of the environment. The result then names a
/// process that has ended, which no signal reaches.
pub(super) fn holders(
    run: RunId,
    tree: &Tree,
    members: &[Member],
    table: &ProcessTable,
) -> Result<Vec<ProcessEntry>, Errno> {
    let known: HashSet<_> = members.iter().map(|member| member.identity).collect();
    let mut found = table.holders(run, tree.leader().start)?;
    found.retain(|holder| !known.contains(&holder.identity) && holder.identity.start >= tree.leader().start);
    Ok(found)
}

impl Tree {
    /// Whether the tree is certainly empty, known without a look at every process of the host: the process that
    /// inherits its orphans has no living child, and its control group is empty. `false` proves nothing.
    #[must_use]
    pub fn is_surely_empty(&self) -> bool {
        if !self.has_heir(Pid::own()) {
            return false;
        }
        let Some(reaper) = self.sole_reaper(orphans::is_alive) else { return false };
        let mut any_child = false;
        let visited = orphans::visit(reaper, None, |child, _| any_child |= !self.spares(child.identity, Pid::own()));
        let none_left = visited == Ok(Visited::All) && !any_child;
        none_left && self.leaf().is_none_or(|leaf| !look_at_leaf(leaf).populated)
    }

    /// The living members by this table and by the control group's current list; see [`Tree::join`]. A control group
    /// that cannot be read is left out: descent finds its processes too, except those whose parents have ended.
    pub fn members(&mut self, table: &ProcessTable) -> Vec<Member> {
        let leaf = self.leaf().and_then(|leaf| as_described(&leaf.processes().ok()?, table).ok()).unwrap_or_default();
        self.join(&Sighting { table, leaf: &leaf, holders: &[] })
    }
}
