//! Which processes belong to a supervised tree.
//!
//! Descent alone loses a process whose parents have ended, and the process group alone loses one that called `setsid`.
//! A [`Tree`] joins what can be known without help from the kernel's containers:
//!
//! - the leader and its descendants;
//! - the leader's process group, when the leader leads it;
//! - the descendants of the supervisor (the wrapper), which as a child subreaper inherits every orphan of the tree;
//! - whatever was found to belong at an earlier look, with its descendants, even when the ties are cut by now.

use std::collections::HashSet;

use super::pid::{Identity, Pid};
use super::stat::{Activity, ProcessEntry};
use super::table::ProcessTable;

/// A living process of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which process.
    pub identity: Identity,
    /// What it is doing; never [`Activity::Ended`].
    pub activity: Activity,
}

/// A supervised tree, and what was learnt about it by looking.
#[derive(Clone, Debug)]
pub struct Tree {
    leader: Identity,
    supervisor: Option<Identity>,
    /// Children the supervisor had already (a shell that became the wrapper by `exec` leaves it its background jobs, such
    /// as the `tee` of `exec > >(tee log)`), with what descends from them. They were never part of the agent.
    bystanders: HashSet<Identity>,
    known: HashSet<Identity>,
}

impl Tree {
    /// A tree that begins with `leader`. Every other child that the supervisor has in `table` and that is no younger than
    /// the leader is taken for a bystander; a younger one is an orphan of the tree, as after a restart of the daemon.
    ///
    /// `supervisor` is the wrapper, itself no member; `None` when the leader stands alone.
    #[must_use]
    pub fn new(leader: Identity, supervisor: Option<Identity>, table: &ProcessTable) -> Self {
        let bystanders = supervisor
            .filter(|&supervisor| supervisor != leader && table.is_alive(supervisor))
            .map(|supervisor| {
                let children = table.children(supervisor.pid).map(|child| child.identity);
                children.filter(|&child| child != leader && child.start <= leader.start).collect()
            })
            .unwrap_or_default();
        Self { bystanders, ..Self::alone(leader, supervisor) }
    }

    /// A tree of `leader` and, when there is a supervisor, of all of its children, now and later.
    #[must_use]
    pub fn alone(leader: Identity, supervisor: Option<Identity>) -> Self {
        let supervisor = supervisor.filter(|&supervisor| supervisor != leader);
        Self { leader, supervisor, bystanders: HashSet::new(), known: HashSet::new() }
    }

    /// The first process of the tree.
    #[must_use]
    pub const fn leader(&self) -> Identity {
        self.leader
    }

    /// The wrapper that holds the tree, when there is one.
    #[must_use]
    pub const fn supervisor(&self) -> Option<Identity> {
        self.supervisor
    }

    /// Whether the supervisor still has children of before, as far as the last look showed.
    #[must_use]
    pub fn has_bystanders(&self) -> bool {
        !self.bystanders.is_empty()
    }

    /// The living members, in the order of their numbers. Never pid 1, the caller, the supervisor or a bystander.
    ///
    /// The caller's process group is never taken as the tree's. (A *descendant* that moved itself into that group stays a
    /// member: else one `setpgid` would be the way out.)
    ///
    /// Each look also remembers whom it found, so that a later one still knows a process whose parents have ended:
    /// looking now and then while the agent runs makes a later stop surer.
    pub fn members(&mut self, table: &ProcessTable) -> Vec<Member> {
        self.widen_bystanders(table);
        let roots = self.roots(table);
        let living = self.descend(table, roots);
        self.known = living.iter().map(|member| member.identity).collect();
        living
    }

    fn widen_bystanders(&mut self, table: &ProcessTable) {
        if self.bystanders.is_empty() {
            return;
        }
        self.bystanders.retain(|&identity| table.is_alive(identity));
        let mut open: Vec<Pid> = self.bystanders.iter().map(|identity| identity.pid).collect();
        while let Some(parent) = open.pop() {
            let children = table.children(parent).filter(|child| child.is_alive() && child.identity != self.leader);
            for child in children {
                if self.bystanders.insert(child.identity) {
                    open.push(child.identity.pid);
                }
            }
        }
    }

    /// Where to begin: everything that belongs by itself and not only by its parent.
    fn roots<'a>(&self, table: &'a ProcessTable) -> Vec<&'a ProcessEntry> {
        let mut roots: Vec<&ProcessEntry> = Vec::new();
        roots.extend(table.find(self.leader));
        roots.extend(self.known.iter().filter_map(|&identity| table.find(identity)));
        if let Some(supervisor) = self.supervisor.filter(|&supervisor| table.is_alive(supervisor)) {
            roots.extend(table.children(supervisor.pid));
        }
        // The group's number stays the tree's as long as the leader is there, even as a zombie, or one of the group whom
        // an earlier look found; afterwards it may belong to strangers.
        let group = self.leader.pid.as_raw();
        let held = roots.iter().any(|entry| {
            entry.group == group && (entry.identity == self.leader || self.known.contains(&entry.identity))
        });
        if held && group != table.caller().group {
            roots.extend(table.group(group));
        }
        roots
    }

    fn descend(&self, table: &ProcessTable, roots: Vec<&ProcessEntry>) -> Vec<Member> {
        let caller = table.caller().pid;
        let mut seen: HashSet<Pid> = HashSet::new();
        let mut open = roots;
        let mut living = Vec::new();
        while let Some(entry) = open.pop() {
            let identity = entry.identity;
            // Nor is anything followed through those: the supervisor's children are roots already.
            let aside = identity.pid.is_init() || identity.pid == caller || Some(identity) == self.supervisor;
            if aside || self.bystanders.contains(&identity) || !seen.insert(identity.pid) {
                continue;
            }
            open.extend(table.children(identity.pid));
            if entry.is_alive() {
                living.push(Member { identity, activity: entry.activity });
            }
        }
        living.sort_unstable_by_key(|member| member.identity);
        living
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
