//! The stop ladder: which process is sent which signal, and when the stop is over. Pure: it is given the time and the
//! members, and sends nothing.
//!
//! ```text
//!  begin ──► grace: stop signal and CONT, once to each member ──► kill: KILL to all, again and again ──► over
//!               │   (not to those started since: a stop signal's     │
//!               │   handler may run a command to clean up)           │
//!               └──────────────── nothing left, twice in a row ──────┴─────────────────────────────────► over
//! ```
//!
//! If the run has a control group, the kernel kills all processes inside at once, and the others are killed one by one;
//! the stop is over when no member is found *and* the group is empty. A frozen group is thawed after every member was sent
//! the stop signal, so that they can act on it (SIGKILL needs no thawing). If the run has a PID namespace, its first
//! process is not sent the stop signal, and is killed with the others: its end is the end of all processes inside.
//!
//! A fork storm at a limit of processes refills each place that a SIGKILL frees. When looks keep finding new members, all
//! of them are first stopped with SIGSTOP, which frees no place, and killed once a look finds no new one.
//!
//! The stop does not end with the leader, but with the tree. When two sides stop the same tree, one of them sends the stop
//! signal ([`FirstSignal::Ours`]) and the other only waits for the end of the grace ([`FirstSignal::Theirs`]), so that no
//! process gets it twice; both send SIGKILL.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use machineid_clock::BootTime;

use super::members::Member;
use super::pid::{Identity, Pid};
use super::pidfd::Delivery;
use super::stat::Activity;

/// Time between the first two looks; it doubles with each look.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest time between two looks.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest time between two looks at processes that have all been sent SIGKILL: there is nothing to do until the
/// kernel has ended them, which takes longer the more of them there are.
const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// How long after the first look that follows its SIGKILL a process may live before it can count as a survivor. Shorter
/// than the second that the promise allows beyond the grace.
pub const KILL_PATIENCE: Duration = Duration::from_millis(800);
/// For how long every look must have found a process in uninterruptible sleep before that is reported as the reason. A
/// process that is ending is in that state for moments.
const ASLEEP: Duration = Duration::from_millis(300);
/// How long a process may take to end that could end: it may lack a processor, or have much memory to give back. That
/// says something about the machine and not about the process, so it is reported only after this time.
const SLOW: Duration = Duration::from_secs(5);
/// By how much that time grows, as a multiple of the longest delay of a look: late looks show how loaded the machine is.
const SLOWER: u32 = 8;
/// How many looks in a row must have nothing to send for the ladder to be calm.
const CALM_LOOKS: u32 = 2;
/// How many looks after the first SIGKILL must find a new process for that to be a fork storm.
const STORM_LOOKS: u32 = 2;

/// How many looks in a row may only stop members with SIGSTOP. An agent that fakes new members must not escape SIGKILL.
const MOST_SIGSTOP_LOOKS: u32 = 16;

/// How many looks in a row must find no process: one look may miss a process that was forked during it.
const EMPTY_LOOKS: u8 = 2;

/// Which side sends the stop signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSignal {
    /// This ladder sends it.
    Ours,
    /// The other side has sent it, or will.
    Theirs,
}

/// A signal for one process, or a change of the control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The stop signal, then SIGCONT, so that a stopped process can act on it.
    Stop(Identity),
    /// SIGSTOP: a stopped process forks no other, and frees no place for one.
    Suspend(Identity),
    /// SIGKILL.
    Kill(Identity),
    /// SIGKILL to every process in the control group.
    KillLeaf,
    /// Thaw the processes in the control group.
    ThawLeaf,
}

/// The tree as a look found it.
#[derive(Clone, Copy, Debug)]
pub struct TreeLook<'a> {
    /// The living members.
    pub members: &'a [Member],
    /// The tree's control group, if it has one.
    pub leaf: Option<LeafLook>,
    /// The first process of the tree's PID namespace, if it has one that lives.
    pub init: Option<Identity>,
    /// Whether the list of members may be incomplete.
    pub gaps: Gaps,
}

/// Whether processes may exist besides the members that a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// None, as far as can be known.
    None,
    /// A process was found that was in no table: forked since, or forking and ending faster than a table is read.
    Elusive,
    /// Not everything could be looked at, because no descriptor was available.
    Unseen,
}

impl<'a> TreeLook<'a> {
    /// A look that found these members and looked at nothing else.
    #[must_use]
    pub const fn at(members: &'a [Member]) -> Self {
        Self { members, leaf: None, init: None, gaps: Gaps::None }
    }

