//! Carries out a stop: looks, decides by the ladder, pins, sends. One step at a time and never waiting, so that it serves
//! the wrapper's poll loop and a task of the daemon alike.

use std::time::Duration;

use rustix::process::Signal;

use super::ladder::{FirstSignal, Ladder, Next, Order, Survivor};
use super::members::Tree;
use super::pidfd::{Delivery, Process};
use super::table::ProcessTable;
use crate::clock::BootTime;

/// A stop under way.
#[derive(Debug)]
pub struct Stop {
    tree: Tree,
    ladder: Ladder,
    signal: Signal,
}

impl Stop {
    /// Begins to stop `tree`; nothing is sent before the first [`Stop::step`]. SIGKILL follows `grace` after `now`.
    #[must_use]
    pub fn begin(now: BootTime, tree: Tree, signal: Signal, first_signal: FirstSignal, grace: Duration) -> Self {
        Self { tree, ladder: Ladder::begin(now, first_signal, grace), signal }
    }

    /// Sends what is due by this table and says when to come back. One table serves many stops, as long as it was read
    /// after the `now` of the step before: two looks at the same table are one.
    ///
    /// What cannot be sent for want of a descriptor is sent with the next step.
    pub fn step(&mut self, now: BootTime, table: &ProcessTable) -> Next {
        let members = self.tree.members(table);
        let step = self.ladder.step(now, &members);
        for order in step.orders {
            let target = order.target();
            match Process::pin(target.pid, target.start) {
                Ok(Some(process)) => self.ladder.delivered(order, send(&process, order, self.signal)),
                Ok(None) => self.ladder.delivered(order, Delivery::Gone),
                Err(_) => self.ladder.not_sent(order),
            }
        }
        step.next
    }

    /// Who is left although SIGKILL was sent a while ago; see [`Ladder::survivors`].
    #[must_use]
    pub fn survivors(&self, now: BootTime) -> Vec<Survivor> {
        self.ladder.survivors(now)
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

    /// The tree, as known by now.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// Sends what is ordered. The caller pins one process at a time and lets go of it again: a stop must not need more
/// descriptors than a fork storm leaves.
fn send(process: &Process, order: Order, stop_signal: Signal) -> Delivery {
    // The kernel refuses a signal for no other reasons than those `Delivery` names; a number it does not know would have
    // been refused when it was chosen.
    let signal = |signal| process.signal(signal).unwrap_or(Delivery::NotPermitted);
    match order {
        Order::Stop(_) => {
            let delivery = signal(stop_signal);
            // To all alike, not only to those seen stopped: one may stop between the look and the signal.
            signal(Signal::CONT);
            delivery
        }
        Order::Kill(_) => signal(Signal::KILL),
    }
}

#[cfg(test)]
#[path = "enforce_tests.rs"]
mod tests;
