//! The stop ladder: who is sent what, and when it is over. Pure: it is told the time and the members, and sends nothing.
//!
//! ```text
//!  begin ──► grace: stop signal and CONT, once to each member ──► kill: KILL to all, again and again ──► over
//!               │   (not to those started since: a stop signal's     │
//!               │   handler may run a command to clean up)           │
//!               └──────────────── nobody left, twice in a row ───────┴─────────────────────────────────► over
//! ```
//!
//! Where the run has a control group, the kernel kills whoever is inside at once, and the others are killed one by one; it
//! is over when nobody is found *and* the group is empty. A frozen group is thawed once all were asked, so that they can
//! act on it (SIGKILL needs no thawing). Where it has a PID namespace, its first process is not asked, and killed with the
//! others: its end ends all of them.
//!
//! A fork storm at a limit of processes refills each place that a SIGKILL makes free. When looks keep finding new members,
//! they are first all made to stand still, which frees none, and killed once a look finds nobody new.
//!
//! The leader's end does not end it: the tree's does. Where two sides end the same tree, one of them sends the stop signal
//! ([`FirstSignal::Ours`]) and the other only waits out the grace ([`FirstSignal::Theirs`]), so that no process gets it
//! twice; SIGKILL comes from both.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use machineid_clock::BootTime;

use super::members::Member;
use super::pid::{Identity, Pid};
use super::pidfd::Delivery;
use super::stat::Activity;

/// Time between two looks at first; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest time between two looks.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest time between two looks at processes that have all been sent SIGKILL: there is nothing to do but wait until
/// the kernel has taken them down, which takes the longer the more of them there are.
const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// How long after the first look behind its SIGKILL a process may be there before it can count as a survivor. Within the
/// second that the promise allows beyond the grace.
pub const KILL_PATIENCE: Duration = Duration::from_millis(800);
/// How long every look must have found a process in uninterruptible sleep for that to be said of it: the kernel takes a
/// process that ends there for moments.
const ASLEEP: Duration = Duration::from_millis(300);
/// How long a process may be there that could end and has not: for want of a processor, or of the memory it is to give
/// back. That says something about the machine and not about the process, so it is told only when it lasts.
const SLOW: Duration = Duration::from_secs(5);
/// By how much more that is for each time that a look came late, which shows how much the machine has to do.
const SLOWER: u32 = 8;
/// How many looks in a row must have nothing to send for the ladder to be calm.
const CALM_LOOKS: u32 = 2;
/// How many looks after the first SIGKILL must find somebody new for that to be a fork storm.
const STORM_LOOKS: u32 = 2;

/// How many looks in a row may only make members stand still. Whoever fakes new members must not be spared for it.
const LONGEST_HOLD: u32 = 16;

/// How many looks in a row must find nobody: one may miss a process that was forked while it looked.
const EMPTY_LOOKS: u8 = 2;

/// Who sends the stop signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSignal {
    /// This ladder does.
    Ours,
    /// The other side has, or does.
    Theirs,
}

/// What one process is to be sent, or what is to be done with the control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The stop signal, then SIGCONT, so that a stopped process can act on it.
    Stop(Identity),
    /// SIGSTOP: a process that stands still forks nobody, and leaves its place to nobody.
    Hold(Identity),
    /// SIGKILL.
    Kill(Identity),
    /// SIGKILL to everybody in the control group.
    KillLeaf,
    /// Let the processes in the control group go on.
    ThawLeaf,
}

/// The tree as a look found it.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Its living members.
    pub members: &'a [Member],
    /// Its control group, when it has one.
    pub leaf: Option<LeafLook>,
    /// The first process of its PID namespace, when it has one and that lives.
    pub init: Option<Identity>,
    /// What the members leave open.
    pub gaps: Gaps,
}

/// Whether somebody may be there besides the members that a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// As far as can be known, nobody.
    None,
    /// Somebody was there who was in no table: forked since, or forking and ending faster than a table is read.
    Elusive,
    /// Not everything could be looked at, for want of a descriptor.
    Unseen,
}

impl<'a> Look<'a> {
    /// A look that found these members and nothing else to look at.
    #[must_use]
    pub const fn at(members: &'a [Member]) -> Self {
        Self { members, leaf: None, init: None, gaps: Gaps::None }
    }

