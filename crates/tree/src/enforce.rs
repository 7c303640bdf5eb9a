//! Carries out a stop: looks at the tree, asks the ladder, pins processes and sends signals. Each call takes one step
//! and never waits, so the wrapper's poll loop and the daemon's enforcer can both use it.

use std::collections::HashSet;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::Containment;
use rustix::io::Errno;
use rustix::process::Signal;

use super::cgroup::Leaf;
use super::kernel_file;
use super::ladder::{FirstSignal, Gaps, LONGEST_PAUSE, Ladder, Next, Order, Survivor, TreeLook};
use super::members::{Guardian, Member, Sighting, Tree};
use super::orphans::{self, Visited};
use super::pid::{Identity, Pid};
use super::pidfd::{Delivery, Process};
use super::sighting;
use super::stat::ProcessEntry;
use super::table::ProcessTable;

/// A stop under way.
#[derive(Debug)]
pub struct Stop {
    tree: Tree,
    ladder: Ladder,
    signal: Signal,
    /// Whether environments have been read since the supervisors were last all alive.
    swept: bool,
    /// Whether SIGKILL was due at an earlier [`Stop::advance`].
    struck: bool,
    /// Whether the tree has been looked at before.
    looked: bool,
    /// The processes that the stop signal reached, with their names, if these are wanted.
    named: Option<Vec<NamedProcess>>,
}

/// A process with the name of its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedProcess {
    /// Its number.
    pub pid: Pid,
    /// The kernel's name for it, of at most 15 bytes, as it was before the signal. The process chooses it.
    pub name: String,
}

/// How many processes one stop names. The agent decides how many there are.
const NAMED: usize = 64;

/// How long processes that the kernel is ending have before they are looked for one by one.
const DYING: Duration = Duration::from_millis(20);
/// The same time, when all processes were in the control group that the kernel ends. The caller learns from the control
/// group when they are gone. Not longer: a process that does not end must be named within the second that the promise
/// allows beyond the grace.
const DYING_IN_GROUP: Duration = Duration::from_millis(50);

/// How many groups below a control group one look reads. Processes in further groups are found by descent, and ended by
/// the kernel.
const GROUPS: usize = 128;

/// The result of [`Stop::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// No process is left, according to the children of the tree's subreaper and to the control group.
    Empty,
    /// The tree was looked at, or need not be looked at before this time.
    Next(Next),
    /// Only a process table can tell; see [`Stop::step`].
    NeedsTable,
}

/// The result of a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// No process is left, for certain.
    Over,
    /// A process was killed that had not been killed before, or there were too many to go through. Glance again at once
    /// to find what they have forked; a process table would come too late.
    Again,
    /// Only a process table can tell; see [`Stop::step`].
    Step,
}

/// What a stop has done so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopSummary {
    /// How the tree is held together.
    pub containment: Containment,
    /// How many processes the stop signal reached; 0 when the other side sent it.
    pub signalled: usize,
    /// How many processes SIGKILL was sent to, as far as a look has seen them.
    pub killed: usize,
    /// Time since the stop began.
    pub took: Duration,
    /// Processes that are left although SIGKILL was sent a while ago; see [`Ladder::survivors`].
    pub survivors: Vec<Survivor>,
    /// The first processes that the stop signal reached, with their names; empty unless [`Stop::naming`] asked for them.
    pub named: Vec<NamedProcess>,
}

impl Stop {
    /// Begins to stop `tree`; nothing is sent before the first [`Stop::step`]. SIGKILL follows `grace` after `now`.
    #[must_use]
    pub fn begin(now: BootTime, tree: Tree, signal: Signal, first_signal: FirstSignal, grace: Duration) -> Self {
        Self {
            tree,
            ladder: Ladder::begin(now, first_signal, grace),
            signal,
            swept: false,
            struck: false,
            looked: false,
            named: None,
        }
    }

    /// Notes the names of the processes that get the stop signal, at the cost of one more file for each.
    #[must_use]
    pub fn naming(self) -> Self {
        Self { named: Some(Vec::new()), ..self }
    }

    /// Leaves out these processes, and what descends from them, from now on: trees of their own within this one.
    pub fn spare(&mut self, others: impl IntoIterator<Item = Identity>) {
        self.tree.spare(others);
    }

    /// Sends the stop signal to the tree's leader, which was pinned in advance, without looking at the tree: where many
    /// trees are stopped at once, no leader waits for the looks at other trees. [`Stop::step`] does not send it again.
    ///
    /// Does nothing when the stop signal is the other side's to send, and when the process is not the leader.
    pub fn send_at_once(&mut self, leader: &Process) {
        if leader.identity() != self.tree.leader() {
            return;
        }
        if let Some(order) = self.ladder.ask_first(BootTime::now(), leader.identity()) {
            self.ladder.delivered(order, ask(leader, self.signal));
        }
    }

