//! Carries out a stop: looks, decides by the ladder, pins, sends. One step at a time and never waiting, so that it serves
//! the wrapper's poll loop and a task of the daemon alike.

use std::collections::HashSet;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::Containment;
use rustix::io::Errno;
use rustix::process::Signal;

use super::cgroup::Leaf;
use super::ladder::{FirstSignal, Gaps, LONGEST_PAUSE, Ladder, Look, Next, Order, Survivor};
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
    /// Environments have been looked into since the supervisors were last seen complete.
    swept: bool,
    /// SIGKILL was due at an earlier [`Stop::advance`].
    struck: bool,
    /// There was a look before.
    looked: bool,
}

/// How long those that the kernel is ending by itself have before they are looked for one by one.
const DYING: Duration = Duration::from_millis(20);
/// The same where all were in the control group that the kernel ends. A caller learns from it when they are gone. Not longer:
/// a process that does not go is to be named within the second that the promise allows beyond the grace.
const DYING_IN_GROUP: Duration = Duration::from_millis(50);

/// How many groups below a control group one look goes into. Who is in further ones is found by descent, and ended by the
/// kernel.
const GROUPS: usize = 128;

/// What [`Stop::advance`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// Nobody is left, as far as whoever inherits the orphans and the control group tell.
    Empty,
    /// It was looked at, or need not be before then.
    Next(Next),
    /// It takes a process table to tell: [`Stop::step`].
    NeedsTable,
}

/// What a glance has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Nobody is left, for certain.
    Over,
    /// Somebody was killed just now who had not been before, or there were too many to go through: whoever they have forked
    /// is to be found in the same way. Glance again at once; a process table would come too late.
    Again,
    /// It takes a process table to tell: [`Stop::step`].
    Step,
}