    fn found_none(&self) -> bool {
        self.members.is_empty() && self.gaps == Gaps::None && self.leaf.is_none_or(|leaf| !leaf.populated)
    }
}

/// A run's control group as a look found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafLook {
    /// A process is inside, possibly one that cannot be seen from here.
    pub populated: bool,
    /// This process may tell the kernel to kill all inside.
    pub can_kill: bool,
    /// The group is frozen and this process may thaw it.
    pub needs_thawing: bool,
}

/// Why a process still exists after SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurvivorReason {
    /// The process runs as another user, and may not be signalled.
    NotPermitted,
    /// The process is in a wait that the kernel does not interrupt.
    Uninterruptible,
    /// The process was sent SIGKILL seconds ago, could end and has not.
    StillEnding,
}

impl SurvivorReason {
    /// The reason, as text for operators.
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
    /// The process id.
    pub pid: Pid,
    /// Why it still exists.
    pub reason: SurvivorReason,
}

/// When to look again, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At this time at the latest; an earlier look does no harm.
    LookAt(BootTime),
    /// Never: no process is left.
    Over,
}

/// The result of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The signals to send.
    pub orders: Vec<Order>,
    /// When to look again.
    pub next: Next,
}

/// One stop of one tree: which process is sent which signal, and when the stop is over.
///
/// A ladder performs no I/O, reads no clock and sends nothing. Its caller looks at the tree, tells the ladder what it
/// found, carries out the orders and reports the result of each. The methods are of four kinds:
///
/// - **input**: [`step`](Self::step) takes one [`TreeLook`] and the current time. [`delivered`](Self::delivered) or
///   [`not_sent`](Self::not_sent) takes the result of one order.
/// - **output**: the orders of the [`Step`], to be carried out in their order, and its [`Next`]: when to look again.
/// - **shortcuts** where a look would take too long: [`ask_first`](Self::ask_first) gives the stop signal for a process
///   that is known in advance, [`strike`](Self::strike) the SIGKILLs that end many at once. The next `step` knows of both.
/// - **questions**, which change nothing: how many were signalled and killed, what has survived, whether looks are calm.
///
/// # Order
///
/// 1. [`begin`](Self::begin), with the grace, and with the side that sends the stop signal.
/// 2. `ask_first`, at most once for each process and before the first `step`.
/// 3. `step` again and again, until it returns [`Next::Over`]. Every order of a step is reported before the next step: a
///    stop signal that was not sent and is not reported is never given again, and a survivor that refused SIGKILL has no
///    reason.
/// 4. [`hasten`](Self::hasten) at any time; it only shortens the grace.
///
/// # Time
///
/// `now` is a reading of the boot clock and never less than in the call before. A step that comes early, or twice, does no
/// harm. A step that comes late sends SIGKILL late by as much, and makes the ladder wait longer before it calls a process a
/// survivor. A look must be made after the `now` that is passed with it: two calls with one look count as one look.
#[derive(Clone, Debug)]
pub struct Ladder {
    first_signal: FirstSignal,
    began: BootTime,
    kill_at: BootTime,
    signalled: HashSet<Identity>,
    refused: HashSet<Identity>,
    /// How many processes the stop signal reached.
    reached: usize,
    killed: HashSet<Identity>,
    /// Members that an earlier look found when SIGKILL was due.
    seen_killing: HashSet<Identity>,
    /// Members that were sent SIGSTOP.
    suspended: HashSet<Identity>,
    /// How many looks since the first SIGKILL have found a new member.
    storm_looks: u32,
    /// How many looks in a row have only sent SIGSTOP.
    sigstop_looks: u32,
    /// The members in the control group at the last look.
    inside: Vec<Identity>,
    /// The kernel refused to kill the control group.
    leaf_refused: bool,
    /// The living members of the last look.
    left: HashSet<Identity>,
    /// The members that a look found when SIGKILL was due, and what later looks have shown of them.
    dying: HashMap<Identity, Dying>,
    killed_since: Option<BootTime>,
    empty_looks: u8,
    /// How many looks in a row had nothing to send to a new member.
    calm_looks: u32,
    pause: Duration,
    /// When the last look was made, and when the next one is planned.
    looked_at: BootTime,
    expected: Option<BootTime>,
    /// The longest delay of a look so far.
    lateness: Duration,
}

/// A member that has been sent SIGKILL, or should have been.
#[derive(Clone, Copy, Debug, Default)]
struct Dying {
    /// The first look after the SIGKILL.
    since: Option<BootTime>,
    /// The first of the consecutive looks that found it in uninterruptible sleep.
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
            suspended: HashSet::new(),
            storm_looks: 0,
            sigstop_looks: 0,
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