    fn found_nobody(&self) -> bool {
        self.members.is_empty() && self.gaps == Gaps::None && self.leaf.is_none_or(|leaf| !leaf.populated)
    }
}

/// A run's control group as a look found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafLook {
    /// Somebody is inside, also one who cannot be seen from here.
    pub populated: bool,
    /// The kernel may be told to kill all inside.
    pub can_kill: bool,
    /// It is frozen and may be thawed.
    pub needs_thawing: bool,
}

/// Why a process is still there after SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurvivorReason {
    /// It runs as another user, whom we may not signal.
    NotPermitted,
    /// It is in a wait that the kernel does not interrupt.
    Uninterruptible,
    /// Neither: it was sent SIGKILL seconds ago, could end and has not.
    StillEnding,
}

impl SurvivorReason {
    /// The reason, for people.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::NotPermitted => "it runs as another user (EPERM)",
            Self::Uninterruptible => {
                "it is in uninterruptible sleep (a mount that hangs, or a freezer of cgroup version 1)"
            }
            Self::StillEnding => "it was killed and has not exited yet",
        }
    }
}

/// A process that outlived SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Its number.
    pub pid: Pid,
    /// Why.
    pub reason: SurvivorReason,
}

/// When to look again, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At this time, at the latest; sooner does no harm.
    LookAt(BootTime),
    /// Never: nobody is left.
    Over,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whom to send what.
    pub orders: Vec<Order>,
    /// When to come back.
    pub next: Next,
}

/// One stop of one tree: which process is sent which signal, and when the stop is over.
///
/// A ladder performs no I/O, reads no clock and sends nothing. Its caller looks at the tree, tells the ladder what it found,
/// carries out the orders and reports what became of each. The methods are of four kinds:
///
/// - **input**: [`step`](Self::step) takes one [`Look`] and the time of now. [`delivered`](Self::delivered) or
///   [`not_sent`](Self::not_sent) takes the result of one order.
/// - **output**: the orders of the [`Step`], to be carried out in their order, and its [`Next`]: when to look again.
/// - **shortcuts** where a look would take too long: [`ask_first`](Self::ask_first) gives the stop signal for a process that is
///   known beforehand, [`strike`](Self::strike) the SIGKILL for all that the kernel ends at once. The next `step` knows of both.
/// - **questions**, which change nothing: what was signalled, killed, has survived, and whether the looks have become calm.
///
/// # Order
///
/// 1. [`begin`](Self::begin), with the grace, and with the side that sends the stop signal.
/// 2. `ask_first`, at most once for each process and before the first `step`.
/// 3. `step` again and again, until it answers [`Next::Over`]. Every order of a step is reported before the next step: a
///    stop signal that was not sent and is not reported is never given again, and a survivor that refused SIGKILL has no reason.
/// 4. [`hasten`](Self::hasten) at any time; it only shortens the grace.
///
/// # Time
///
/// `now` is of the boot clock and never less than in the call before. A step that comes early, or twice, does no harm; one that
/// comes late sends SIGKILL late by as much, and makes the ladder more patient before it calls a process a survivor. A look must
/// be made after the `now` it is told with: two calls with one look count as one look.
#[derive(Clone, Debug)]
pub struct Ladder {
    first_signal: FirstSignal,
    began: BootTime,
    kill_at: BootTime,
    signalled: HashSet<Identity>,
    refused: HashSet<Identity>,
    /// How many the stop signal reached.
    reached: usize,
    killed: HashSet<Identity>,
    /// Whoever was there to be killed at a look before.
    seen_killing: HashSet<Identity>,
    /// Whoever was made to stand still.
    held: HashSet<Identity>,
    /// How many looks since the first SIGKILL have found somebody new.
    storm_looks: u32,
    /// How many looks in a row have only held.
    holding: u32,
    /// The members in the control group at the last look.
    inside: Vec<Identity>,
    /// The kernel would not kill the control group.
    leaf_refused: bool,
    /// The living members of the last look.
    left: HashSet<Identity>,
    /// The members that a look found when SIGKILL was due, and what the looks since have shown.
    dying: HashMap<Identity, Dying>,
    killed_since: Option<BootTime>,
    empty_looks: u8,
    /// How many looks in a row had nothing to send to anybody new.
    calm_looks: u32,
    pause: Duration,
    /// When the last look was, and when the next one is to be.
    looked_at: BootTime,
    expected: Option<BootTime>,
    /// By how much a look came late at most.
    lateness: Duration,
}