/// What a stop has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopSummary {
    /// What held the tree together.
    pub containment: Containment,
    /// How many processes the stop signal reached; 0 when another side sent it.
    pub signalled: usize,
    /// How many processes SIGKILL was sent to, as far as they were seen.
    pub killed: usize,
    /// Time since it began.
    pub took: Duration,
    /// Who is left although SIGKILL was sent a while ago; see [`Ladder::survivors`].
    pub survivors: Vec<Survivor>,
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
        }
    }

    /// Sends the stop signal to the tree's leader, held in advance, without looking at anything: where many trees are
    /// stopped at once, none waits for the others' looks. [`Stop::step`] does not send it again.
    ///
    /// Does nothing where the stop signal is not this side's to send, and for a process that is not the leader.
    pub fn send_at_once(&mut self, leader: &Process) {
        if leader.identity() != self.tree.leader() {
            return;
        }
        if let Some(order) = self.ladder.ask_first(BootTime::now(), leader.identity()) {
            self.ladder.delivered(order, ask(leader, self.signal));
        }
    }

    /// Sends what is due by this table and says when to come back, which may be at once. One table serves many stops, as
    /// long as it was read after the `now` of the step before: two looks at the same table are one.
    ///
    /// What cannot be sent for want of a descriptor is sent with the next step.
    pub fn step(&mut self, now: BootTime, table: &ProcessTable) -> Next {
        let inside = self.inside();
        self.step_with(now, table, &inside)
    }

    /// Does what is due by a look at this tree alone, at the cost of what there is of it; see `family`.
    ///
    /// A caller that inherits orphans itself reaps all that have ended before; see [`Stop::glance`].
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

    /// The same, when whoever inherits the orphans is not to be believed that nobody is left.
    pub fn advance_by_descent(&mut self, now: BootTime) -> Advance {
        // First who is inside: one who comes in between descends from somebody who is looked at afterwards.
        let inside = self.inside();
        match self.tree.family(&inside) {
            Ok(Some(family)) => Advance::Next(self.step_with(now, &family, &inside)),
            // Want of a descriptor fails the table as well, and is told then.
            Ok(None) | Err(_) => Advance::NeedsTable,
        }
    }

    /// The first time that SIGKILL is due.
    fn advance_to_kill(&mut self, now: BootTime) -> Advance {
        // No process has come since the last look, and all of them were inside: the kernel needs no list. One that left the
        // group since is still found by descent, from whoever inherits the orphans.
        let can_kill = self.tree.leaf().is_some_and(|leaf| leaf.can_kill()) && self.tree.has_heir(Pid::own());
        if can_kill && self.ladder.is_all_of_it(&self.inside()) {
            self.strike(now);
            if self.ladder.killed() > 0 {
                return Advance::Next(Next::LookAt(now + DYING_IN_GROUP));
            }
            // The kernel would not.
        }
        let by_kernel = self.tree.leaf().is_some() || matches!(self.tree.guardian(), Some(Guardian::Init(_)));
        match self.advance_by_descent(now) {
            // What can be done before there is a table is done.
            Advance::NeedsTable => {
                self.strike(now);
                Advance::NeedsTable
            }
            Advance::Next(Next::LookAt(at)) if by_kernel => Advance::Next(Next::LookAt(at.max(now + DYING))),
            advance @ (Advance::Empty | Advance::Next(_)) => advance,
        }
    }

    /// Sends the SIGKILL that ends many at once.
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
        // First who is inside, then whether anybody is: one who comes in between is seen by the second.
        let inside = sighting::as_described(inside, table).unwrap_or_default();
        let state = leaf.as_ref().map(|leaf| sighting::look_at_leaf(leaf));
        let (members, unseen) = self.members(now, table, &inside);
        let orphans = self.orphans(now, table, &members).unwrap_or(Gaps::Unseen);
        let gaps = if unseen { Gaps::Unseen } else { orphans };
        let init = self.tree.living_init(table.caller().pid, |who| table.is_alive(who));
        let step = self.ladder.step(now, &Look { members: &members, leaf: state, init, gaps });
        for order in step.orders {
            match self.carry_out(order) {
                Some(delivery) => self.ladder.delivered(order, delivery),
                None => self.ladder.not_sent(order),
            }
        }
        step.next
    }

    /// Does what needs no process table: to be called before one is read, which takes a second where an agent has filled the
    /// host with processes. When SIGKILL is due it is sent to the control group, the namespace and the orphans.
    ///
    /// A caller that inherits orphans itself reaps all that have ended before it glances again: a storm of them leaves
    /// zombies by the thousand, and whoever looks for the living has to go through them.
    pub fn glance(&mut self, now: BootTime) -> Glance {
        if now < self.ladder.kill_at() {
            return if self.tree.is_surely_empty() { Glance::Over } else { Glance::Step };
        }
        self.strike(now);
        let reached = self.ladder.reached_killing();
        let Some(reaper) = self.tree.sole_reaper(orphans::is_alive) else { return Glance::Step };
        let (nobody, storm) = match self.visit(reaper, true, None, |_| false) {
            // Where orphans may go elsewhere, a supervisor without children says nothing.
            Ok((somebody, Visited::All)) => {
                (!somebody && self.tree.has_heir(Pid::own()), self.ladder.reached_killing() > reached)
            }
            Ok((_, Visited::NeverAll)) => (false, true),
            Ok((_, Visited::NoList)) | Err(_) => (false, self.ladder.reached_killing() > reached),
        };
        if storm && !self.ladder.is_overdue(now) {
            Glance::Again
        } else if nobody && self.tree.leaf().is_none_or(|leaf| !sighting::look_at_leaf(leaf).populated) {
            Glance::Over
        } else {
            Glance::Step
        }
    }

    /// When to give up on a process table that takes too long ([`ProcessTable::scan_until`]) and glance again: before
    /// SIGKILL is due, at that time; afterwards soon, as long as glances may end the tree by themselves.
    #[must_use]
    pub fn table_deadline(&self, now: BootTime) -> Option<BootTime> {
        self.tree.sole_reaper(orphans::is_alive)?;
        let kill_at = self.ladder.kill_at();
        if now < kill_at { Some(kill_at) } else { (!self.ladder.is_overdue(now)).then(|| now + LONGEST_PAUSE) }
    }

    /// The members, and whether somebody who ought to be looked at could not be.
    fn members(&mut self, now: BootTime, table: &ProcessTable, inside: &[ProcessEntry]) -> (Vec<Member>, bool) {
        let mut sighting = Sighting { table, leaf: inside, holders: &[] };
        let members = self.tree.join(&sighting);
        let Some(run) = self.tree.cookie() else { return (members, false) };
        if self.tree.is_held(table) {
            self.swept = false;
            return (members, false);
        }
        // A look into every environment is dear, so: when a supervisor is first missed, while killing, and before the tree
        // is taken to be empty.
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

    /// Looks for orphans that are in no table, and kills them once it has come to that. Fails when no descriptor is to be
    /// had.
    fn orphans(&mut self, now: BootTime, table: &ProcessTable, members: &[Member]) -> Result<Gaps, Errno> {
        let killing = now >= self.ladder.kill_at();
        let reaper = self.tree.sole_reaper(|who| table.is_alive(who)).filter(|_| killing || members.is_empty());
        let Some(reaper) = reaper else { return Ok(Gaps::None) };
        let known: HashSet<Identity> = members.iter().map(|member| member.identity).collect();
        let ended = table.children(reaper.pid).filter(|child| !child.is_alive()).map(|child| child.identity.pid);
        Ok(match self.visit(reaper, killing, ended, |child| known.contains(&child))? {
            (true, _) | (false, Visited::NeverAll) => Gaps::Elusive,
            (false, Visited::All | Visited::NoList) => Gaps::None,
        })
    }

    /// Visits the living children of whoever inherits the orphans, but for `known` ones, and kills them (in a fork storm:
    /// makes them stand still) if that is due: later they may be gone, and others in their place. Says whether there was any.
    fn visit(
        &mut self,
        reaper: Identity,
        killing: bool,
        ended: impl IntoIterator<Item = Pid>,
        known: impl Fn(Identity) -> bool,
    ) -> Result<(bool, Visited), Errno> {
        let (tree, ladder) = (&self.tree, &mut self.ladder);
        let mut somebody = false;
        let visited = orphans::visit(reaper, ended, |child, process| {
            if known(child.identity) || tree.spares(child.identity, Pid::own()) {
                return;
            }
            somebody = true;
            if killing {
                let who = child.identity;
                let (order, signal) = if ladder.holds_first() {
                    (Order::Hold(who), Signal::STOP)
                } else {
                    (Order::Kill(who), Signal::KILL)
                };
                ladder.delivered(order, taken(process.signal(signal)));
            }
        })?;
        Ok((somebody, visited))
    }

    /// `None` when nothing could be done for want of a descriptor.
    ///
    /// One process is pinned at a time and let go of again: a stop must not need more descriptors than a fork storm leaves.
    fn carry_out(&self, order: Order) -> Option<Delivery> {
        let pin = |who: Identity| Process::pin(who.pid, who.start).ok();
        let with_leaf = |act: fn(&Leaf) -> Result<(), Errno>| {
            let done = self.tree.leaf().is_some_and(|leaf| act(leaf).is_ok());
            Some(if done { Delivery::Sent } else { Delivery::NotPermitted })
        };
        match order {
            Order::Stop(who) => Some(pin(who)?.map_or(Delivery::Gone, |process| ask(&process, self.signal))),
            Order::Hold(who) => Some(pin(who)?.map_or(Delivery::Gone, |process| taken(process.signal(Signal::STOP)))),
            Order::Kill(who) => Some(pin(who)?.map_or(Delivery::Gone, |process| taken(process.signal(Signal::KILL)))),
            Order::KillLeaf => with_leaf(Leaf::kill),
            Order::ThawLeaf => with_leaf(Leaf::thaw),
        }
    }

    /// Who is left although SIGKILL was sent a while ago; see [`Ladder::survivors`].
    #[must_use]
    pub fn survivors(&self) -> Vec<Survivor> {
        self.ladder.survivors()
    }

    /// What it has come to by now.
    #[must_use]
    pub fn report(&self, now: BootTime) -> StopSummary {
        StopSummary {
            containment: self.tree.containment(),
            signalled: self.ladder.signalled(),
            killed: self.ladder.killed(),
            took: now.saturating_since(self.ladder.began()),
            survivors: self.ladder.survivors(),
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

    /// Whether only a sign of the tree's end is worth waiting for until SIGKILL is due: the last look found somebody, and
    /// whoever is forked meanwhile is found later. A process outside the control group may leave orphans that descend from no
    /// known process, where nothing is known to inherit them.
    #[must_use]
    pub fn keeps_until_kill(&self) -> bool {
        self.tree.leaf().is_none() || (self.ladder.is_inside() && self.tree.has_heir(Pid::own()))
    }

    /// The tree, as known by now.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// The stop signal, marked as a ladder's, then SIGCONT: to all alike, not only to those seen stopped, since one may stop
/// between the look and the signal.
fn ask(process: &Process, stop_signal: Signal) -> Delivery {
    let delivery = taken(process.queue(stop_signal));
    taken(process.signal(Signal::CONT));
    delivery
}

/// The kernel refuses a signal for no other reasons than those [`Delivery`] names; a number it does not know would have
/// been refused when it was chosen.
fn taken(result: Result<Delivery, Errno>) -> Delivery {
    result.unwrap_or(Delivery::NotPermitted)
}

#[cfg(test)]
#[path = "enforce_tests.rs"]
mod tests;