    /// When SIGKILL is due.
    #[must_use]
    pub const fn kill_at(&self) -> BootTime {
        self.kill_at
    }

    /// Whether the last look found a living member.
    #[must_use]
    pub fn found_any(&self) -> bool {
        !self.left.is_empty()
    }

    /// How many processes the stop signal has reached.
    #[must_use]
    pub const fn signalled(&self) -> usize {
        self.reached
    }

    /// How many processes SIGKILL has been sent to, as far as a look has seen them.
    #[must_use]
    pub fn killed(&self) -> usize {
        self.killed.len()
    }

    /// Shortens the grace to end `grace` after `now`; never lengthens it.
    pub fn hasten(&mut self, now: BootTime, grace: Duration) {
        self.kill_at = self.kill_at.min(now + grace);
    }

    /// Returns the stop signal's order for a process that is known before any look, if the signal is due from this
    /// side. It will not be ordered again.
    pub fn ask_first(&mut self, now: BootTime, identity: Identity) -> Option<Order> {
        let due = self.first_signal == FirstSignal::Ours && now < self.kill_at;
        (due && self.signalled.insert(identity)).then_some(Order::Stop(identity))
    }

    /// Takes the result of a look and returns what to do. May be called at any time, any number of times.
    pub fn step(&mut self, now: BootTime, look: &TreeLook<'_>) -> Step {
        let step = self.take(now, look);
        self.expected = match step.next {
            Next::LookAt(at) => Some(at),
            Next::Over => None,
        };
        step
    }

    /// Whether the last looks had nothing to send to a new member. Until SIGKILL is due, or has been under way for long
    /// enough, a caller then only waits for the end, which it may learn in cheaper ways than by looks.
    #[must_use]
    pub const fn is_calm(&self) -> bool {
        self.calm_looks >= CALM_LOOKS
    }

    /// Whether the last looks have found exactly these processes of the control group and no other members, several
    /// times in a row.
    #[must_use]
    pub fn is_all_of_it(&self, inside: &[Pid]) -> bool {
        if !self.is_calm() || inside.is_empty() || inside.len() != self.inside.len() || !self.is_inside() {
            return false;
        }
        // An agent may have many processes.
        let known: HashSet<Pid> = self.inside.iter().map(|identity| identity.pid).collect();
        inside.iter().all(|pid| known.contains(pid))
    }

