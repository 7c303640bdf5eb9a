//! The stop ladder: who is sent what, and when it is over. Pure: it is told the time and the members, and sends nothing.
//!
//! ```text
//!  begin ──► grace: stop signal and CONT, once to each member ──► kill: KILL to all, again and again ──► over
//!               │   (not to those started since: a stop signal's     │
//!               │   handler may run a command to clean up)           │
//!               └──────────────── nobody left, twice in a row ───────┴─────────────────────────────────► over
//! ```
//!
//! The leader's end does not end it: the tree's does. Where two sides end the same tree, one of them sends the stop signal
//! ([`FirstSignal::Ours`]) and the other only waits out the grace ([`FirstSignal::Theirs`]), so that no process gets it
//! twice; SIGKILL comes from both.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::members::Member;
use super::pid::{Identity, Pid};
use super::pidfd::Delivery;
use super::stat::Activity;
use crate::clock::BootTime;

/// Time between two looks at first; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest time between two looks.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// How long after the first SIGKILL whoever is left counts as a survivor. Within the second that the promise allows
/// beyond the grace.
pub const KILL_PATIENCE: Duration = Duration::from_millis(800);
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

/// What one process is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The stop signal, then SIGCONT, so that a stopped process can act on it.
    Stop(Identity),
    /// SIGKILL.
    Kill(Identity),
}

impl Order {
    /// Whom it is for.
    #[must_use]
    pub const fn target(self) -> Identity {
        match self {
            Self::Stop(identity) | Self::Kill(identity) => identity,
        }
    }
}

/// Why a process is still there after SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurvivorReason {
    /// It runs as another user, whom we may not signal.
    NotPermitted,
    /// It is in a wait that the kernel does not interrupt.
    Uninterruptible,
    /// Neither is known: it was killed and has not gone yet, or was forked since.
    StillEnding,
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

/// One stop of one tree.
#[derive(Clone, Debug)]
pub struct Ladder {
    first_signal: FirstSignal,
    began: BootTime,
    kill_at: BootTime,
    signalled: HashSet<Identity>,
    refused: HashSet<Identity>,
    /// The living members of the last look.
    left: HashMap<Identity, Activity>,
    killed_since: Option<BootTime>,
    empty_looks: u8,
    pause: Duration,
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
            left: HashMap::new(),
            killed_since: None,
            empty_looks: 0,
            pause: FIRST_PAUSE,
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

    /// Shortens the grace to end `grace` after `now`; never lengthens it.
    pub fn hasten(&mut self, now: BootTime, grace: Duration) {
        self.kill_at = self.kill_at.min(now + grace);
    }

    /// Takes the living members and says what to send them. May be called at any time, any number of times.
    pub fn step(&mut self, now: BootTime, members: &[Member]) -> Step {
        self.left = members.iter().map(|member| (member.identity, member.activity)).collect();
        if members.is_empty() {
            self.empty_looks = self.empty_looks.saturating_add(1);
            if self.empty_looks >= EMPTY_LOOKS {
                return Step { orders: Vec::new(), next: Next::Over };
            }
            return Step { orders: Vec::new(), next: Next::LookAt(now + FIRST_PAUSE) };
        }
        self.empty_looks = 0;
        let killing = now >= self.kill_at;
        let orders = if killing { self.kill(now, members) } else { self.ask(members) };
        let mut look_at = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        if !killing {
            look_at = look_at.min(self.kill_at);
        }
        Step { orders, next: Next::LookAt(look_at) }
    }

    fn kill(&mut self, now: BootTime, members: &[Member]) -> Vec<Order> {
        if self.killed_since.is_none() {
            self.killed_since = Some(now);
            // What dies now is gone in a moment: look closely again.
            self.pause = FIRST_PAUSE;
        }
        members.iter().map(|member| Order::Kill(member.identity)).collect()
    }

    fn ask(&mut self, members: &[Member]) -> Vec<Order> {
        match self.first_signal {
            FirstSignal::Theirs => Vec::new(),
            FirstSignal::Ours => {
                let before = members.iter().map(|member| member.identity).filter(|who| !who.start.is_after(self.began));
                let fresh = before.filter(|&who| self.signalled.insert(who));
                let orders: Vec<_> = fresh.map(Order::Stop).collect();
                if !orders.is_empty() {
                    self.pause = FIRST_PAUSE;
                }
                orders
            }
        }
    }

    /// Tells what became of an order.
    pub fn delivered(&mut self, order: Order, delivery: Delivery) {
        match delivery {
            Delivery::NotPermitted => {
                self.refused.insert(order.target());
            }
            Delivery::Sent | Delivery::Gone => {
                self.refused.remove(&order.target());
            }
        }
    }

    /// Tells that an order could not be carried out and nothing was sent, for want of a descriptor: the next step gives it
    /// again.
    pub fn not_sent(&mut self, order: Order) {
        match order {
            Order::Stop(identity) => {
                self.signalled.remove(&identity);
            }
            Order::Kill(_) => {}
        }
    }

    /// Who is left although [`KILL_PATIENCE`] has passed since the first SIGKILL, in the order of their numbers. Empty
    /// before, and when nobody is. The ladder goes on trying all the same.
    #[must_use]
    pub fn survivors(&self, now: BootTime) -> Vec<Survivor> {
        let overdue = self.killed_since.is_some_and(|since| now.saturating_since(since) >= KILL_PATIENCE);
        if !overdue {
            return Vec::new();
        }
        let reason = |identity, activity| {
            if self.refused.contains(identity) {
                SurvivorReason::NotPermitted
            } else {
                match activity {
                    Activity::Uninterruptible => SurvivorReason::Uninterruptible,
                    Activity::Interruptible | Activity::Stopped | Activity::Ended => SurvivorReason::StillEnding,
                }
            }
        };
        let mut survivors: Vec<_> = self
            .left
            .iter()
            .map(|(identity, &activity)| Survivor { pid: identity.pid, reason: reason(identity, activity) })
            .collect();
        survivors.sort_unstable_by_key(|survivor| survivor.pid);
        survivors
    }
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