/// A member that has been sent SIGKILL, or would have been.
#[derive(Clone, Copy, Debug, Default)]
struct Dying {
    /// The first look after that.
    since: Option<BootTime>,
    /// The first of the looks in a row that found it in uninterruptible sleep.
    asleep_since: Option<BootTime>,
}

impl Ladder {
    /// Begins a stop. SIGKILL follows `grace` after `now`; a grace of zero is SIGKILL at once, without the stop signal.
    #[must_use]
    pub fn begin(now: BootTime, first_signal: FirstSignal, grace: Duration) -> Self {
        Self {
            first_signal,
            began: now,
            kill_at: now + grace,
            signalled: HashSet::new(),
            refused: HashSet::new(),
            reached: 0,
            killed: HashSet::new(),
            seen_killing: HashSet::new(),
            held: HashSet::new(),
            storm_looks: 0,
            holding: 0,
            inside: Vec::new(),
            leaf_refused: false,
            left: HashSet::new(),
            dying: HashMap::new(),
            killed_since: None,
            empty_looks: 0,
            calm_looks: 0,
            pause: FIRST_PAUSE,
            looked_at: now,
            expected: None,
            lateness: Duration::ZERO,
        }
    }

    /// When the stop began.
    #[must_use]
    pub const fn began(&self) -> BootTime {
        self.began
    }

    /// When SIGKILL comes.
    #[must_use]
    pub const fn kill_at(&self) -> BootTime {
        self.kill_at
    }

    /// Whether the last look found somebody alive.
    #[must_use]
    pub fn found_somebody(&self) -> bool {
        !self.left.is_empty()
    }

    /// How many processes the stop signal has reached.
    #[must_use]
    pub const fn signalled(&self) -> usize {
        self.reached
    }

    /// How many processes SIGKILL has been sent to, as far as they were seen.
    #[must_use]
    pub fn killed(&self) -> usize {
        self.killed.len()
    }

    /// Shortens the grace to end `grace` after `now`; never lengthens it.
    pub fn hasten(&mut self, now: BootTime, grace: Duration) {
        self.kill_at = self.kill_at.min(now + grace);
    }

    /// The order for a process that is known before any look, when it is to be asked: it will not be asked again.
    pub fn ask_first(&mut self, now: BootTime, who: Identity) -> Option<Order> {
        let due = self.first_signal == FirstSignal::Ours && now < self.kill_at;
        (due && self.signalled.insert(who)).then_some(Order::Stop(who))
    }

    /// Takes what a look found and says what is to be done. May be called at any time, any number of times.
    pub fn step(&mut self, now: BootTime, look: &Look<'_>) -> Step {
        let step = self.take(now, look);
        self.expected = match step.next {
            Next::LookAt(at) => Some(at),
            Next::Over => None,
        };
        step
    }

    /// Whether the last looks had nothing to send to anybody new: until SIGKILL is due, or until it has been long enough on
    /// its way, there is nothing to look for but the end, which a caller may learn in cheaper ways.
    #[must_use]
    pub const fn is_calm(&self) -> bool {
        self.calm_looks >= CALM_LOOKS
    }

    /// Whether these processes in the control group, and no others, are what the last looks found of the tree, again and
    /// again.
    #[must_use]
    pub fn is_all_of_it(&self, inside: &[Pid]) -> bool {
        if !self.is_calm() || inside.is_empty() || inside.len() != self.inside.len() || !self.is_inside() {
            return false;
        }
        // An agent may have made many.
        let known: HashSet<Pid> = self.inside.iter().map(|who| who.pid).collect();
        inside.iter().all(|pid| known.contains(pid))
    }