    /// Sends what is due according to this table and returns when to look again, which may be at once. One table serves
    /// many stops, if it was read after the `now` of the previous step: two looks at the same table count as one.
    ///
    /// A signal that cannot be sent because no descriptor is available is sent with the next step.
    pub fn step(&mut self, now: BootTime, table: &ProcessTable) -> Next {
        let inside = self.inside();
        self.step_with(now, table, &inside)
    }

    /// Looks at this tree alone and sends what is due. The cost depends on the size of this tree, not of the host; see
    /// `family`.
    ///
    /// A caller that inherits orphans itself first reaps all that have ended; see [`Stop::glance`].
    pub fn advance(&mut self, now: BootTime) -> Advance {
        if now < self.ladder.kill_at() {
            if self.looked && self.tree.is_surely_empty() {
                return Advance::Empty;
            }
        } else if std::mem::replace(&mut self.struck, true) {
            match self.glance(now) {
                Glance::Again => return Advance::Next(Next::LookAt(now)),
                Glance::Over => return Advance::Empty,
                Glance::Step => {}
            }
        } else {
            return self.advance_to_kill(now);
        }
        self.advance_by_descent(now)
    }

    /// Does the same as [`Stop::advance`], when an empty list of the subreaper's children is not to be relied on.
    pub fn advance_by_descent(&mut self, now: BootTime) -> Advance {
        // The control group is listed first: a process that is forked meanwhile descends from one that is looked at
        // afterwards.
        let inside = self.inside();
        match self.tree.family(&inside) {
            Ok(Some(family)) => Advance::Next(self.step_with(now, &family, &inside)),
            // Without a descriptor the table fails as well, and that error is reported.
            Ok(None) | Err(_) => Advance::NeedsTable,
        }
    }

    /// Takes the step at which SIGKILL is due for the first time.
    fn advance_to_kill(&mut self, now: BootTime) -> Advance {
        // No process has come since the last look, and all of them were in the control group: the kernel needs no list.
        // A process that has left the group since is still found by descent from the subreaper.
        let can_kill = self.tree.leaf().is_some_and(|leaf| leaf.can_kill()) && self.tree.has_heir(Pid::own());
        if can_kill && self.ladder.is_all_of_it(&self.inside()) {
            self.strike(now);
            if self.ladder.killed() > 0 {
                return Advance::Next(Next::LookAt(now + DYING_IN_GROUP));
            }
            // The kernel refused.
        }
        let by_kernel = self.tree.leaf().is_some() || matches!(self.tree.guardian(), Some(Guardian::Init(_)));
        match self.advance_by_descent(now) {
            // What needs no table is done now.
            Advance::NeedsTable => {
                self.strike(now);
                Advance::NeedsTable
            }
            Advance::Next(Next::LookAt(at)) if by_kernel => Advance::Next(Next::LookAt(at.max(now + DYING))),
            advance @ (Advance::Empty | Advance::Next(_)) => advance,
        }
    }

    /// Sends the SIGKILLs that end many processes at once.
    fn strike(&mut self, now: BootTime) {
        let init = self.tree.living_init(Pid::own(), orphans::is_alive);
        let leaf = self.tree.leaf().map(|leaf| sighting::look_at_leaf(leaf));
        for order in self.ladder.strike(now, init, leaf) {
            if let Some(delivery) = self.carry_out(order) {
                self.ladder.delivered(order, delivery);
            }
        }
    }

    fn inside(&self) -> Vec<Pid> {
        self.tree.leaf().and_then(|leaf| leaf.processes_of(GROUPS).ok()).unwrap_or_default()
    }

    fn step_with(&mut self, now: BootTime, table: &ProcessTable, inside: &[Pid]) -> Next {
        self.looked = true;
        let leaf = self.tree.leaf().cloned();
        // The processes are read first, then whether the group is populated: a process that comes in between is seen by
        // the second.
        let inside = sighting::as_described(inside, table).unwrap_or_default();
        let state = leaf.as_ref().map(|leaf| sighting::look_at_leaf(leaf));
        let (members, unseen) = self.members(now, table, &inside);
        let orphans = self.orphans(now, table, &members).unwrap_or(Gaps::Unseen);
        let gaps = if unseen { Gaps::Unseen } else { orphans };
        let init = self.tree.living_init(table.caller().pid, |identity| table.is_alive(identity));
        let step = self.ladder.step(now, &TreeLook { members: &members, leaf: state, init, gaps });
        for order in step.orders {
            let named = self.name(order);
            match self.carry_out(order) {
                Some(delivery) => {
                    if let Some(names) = self.named.as_mut().filter(|_| delivery == Delivery::Sent) {
                        names.extend(named);
                    }
                    self.ladder.delivered(order, delivery);
                }
                None => self.ladder.not_sent(order),
            }
        }
        step.next
    }

