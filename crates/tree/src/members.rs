//! Which processes belong to a supervised tree.
//!
//! Descent alone misses a process whose parents have ended, and the process group alone misses one that called `setsid`. A
//! [`Tree`] joins all that is known:
//!
//! - the leader and its descendants;
//! - the leader's process group, when the leader leads it;
//! - the descendants of the guardian, which as a child subreaper (or a namespace's first process) inherits every orphan of
//!   the tree; when there is no living guardian, those of the supervisor (the wrapper), which then inherits them;
//! - the processes in the run's control group;
//! - those whose environment names the run, and that are no older than the leader;
//! - processes that an earlier look found, even when their ties are cut by now;
//!
//! each with its descendants.

use std::collections::HashSet;
use std::sync::Arc;

use super::cgroup::Leaf;

use machineid_protocol::{Containment, RunId};

use super::pid::{Identity, Pid};
use super::stat::{Activity, ProcessEntry};
use super::table::ProcessTable;

/// The process between the wrapper and the leader that inherits the tree's orphans. It is no member and never gets the
/// stop signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guardian {
    /// The guardian is a child subreaper.
    Sweeper(Identity),
    /// The guardian is the first process of the run's own PID namespace: when it is killed, the kernel ends everything
    /// inside.
    Init(Identity),
}

impl Guardian {
    /// The process that is the guardian.
    #[must_use]
    pub const fn identity(self) -> Identity {
        match self {
            Self::Sweeper(identity) | Self::Init(identity) => identity,
        }
    }
}

/// What one look has read.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// All processes.
    pub table: &'a ProcessTable,
    /// The processes in the run's control group, as `/proc` describes them. Some may be missing in the table: forked
    /// since.
    pub leaf: &'a [ProcessEntry],
    /// The processes whose environment names the run.
    pub holders: &'a [ProcessEntry],
}

impl<'a> Sighting<'a> {
    /// A sighting that consists of the table alone.
    #[must_use]
    pub const fn of(table: &'a ProcessTable) -> Self {
        Self { table, leaf: &[], holders: &[] }
    }
}

/// A living process of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The process.
    pub identity: Identity,
    /// The process's activity; never [`Activity::Ended`].
    pub activity: Activity,
    /// Whether the process is in the run's control group, and is ended with it.
    pub in_leaf: bool,
}

/// A supervised tree, and what looks have shown of it.
#[derive(Clone, Debug)]
pub struct Tree {
    leader: Identity,
    supervisor: Option<Identity>,
    guardian: Option<Guardian>,
    leaf: Option<Arc<Leaf>>,
    cookie: Option<RunId>,
    /// Children that the supervisor already had, with their descendants. A shell that became the wrapper by `exec`
    /// leaves it its background jobs, such as the `tee` of `exec > >(tee log)`. They were never part of the agent.
    bystanders: HashSet<Identity>,
    known: HashSet<Identity>,
    /// Whether the leader's process group is left out.
    without_group: bool,
}

impl Tree {
    /// A tree that begins with `leader`. Another child of the supervisor in `table` is taken for a bystander if it is
    /// no younger than the leader; a younger one is an orphan of the tree, as after a restart of the daemon.
    ///
    /// `supervisor` is the wrapper, itself no member; `None` when there is none.
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

    /// A tree of `leader` and, if there is a supervisor, of all of its children, now and later.
    #[must_use]
    pub fn alone(leader: Identity, supervisor: Option<Identity>) -> Self {
        let supervisor = supervisor.filter(|&supervisor| supervisor != leader);
        Self {
            leader,
            supervisor,
            guardian: None,
            leaf: None,
            cookie: None,
            bystanders: HashSet::new(),
            known: HashSet::new(),
            without_group: false,
        }
    }

    /// The same tree without the leader's process group. The leader of a tree that was adopted while it ran may share its
    /// group with others: in `agent | tee log` a shell makes the first one the leader of both.
    #[must_use]
    pub fn without_group(self) -> Self {
        Self { without_group: true, ..self }
    }