    /// Whether the last look found members, all of them in the control group.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        !self.left.is_empty() && self.left.len() == self.inside.len()
    }

    /// Whether somebody has been forked while others were killed.
    #[must_use]
    pub const fn is_storm(&self) -> bool {
        self.storm_looks > 0
    }

    fn take(&mut self, now: BootTime, look: &Look<'_>) -> Step {
        let members = look.members;
        self.looked_at = now;
        // Before SIGKILL a caller may rest on purpose, which says nothing about the machine.
        let expected = self.expected.filter(|_| self.killed_since.is_some());
        let late = expected.map_or(Duration::ZERO, |expected| now.saturating_since(expected));
        self.lateness = self.lateness.max(late);
        self.left = members.iter().map(|member| member.identity).collect();
        self.inside = members.iter().filter(|member| member.in_leaf).map(|member| member.identity).collect();
        if look.found_nobody() {
            self.dying.clear();
            self.empty_looks = self.empty_looks.saturating_add(1);
            if self.empty_looks >= EMPTY_LOOKS {
                return Step { orders: Vec::new(), next: Next::Over };
            }
            return Step { orders: Vec::new(), next: Next::LookAt(now + FIRST_PAUSE) };
        }
        self.empty_looks = 0;
        let killing = now >= self.kill_at;
        let orders = if killing { self.kill(now, look) } else { self.ask(look) };
        let mut look_at = now + self.pause;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, if killing { LONGEST_WAIT } else { LONGEST_PAUSE });
        if !killing {
            look_at = look_at.min(self.kill_at);
        }
        Step { orders, next: Next::LookAt(look_at) }
    }

    fn kill(&mut self, now: BootTime, look: &Look<'_>) -> Vec<Order> {
        let mut orders = self.strike(now, look.init, look.leaf);
        let first = self.seen_killing.is_empty();
        let mut new_faces = false;
        for member in look.members {
            new_faces |= self.seen_killing.insert(member.identity);
        }
        self.note_dying(now, look.members);
        self.calm_looks = if new_faces || look.gaps != Gaps::None { 0 } else { self.calm_looks.saturating_add(1) };
        self.storm_looks += u32::from(new_faces && !first);
        let hold = new_faces && self.holds_first();
        self.holding = if hold { self.holding + 1 } else { 0 };
        if first {
            // What dies now is gone in a moment, and may have forked: look closely.
            self.pause = FIRST_PAUSE;
        } else if new_faces || look.gaps == Gaps::Elusive {
            // Somebody may fork as fast as we kill. Whoever lets it go on between two looks never catches up. But what has
            // outlived our patience may not be ours to kill at all, and must not cost a processor.
            self.pause = if self.is_overdue(now) { FIRST_PAUSE } else { Duration::ZERO };
        }
        let at_once = orders.contains(&Order::KillLeaf);
        let one_by_one = look.members.iter().filter(|member| !(at_once && member.in_leaf));
        let one_by_one = one_by_one.map(|member| member.identity);
        if hold {
            orders.extend(one_by_one.filter(|who| !self.held.contains(who)).map(Order::Hold));
        } else {
            orders.extend(one_by_one.map(Order::Kill));
        }
        orders
    }

    fn note_dying(&mut self, now: BootTime, members: &[Member]) {
        let mut dying = HashMap::with_capacity(members.len());
        for member in members {
            let known = self.dying.get(&member.identity);
            let asleep_since = match member.activity {
                Activity::Uninterruptible => Some(known.and_then(|known| known.asleep_since).unwrap_or(now)),
                Activity::Interruptible | Activity::Stopped | Activity::Ended => None,
            };
            let since = known.map(|known| known.since.unwrap_or(now));
            dying.insert(member.identity, Dying { since, asleep_since });
        }
        self.dying = dying;
    }

    /// Whether somebody new is to be made to stand still before anybody is killed: they fork as fast as they are killed.
    #[must_use]
    pub const fn holds_first(&self) -> bool {
        self.storm_looks >= STORM_LOOKS && self.holding < LONGEST_HOLD
    }

    /// How many processes have been killed or made to stand still, as far as they were seen.
    pub(super) fn reached_killing(&self) -> usize {
        self.killed.len() + self.held.len()
    }

    /// The orders that end many at once, and need no knowledge of whom. To be asked for only when SIGKILL is due.
    pub fn strike(&mut self, now: BootTime, init: Option<Identity>, leaf: Option<LeafLook>) -> Vec<Order> {
        if self.killed_since.is_none() {
            self.killed_since = Some(now);
            self.calm_looks = 0;
            // The look that was planned before may have been put off on purpose.
            self.expected = None;
            // What dies now is gone in a moment: look closely again.
            self.pause = FIRST_PAUSE;
        }
        let leaf = leaf.is_some_and(|leaf| leaf.populated && leaf.can_kill) && !self.leaf_refused;
        leaf.then_some(Order::KillLeaf).into_iter().chain(init.map(Order::Kill)).collect()
    }

    /// Whether [`KILL_PATIENCE`] has passed since SIGKILL was first due.
    #[must_use]
    pub fn is_overdue(&self, now: BootTime) -> bool {
        self.killed_since.is_some_and(|since| now.saturating_since(since) >= KILL_PATIENCE)
    }

    fn ask(&mut self, look: &Look<'_>) -> Vec<Order> {
        self.calm_looks = self.calm_looks.saturating_add(1);
        match self.first_signal {
            FirstSignal::Theirs => Vec::new(),
            FirstSignal::Ours => {
                let all = look.members.iter().map(|member| member.identity);
                let before = all.filter(|who| !who.start.is_after(self.began));
                let fresh = before.filter(|&who| self.signalled.insert(who));
                let mut orders: Vec<_> = fresh.map(Order::Stop).collect();
                if !orders.is_empty() {
                    self.pause = FIRST_PAUSE;
                    self.calm_looks = 0;
                }
                // Last: nobody is to run on before he has been asked.
                orders.extend(look.leaf.is_some_and(|leaf| leaf.needs_thawing).then_some(Order::ThawLeaf));
                orders
            }
        }
    }

    /// Tells what became of an order. For one about the control group, [`Delivery::NotPermitted`] stands for any failure.
    pub fn delivered(&mut self, order: Order, delivery: Delivery) {
        match (order, delivery) {
            (Order::Stop(who) | Order::Hold(who) | Order::Kill(who), Delivery::NotPermitted) => {
                self.refused.insert(who);
            }
            (Order::Stop(who) | Order::Hold(who) | Order::Kill(who), Delivery::Gone) => {
                self.refused.remove(&who);
            }
            (Order::Hold(who), Delivery::Sent) => {
                self.held.insert(who);
            }
            (Order::Stop(who), Delivery::Sent) => {
                self.refused.remove(&who);
                self.reached += 1;
            }
            (Order::Kill(who), Delivery::Sent) => {
                self.refused.remove(&who);
                self.killed.insert(who);
            }
            (Order::KillLeaf, Delivery::Sent) => self.killed.extend(&self.inside),
            (Order::KillLeaf, Delivery::NotPermitted) => self.leaf_refused = true,
            (Order::KillLeaf, Delivery::Gone) | (Order::ThawLeaf, _) => {}
        }
    }

    /// Tells that an order could not be carried out and nothing was sent, for want of a descriptor: the next step gives it
    /// again.
    pub fn not_sent(&mut self, order: Order) {
        match order {
            Order::Stop(identity) => {
                self.signalled.remove(&identity);
            }
            Order::Hold(_) | Order::Kill(_) | Order::KillLeaf | Order::ThawLeaf => {}
        }
    }

    /// Who outlived SIGKILL, as the last look found it, in the order of their numbers: whoever was still there in a look
    /// that came [`KILL_PATIENCE`] or more after the first look behind the signal, and that cannot be signalled or was found
    /// in uninterruptible sleep by every look for a while; and whoever could end and has not done so for seconds. Time that
    /// passed without a look says nothing: then it was the machine that was slow.
    ///
    /// The ladder goes on trying all the same.
    #[must_use]
    pub fn survivors(&self) -> Vec<Survivor> {
        let lasts = |since: Option<BootTime>, span: Duration| {
            since.is_some_and(|since| self.looked_at.saturating_since(since) >= span)
        };
        let slow = SLOW + self.lateness * SLOWER;
        let reason = |identity: &Identity| {
            let dying = self.dying.get(identity)?;
            if !lasts(dying.since, KILL_PATIENCE) {
                None
            } else if self.refused.contains(identity) {
                Some(SurvivorReason::NotPermitted)
            } else if lasts(dying.asleep_since, ASLEEP) {
                Some(SurvivorReason::Uninterruptible)
            } else {
                lasts(dying.since, slow).then_some(SurvivorReason::StillEnding)
            }
        };
        let found = self.left.iter().filter_map(|who| Some(Survivor { pid: who.pid, reason: reason(who)? }));
        let mut survivors: Vec<_> = found.collect();
        survivors.sort_unstable_by_key(|survivor| survivor.pid);
        survivors
    }
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
