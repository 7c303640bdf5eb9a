//! Which processes belong to a supervised tree.
//!
//! Descent alone loses a process whose parents have ended, and the process group alone loses one that called `setsid`.
//! A [`Tree`] joins whatever can be known:
//!
//! - the leader and its descendants;
//! - the leader's process group, when the leader leads it;
//! - the descendants of the guardian, which as a child subreaper (or a namespace's first process) inherits every orphan of
//!   the tree; when it is gone or there is none, those of the supervisor (the wrapper), which then inherits them;
//! - the processes in the run's control group;
//! - those whose environment names the run, and that are no older than the leader;
//! - whatever was found to belong at an earlier look, even when the ties are cut by now;
//!
//! each with its descendants.

use std::collections::HashSet;
use std::sync::Arc;

use super::cgroup::Leaf;

use machineid_protocol::{Containment, RunId};

use super::pid::{Identity, Pid};
use super::stat::{Activity, ProcessEntry};
use super::table::ProcessTable;

/// What stands between the wrapper and the leader and inherits the tree's orphans. No member, and never asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guardian {
    /// A child subreaper.
    Sweeper(Identity),
    /// The first process of the run's own PID namespace: SIGKILL to it is the kernel's end of everything inside.
    Init(Identity),
}

impl Guardian {
    /// Which process it is.
    #[must_use]
    pub const fn identity(self) -> Identity {
        match self {
            Self::Sweeper(identity) | Self::Init(identity) => identity,
        }
    }
}

/// What was read at one look.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// All processes.
    pub table: &'a ProcessTable,
    /// Those in the run's control group, as `/proc` describes them. Some may be missing in the table: forked since.
    pub leaf: &'a [ProcessEntry],
    /// Those whose environment names the run.
    pub holders: &'a [ProcessEntry],
}

impl<'a> Sighting<'a> {
    /// The table alone.
    #[must_use]
    pub const fn of(table: &'a ProcessTable) -> Self {
        Self { table, leaf: &[], holders: &[] }
    }
}

/// A living process of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which process.
    pub identity: Identity,
    /// What it is doing; never [`Activity::Ended`].
    pub activity: Activity,
    /// Whether it is in the run's control group, and ends with that.
    pub in_leaf: bool,
}