    /// The same tree with a guardian. While the guardian lives, the tree is what descends from it, without the
    /// supervisor's other children; once it is dead, its orphans come to the supervisor.
    #[must_use]
    pub fn guarded_by(mut self, guardian: Guardian) -> Self {
        // The guardian is a child of the supervisor and older than the leader, as bystanders are, but its descendants
        // are the tree's.
        self.bystanders.remove(&guardian.identity());
        Self { guardian: Some(guardian), ..self }
    }

    /// The same tree, whose processes are also in this control group.
    #[must_use]
    pub fn in_leaf(self, leaf: Arc<Leaf>) -> Self {
        Self { leaf: Some(leaf), ..self }
    }

    /// The same tree, whose processes also carry this run id in their environment. A stop looks for the id when it
    /// cannot rely on the supervisors to have inherited every orphan.
    #[must_use]
    pub fn with_cookie(self, run: RunId) -> Self {
        Self { cookie: Some(run), ..self }
    }

    /// Leaves out these processes, and what descends from them, from now on.
    pub(super) fn spare(&mut self, others: impl IntoIterator<Item = Identity>) {
        self.bystanders.extend(others);
    }

    /// The first process of the tree.
    #[must_use]
    pub const fn leader(&self) -> Identity {
        self.leader
    }

    /// The wrapper that supervises the tree, if there is one.
    #[must_use]
    pub const fn supervisor(&self) -> Option<Identity> {
        self.supervisor
    }

    /// The guardian, if there is one.
    #[must_use]
    pub const fn guardian(&self) -> Option<Guardian> {
        self.guardian
    }

    /// The control group of the run, if there is one.
    #[must_use]
    pub const fn leaf(&self) -> Option<&Arc<Leaf>> {
        self.leaf.as_ref()
    }

    /// The run id that its processes carry, if it is to be looked for.
    pub(super) const fn cookie(&self) -> Option<RunId> {
        self.cookie
    }

    /// The leader, and the members that the last look found.
    pub(super) fn known(&self) -> impl Iterator<Item = Identity> {
        let others = self.known.iter().copied().filter(|&known| known != self.leader);
        others.chain([self.leader])
    }

    /// How the tree is held together.
    #[must_use]
    pub const fn containment(&self) -> Containment {
        match (&self.leaf, self.guardian) {
            (_, Some(Guardian::Init(_))) => Containment::Pidns,
            (Some(_), Some(Guardian::Sweeper(_)) | None) => Containment::Cgroup,
            (None, Some(Guardian::Sweeper(_)) | None) => Containment::Subreaper,
        }
    }

    /// Whether wrapper and guardian, as far as the tree has them, all live and inherit orphans.
    pub(super) fn is_held(&self, table: &ProcessTable) -> bool {
        let holders = self.supervisor.into_iter().chain(self.guardian.map(Guardian::identity));
        let mut any = false;
        let all = holders.inspect(|_| any = true).all(|holder| table.is_alive(holder));
        any && all
    }

    /// The process that inherits the tree's orphans.
    fn reaper(&self, is_alive: impl Fn(Identity) -> bool) -> Option<Identity> {
        let guardian = self.guardian.map(Guardian::identity);
        guardian.into_iter().chain(self.supervisor).find(|&reaper| is_alive(reaper))
    }

    /// The process that inherits the tree's orphans, if it inherits no others: then all of its children are the tree's,
    /// and without any the tree is empty.
    pub(super) fn sole_reaper(&self, is_alive: impl Fn(Identity) -> bool) -> Option<Identity> {
        self.reaper(is_alive).filter(|&reaper| Some(reaper) != self.supervisor || self.bystanders.is_empty())
    }

    /// Whether a process is known to inherit the tree's orphans. With a guardian they come to it or to the wrapper, and
    /// the caller knows that it is a subreaper itself. A foreign client need not be a subreaper: then orphans of its
    /// tree go to the first process of the host, and the client proves nothing by having no children.
    pub(super) fn has_heir(&self, caller: Pid) -> bool {
        self.guardian.is_some() || self.supervisor.is_some_and(|supervisor| supervisor.pid == caller)
    }