    /// Does what needs no process table. To be called before a table is read, which takes a second on a host that an
    /// agent has filled with processes. When SIGKILL is due it is sent to the control group, the namespace and the
    /// orphans.
    ///
    /// A caller that inherits orphans itself reaps all that have ended before each glance: a fork storm leaves
    /// thousands of zombies, and every search for living processes has to skip them.
    pub fn glance(&mut self, now: BootTime) -> Glance {
        if now < self.ladder.kill_at() {
            return if self.tree.is_surely_empty() { Glance::Over } else { Glance::Step };
        }
        self.strike(now);
        let reached = self.ladder.reached_killing();
        let Some(reaper) = self.tree.sole_reaper(orphans::is_alive) else { return Glance::Step };
        let (none_left, storm) = match self.visit(reaper, true, None, |_| false) {
            // Where orphans may go to another process, a supervisor without children proves nothing.
            Ok((any_child, Visited::All)) => {
                (!any_child && self.tree.has_heir(Pid::own()), self.ladder.reached_killing() > reached)
            }
            Ok((_, Visited::NeverAll)) => (false, true),
            Ok((_, Visited::NoList)) | Err(_) => (false, self.ladder.reached_killing() > reached),
        };
        if storm && !self.ladder.is_overdue(now) {
            Glance::Again
        } else if none_left && self.tree.leaf().is_none_or(|leaf| !sighting::look_at_leaf(leaf).populated) {
            Glance::Over
        } else {
            Glance::Step
        }
    }

    /// Returns when to give up a process table that takes too long ([`ProcessTable::scan_until`]) and to glance again:
    /// before SIGKILL is due, at that time; afterwards soon, while glances alone may still end the tree.
    #[must_use]
    pub fn table_deadline(&self, now: BootTime) -> Option<BootTime> {
        self.tree.sole_reaper(orphans::is_alive)?;
        let kill_at = self.ladder.kill_at();
        if now < kill_at { Some(kill_at) } else { (!self.ladder.is_overdue(now)).then(|| now + LONGEST_PAUSE) }
    }

    /// Returns the members, and whether a process that may belong to the tree could not be looked at.
    fn members(&mut self, now: BootTime, table: &ProcessTable, inside: &[ProcessEntry]) -> (Vec<Member>, bool) {
        let mut sighting = Sighting { table, leaf: inside, holders: &[] };
        let members = self.tree.join(&sighting);
        let Some(run) = self.tree.cookie() else { return (members, false) };
        if self.tree.is_held(table) {
            self.swept = false;
            return (members, false);
        }
        // Reading every environment is expensive. It is done when a supervisor is first missed, while killing, and
        // before the tree is taken for empty.
        let first = !std::mem::replace(&mut self.swept, true);
        if !(first || members.is_empty() || now >= self.ladder.kill_at()) {
            return (members, false);
        }
        match sighting::holders(run, &self.tree, &members, table) {
            Ok(holders) if holders.is_empty() => (members, false),
            Ok(holders) => {
                sighting.holders = &holders;
                (self.tree.join(&sighting), false)
            }
            Err(_) => (members, true),
        }
    }

    /// Looks for orphans that are in no table, and kills them once SIGKILL is due. Fails when no descriptor is
    /// available.
    fn orphans(&mut self, now: BootTime, table: &ProcessTable, members: &[Member]) -> Result<Gaps, Errno> {
        let killing = now >= self.ladder.kill_at();
        let reaper =
            self.tree.sole_reaper(|identity| table.is_alive(identity)).filter(|_| killing || members.is_empty());
        let Some(reaper) = reaper else { return Ok(Gaps::None) };
        let known: HashSet<Identity> = members.iter().map(|member| member.identity).collect();
        let ended = table.children(reaper.pid).filter(|child| !child.is_alive()).map(|child| child.identity.pid);
        Ok(match self.visit(reaper, killing, ended, |child| known.contains(&child))? {
            (true, _) | (false, Visited::NeverAll) => Gaps::Elusive,
            (false, Visited::All | Visited::NoList) => Gaps::None,
        })
    }