    /// Whether the last look found members, all of them in the control group.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        !self.left.is_empty() && self.left.len() == self.inside.len()
    }

    /// Whether a process has been forked while others were killed.
    #[must_use]
    pub const fn is_storm(&self) -> bool {
        self.storm_looks > 0
    }

    fn take(&mut self, now: BootTime, look: &TreeLook<'_>) -> Step {
        let members = look.members;
        self.looked_at = now;
        // Before SIGKILL is due a caller may skip looks on purpose, which says nothing about the load of the machine.
        let expected = self.expected.filter(|_| self.killed_since.is_some());
        let late = expected.map_or(Duration::ZERO, |expected| now.saturating_since(expected));
        self.lateness = self.lateness.max(late);
        self.left = members.iter().map(|member| member.identity).collect();
        self.inside = members.iter().filter(|member| member.in_leaf).map(|member| member.identity).collect();
        if look.found_none() {
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

    fn kill(&mut self, now: BootTime, look: &TreeLook<'_>) -> Vec<Order> {
        let mut orders = self.strike(now, look.init, look.leaf);
        let first = self.seen_killing.is_empty();
        let mut new_faces = false;
        for member in look.members {
            new_faces |= self.seen_killing.insert(member.identity);
        }
        self.note_dying(now, look.members);
        self.calm_looks = if new_faces || look.gaps != Gaps::None { 0 } else { self.calm_looks.saturating_add(1) };
        self.storm_looks += u32::from(new_faces && !first);
        let sigstop = new_faces && self.sigstops_first();
        self.sigstop_looks = if sigstop { self.sigstop_looks + 1 } else { 0 };
        if first {
            // A dying process is gone in a moment, and may have forked before: look again soon.
            self.pause = FIRST_PAUSE;
        } else if new_faces || look.gaps == Gaps::Elusive {
            // A member may fork as fast as it is killed, and a pause between two looks would let it win. But processes
            // that outlive the patience may be impossible to kill, and must not cost a whole processor.
            self.pause = if self.is_overdue(now) { FIRST_PAUSE } else { Duration::ZERO };
        }
        let at_once = orders.contains(&Order::KillLeaf);
        let one_by_one = look.members.iter().filter(|member| !(at_once && member.in_leaf));
        let one_by_one = one_by_one.map(|member| member.identity);
        if sigstop {
            orders.extend(one_by_one.filter(|identity| !self.suspended.contains(identity)).map(Order::Suspend));
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

    /// Whether new members are to be sent SIGSTOP before any is killed, because they fork as fast as they are killed.
    #[must_use]
    pub const fn sigstops_first(&self) -> bool {
        self.storm_looks >= STORM_LOOKS && self.sigstop_looks < MOST_SIGSTOP_LOOKS
    }

    /// How many processes have been sent SIGKILL or SIGSTOP, as far as a look has seen them.
    pub(super) fn reached_killing(&self) -> usize {
        self.killed.len() + self.suspended.len()
    }

    /// The orders that end many processes at once and need no list of them. To be called only when SIGKILL is due.
    pub fn strike(&mut self, now: BootTime, init: Option<Identity>, leaf: Option<LeafLook>) -> Vec<Order> {
        if self.killed_since.is_none() {
            self.killed_since = Some(now);
            self.calm_looks = 0;
            // The look that was planned before may have been skipped on purpose.
            self.expected = None;
            // A dying process is gone in a moment: look again soon.
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

    fn ask(&mut self, look: &TreeLook<'_>) -> Vec<Order> {
        self.calm_looks = self.calm_looks.saturating_add(1);
        match self.first_signal {
            FirstSignal::Theirs => Vec::new(),
            FirstSignal::Ours => {
                let all = look.members.iter().map(|member| member.identity);
                let before = all.filter(|identity| !identity.start.is_after(self.began));
                let fresh = before.filter(|&identity| self.signalled.insert(identity));
                let mut orders: Vec<_> = fresh.map(Order::Stop).collect();
                if !orders.is_empty() {
                    self.pause = FIRST_PAUSE;
                    self.calm_looks = 0;
                }
                // Last: no process may run on before it was sent the stop signal.
                orders.extend(look.leaf.is_some_and(|leaf| leaf.needs_thawing).then_some(Order::ThawLeaf));
                orders
            }
        }
    }

    /// Takes the result of an order. For an order about the control group, [`Delivery::NotPermitted`] stands for any
    /// failure.
    pub fn delivered(&mut self, order: Order, delivery: Delivery) {
        match (order, delivery) {
            (Order::Stop(identity) | Order::Suspend(identity) | Order::Kill(identity), Delivery::NotPermitted) => {
                self.refused.insert(identity);
            }
            (Order::Stop(identity) | Order::Suspend(identity) | Order::Kill(identity), Delivery::Gone) => {
                self.refused.remove(&identity);
            }
            (Order::Suspend(identity), Delivery::Sent) => {
                self.suspended.insert(identity);
            }
            (Order::Stop(identity), Delivery::Sent) => {
                self.refused.remove(&identity);
                self.reached += 1;
            }
            (Order::Kill(identity), Delivery::Sent) => {
                self.refused.remove(&identity);
                self.killed.insert(identity);
            }
            (Order::KillLeaf, Delivery::Sent) => self.killed.extend(&self.inside),
            (Order::KillLeaf, Delivery::NotPermitted) => self.leaf_refused = true,
            (Order::KillLeaf, Delivery::Gone) | (Order::ThawLeaf, _) => {}
        }
    }

    /// Takes note that an order was not carried out because no descriptor was available: the next step gives it again.
    pub fn not_sent(&mut self, order: Order) {
        match order {
            Order::Stop(identity) => {
                self.signalled.remove(&identity);
            }
            Order::Suspend(_) | Order::Kill(_) | Order::KillLeaf | Order::ThawLeaf => {}
        }
    }

    /// The processes that outlived SIGKILL, as the last look found them, sorted by number. A process counts when it
    /// still lived in a look that came [`KILL_PATIENCE`] or more after the first look that followed the signal, and
    /// either refuses signals or was found in uninterruptible sleep by every look for a while. A process that could end
    /// counts after seconds. Time without a look does not count: then the machine was slow.
    ///
    /// The ladder keeps sending SIGKILL to them.
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
        let found =
            self.left.iter().filter_map(|identity| Some(Survivor { pid: identity.pid, reason: reason(identity)? }));
        let mut survivors: Vec<_> = found.collect();
        survivors.sort_unstable_by_key(|survivor| survivor.pid);
        survivors
    }
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