/// A supervised tree, and what was learnt about it by looking.
#[derive(Clone, Debug)]
pub struct Tree {
    leader: Identity,
    supervisor: Option<Identity>,
    guardian: Option<Guardian>,
    leaf: Option<Arc<Leaf>>,
    cookie: Option<RunId>,
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
        Self {
            leader,
            supervisor,
            guardian: None,
            leaf: None,
            cookie: None,
            bystanders: HashSet::new(),
            known: HashSet::new(),
        }
    }

    /// The same tree with what stands between the supervisor and the leader. While that lives the tree is what descends
    /// from it, not the supervisor's other children; once it is dead, its orphans come to the supervisor.
    #[must_use]
    pub fn guarded_by(mut self, guardian: Guardian) -> Self {
        // A child of the supervisor's that is older than the leader, as bystanders are; and what comes to it is the tree's.
        self.bystanders.remove(&guardian.identity());
        Self { guardian: Some(guardian), ..self }
    }

    /// The same tree, whose processes are also in this control group.
    #[must_use]
    pub fn in_leaf(self, leaf: Arc<Leaf>) -> Self {
        Self { leaf: Some(leaf), ..self }
    }

    /// The same tree, whose processes also carry this run id in their environment: where the supervisors cannot be relied
    /// on to have inherited every orphan, a stop looks for it.
    #[must_use]
    pub fn with_cookie(self, run: RunId) -> Self {
        Self { cookie: Some(run), ..self }
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

    /// What stands between the supervisor and the leader, when there is something.
    #[must_use]
    pub const fn guardian(&self) -> Option<Guardian> {
        self.guardian
    }

    /// The control group of the run, when there is one.
    #[must_use]
    pub const fn leaf(&self) -> Option<&Arc<Leaf>> {
        self.leaf.as_ref()
    }

    /// The run id that its processes carry, when that is to be looked for.
    pub(super) const fn cookie(&self) -> Option<RunId> {
        self.cookie
    }

    /// The leader, and whoever the last look found.
    pub(super) fn known(&self) -> impl Iterator<Item = Identity> {
        let others = self.known.iter().copied().filter(|&known| known != self.leader);
        others.chain([self.leader])
    }

    /// What holds the tree together.
    #[must_use]
    pub const fn containment(&self) -> Containment {
        match (&self.leaf, self.guardian) {
            (_, Some(Guardian::Init(_))) => Containment::Pidns,
            (Some(_), Some(Guardian::Sweeper(_)) | None) => Containment::Cgroup,
            (None, Some(Guardian::Sweeper(_)) | None) => Containment::Subreaper,
        }
    }

    /// Whether wrapper and guardian, as far as there are any, are all there to inherit orphans.
    pub(super) fn is_held(&self, table: &ProcessTable) -> bool {
        let holders = self.supervisor.into_iter().chain(self.guardian.map(Guardian::identity));
        let mut any = false;
        let all = holders.inspect(|_| any = true).all(|holder| table.is_alive(holder));
        any && all
    }

    /// Who inherits the tree's orphans.
    fn reaper(&self, is_alive: impl Fn(Identity) -> bool) -> Option<Identity> {
        let guardian = self.guardian.map(Guardian::identity);
        guardian.into_iter().chain(self.supervisor).find(|&reaper| is_alive(reaper))
    }

    /// The same, when nobody else's orphans come to it: its children are then the tree's, and without any the tree is empty.
    pub(super) fn sole_reaper(&self, is_alive: impl Fn(Identity) -> bool) -> Option<Identity> {
        self.reaper(is_alive).filter(|&reaper| Some(reaper) != self.supervisor || self.bystanders.is_empty())
    }

    /// Whether a process is known to inherit the tree's orphans: with a guardian they come to it or to the wrapper, and
    /// the caller knows of itself. A foreign client need not be a child subreaper: orphans of its tree then go to the
    /// first process of the host, and that it has no children says nothing.
    pub(super) fn has_heir(&self, caller: Pid) -> bool {
        self.guardian.is_some() || self.supervisor.is_some_and(|supervisor| supervisor.pid == caller)
    }

    /// Whether this process is not the tree's, whatever it descends from.
    pub(super) fn spares(&self, identity: Identity, caller: Pid) -> bool {
        let aside = identity.pid.is_init()
            || identity.pid == caller
            || Some(identity) == self.supervisor
            || Some(identity) == self.guardian.map(Guardian::identity);
        aside || self.bystanders.contains(&identity)
    }

    /// The namespace's first process, while it lives and is not the caller: its end ends all that is inside.
    pub(super) fn living_init(&self, caller: Pid, is_alive: impl Fn(Identity) -> bool) -> Option<Identity> {
        match self.guardian {
            Some(Guardian::Init(init)) => {
                let ours_to_end = !init.pid.is_init() && init.pid != caller;
                Some(init).filter(|&init| ours_to_end && is_alive(init))
            }
            Some(Guardian::Sweeper(_)) | None => None,
        }
    }

    /// Whether the supervisor still has children of before, as far as the last look showed.
    #[must_use]
    pub fn has_bystanders(&self) -> bool {
        !self.bystanders.is_empty()
    }

    /// The living members, in the order of their numbers. Never pid 1, the caller, the supervisor, the guardian or a
    /// bystander.
    ///
    /// The caller's process group is never taken as the tree's. (A *descendant* that moved itself into that group stays a
    /// member: else one `setpgid` would be the way out.)
    ///
    /// Each look also remembers whom it found, so that a later one still knows a process whose parents have ended:
    /// looking now and then while the agent runs makes a later stop surer.
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

    /// Where to begin: everything that belongs by itself and not only by its parent.
    fn roots<'a>(&self, sighting: &Sighting<'a>) -> Vec<&'a ProcessEntry> {
        let table = sighting.table;
        let mut roots: Vec<&ProcessEntry> = Vec::new();
        roots.extend(table.find(self.leader));
        roots.extend(self.known.iter().filter_map(|&identity| table.find(identity)));
        if let Some(reaper) = self.reaper(|who| table.is_alive(who)) {
            roots.extend(table.children(reaper.pid));
        }
        roots.extend(sighting.leaf);
        // An older process cannot have the run id from this run: whoever gave it to it meant something else.
        roots.extend(sighting.holders.iter().filter(|holder| holder.identity.start >= self.leader.start));
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

    fn descend(&self, sighting: &Sighting<'_>, roots: Vec<&ProcessEntry>) -> Vec<Member> {
        let table = sighting.table;
        let caller = table.caller().pid;
        let inside: HashSet<Identity> = sighting.leaf.iter().map(|entry| entry.identity).collect();
        let mut seen: HashSet<Pid> = HashSet::new();
        let mut open = roots;
        let mut living = Vec::new();
        while let Some(entry) = open.pop() {
            let identity = entry.identity;
            // Nor is anything followed through those: the children of whoever inherits the orphans are roots already.
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