    /// Visits the living children of the subreaper, except `known` ones. If SIGKILL is due, kills them, or stops them
    /// with SIGSTOP during a fork storm: later they may be gone, with others in their place. Returns whether there was
    /// any.
    fn visit(
        &mut self,
        reaper: Identity,
        killing: bool,
        ended: impl IntoIterator<Item = Pid>,
        known: impl Fn(Identity) -> bool,
    ) -> Result<(bool, Visited), Errno> {
        let (tree, ladder) = (&self.tree, &mut self.ladder);
        let mut any_child = false;
        let visited = orphans::visit(reaper, ended, |child, process| {
            if known(child.identity) || tree.spares(child.identity, Pid::own()) {
                return;
            }
            any_child = true;
            if killing {
                let identity = child.identity;
                let (order, signal) = if ladder.sigstops_first() {
                    (Order::Suspend(identity), Signal::STOP)
                } else {
                    (Order::Kill(identity), Signal::KILL)
                };
                ladder.delivered(order, taken(process.signal(signal)));
            }
        })?;
        Ok((any_child, visited))
    }

    /// The process that an order asks to end, if its name is wanted. Read before the signal: afterwards there may be none.
    fn name(&self, order: Order) -> Option<NamedProcess> {
        let Order::Stop(identity) = order else { return None };
        self.named.as_ref().filter(|names| names.len() < NAMED)?;
        let name = kernel_file::read(format!("/proc/{}/comm", identity.pid).as_str()).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned();
        Some(NamedProcess { pid: identity.pid, name })
    }

    /// Carries out one order. `None` when no descriptor was available and nothing was done.
    ///
    /// One process is pinned at a time and released again: a stop must not need more descriptors than a fork storm
    /// leaves.
    fn carry_out(&self, order: Order) -> Option<Delivery> {
        let pin = |identity: Identity| Process::pin(identity.pid, identity.start).ok();
        let with_leaf = |act: fn(&Leaf) -> Result<(), Errno>| {
            let done = self.tree.leaf().is_some_and(|leaf| act(leaf).is_ok());
            Some(if done { Delivery::Sent } else { Delivery::NotPermitted })
        };
        match order {
            Order::Stop(identity) => Some(pin(identity)?.map_or(Delivery::Gone, |process| ask(&process, self.signal))),
            Order::Suspend(identity) => {
                Some(pin(identity)?.map_or(Delivery::Gone, |process| taken(process.signal(Signal::STOP))))
            }
            Order::Kill(identity) => {
                Some(pin(identity)?.map_or(Delivery::Gone, |process| taken(process.signal(Signal::KILL))))
            }
            Order::KillLeaf => with_leaf(Leaf::kill),
            Order::ThawLeaf => with_leaf(Leaf::thaw),
        }
    }

    /// Processes that are left although SIGKILL was sent a while ago; see [`Ladder::survivors`].
    #[must_use]
    pub fn survivors(&self) -> Vec<Survivor> {
        self.ladder.survivors()
    }

    /// What the stop has done by now.
    #[must_use]
    pub fn report(&self, now: BootTime) -> StopSummary {
        StopSummary {
            containment: self.tree.containment(),
            signalled: self.ladder.signalled(),
            killed: self.ladder.killed(),
            took: now.saturating_since(self.ladder.began()),
            survivors: self.ladder.survivors(),
            named: self.named.clone().unwrap_or_default(),
        }
    }

    /// The ladder, for its times.
    #[must_use]
    pub const fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// Shortens the grace; see [`Ladder::hasten`].
    pub fn hasten(&mut self, now: BootTime, grace: Duration) {
        self.ladder.hasten(now, grace);
    }

    /// Whether the caller may wait for the tree's end alone until SIGKILL is due: the last look found a process, and
    /// processes that are forked meanwhile can still be found later. That is not so for a process outside the control
    /// group when no process is known to inherit its orphans: they may then descend from no known process.
    #[must_use]
    pub fn keeps_until_kill(&self) -> bool {
        self.tree.leaf().is_none() || (self.ladder.is_inside() && self.tree.has_heir(Pid::own()))
    }

    /// The tree, as far as it is known now.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// Sends the stop signal, marked as a ladder's, then SIGCONT. SIGCONT goes to every process, not only to those seen
/// stopped, since a process may stop between the look and the signal.
fn ask(process: &Process, stop_signal: Signal) -> Delivery {
    let delivery = taken(process.queue(stop_signal));
    taken(process.signal(Signal::CONT));
    delivery
}

/// Turns any other error into a refusal. The kernel refuses a signal only for the reasons that [`Delivery`] names; an
/// invalid signal number is refused when the signal is chosen.
fn taken(result: Result<Delivery, Errno>) -> Delivery {
    result.unwrap_or(Delivery::NotPermitted)
}

#[cfg(test)]
#[path = "enforce_tests.rs"]
mod tests;