    /// Whether this process is not the tree's, whatever its ancestors.
    pub(super) fn spares(&self, identity: Identity, caller: Pid) -> bool {
        let aside = identity.pid.is_init()
            || identity.pid == caller
            || Some(identity) == self.supervisor
            || Some(identity) == self.guardian.map(Guardian::identity);
        aside || self.bystanders.contains(&identity)
    }

    /// The namespace's first process, if it lives and is not the caller: its end is the end of all processes inside.
    pub(super) fn living_init(&self, caller: Pid, is_alive: impl Fn(Identity) -> bool) -> Option<Identity> {
        match self.guardian {
            Some(Guardian::Init(init)) => {
                let ours_to_end = !init.pid.is_init() && init.pid != caller;
                Some(init).filter(|&init| ours_to_end && is_alive(init))
            }
            Some(Guardian::Sweeper(_)) | None => None,
        }
    }

    /// Whether the supervisor still has children from before the tree, according to the last look.
    #[must_use]
    pub fn has_bystanders(&self) -> bool {
        !self.bystanders.is_empty()
    }

    /// The living members, sorted by number. Never pid 1, the caller, the supervisor, the guardian or a bystander.
    ///
    /// The caller's process group is never taken for the tree's. (A *descendant* that moved itself into that group
    /// stays a member; otherwise one `setpgid` would let it escape.)
    ///
    /// Each look also remembers the members it found, so that a later look still knows a process whose parents have
    /// ended. Looks while the agent runs make a later stop more certain.
    pub fn join(&mut self, sighting: &Sighting<'_>) -> Vec<Member> {
        self.widen_bystanders(sighting.table);
        let roots = self.roots(sighting);
        let living = self.descend(sighting, roots);
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

    /// The entries to start from: every process that belongs to the tree by itself and not only by its parent.
    fn roots<'a>(&self, sighting: &Sighting<'a>) -> Vec<&'a ProcessEntry> {
        let table = sighting.table;
        let mut roots: Vec<&ProcessEntry> = Vec::new();
        roots.extend(table.find(self.leader));
        roots.extend(self.known.iter().filter_map(|&identity| table.find(identity)));
        if let Some(reaper) = self.reaper(|identity| table.is_alive(identity)) {
            roots.extend(table.children(reaper.pid));
        }
        roots.extend(sighting.leaf);
        // An older process cannot have the run id from this run; some other program has set the variable.
        roots.extend(sighting.holders.iter().filter(|holder| holder.identity.start >= self.leader.start));
        // The group's number stays the tree's while the leader exists, even as a zombie, or while a member of the group
        // exists that an earlier look found. Afterwards it may belong to other processes.
        let group = self.leader.pid.as_raw();
        let held = roots.iter().any(|entry| {
            entry.group == group && (entry.identity == self.leader || self.known.contains(&entry.identity))
        });
        if held && !self.without_group && group != table.caller().group {
            roots.extend(table.group(group));
        }
        roots
    }

    fn descend(&self, sighting: &Sighting<'_>, roots: Vec<&ProcessEntry>) -> Vec<Member> {
        let table = sighting.table;
        let caller = table.caller().pid;
        let inside: HashSet<Identity> = sighting.leaf.iter().map(|entry| entry.identity).collect();
        let mut seen: HashSet<Pid> = HashSet::new();
        let mut open = roots;
        let mut living = Vec::new();
        while let Some(entry) = open.pop() {
            let identity = entry.identity;
            // The children of these are not followed: those of the process that inherits the orphans are roots already.
            if self.spares(identity, caller) || !seen.insert(identity.pid) {
                continue;
            }
            open.extend(table.children(identity.pid));
            if entry.is_alive() {
                let in_leaf = inside.contains(&identity);
                living.push(Member { identity, activity: entry.activity, in_leaf });
            }
        }
        living.sort_unstable_by_key(|member| member.identity);
        living
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
