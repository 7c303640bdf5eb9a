//! Carries out a stop: looks, decides by the ladder, pins, sends. One step at a time and never waiting, so that it serves
//! the wrapper's poll loop and a task of the daemon alike.

use std::time::Duration;

use rustix::io::Errno;
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
    /// An order that fails for want of a descriptor is repeated with SIGKILL's repetitions; a stop signal is not.
    pub fn step(&mut self, now: BootTime, table: &ProcessTable) -> Next {
        let members = self.tree.members(table);
        let step = self.ladder.step(now, &members);
        for order in step.orders {
            // An error is no fact about the process: it stays among the members, and the next step tries again.
            if let Ok(delivery) = send(order, self.signal) {
                self.ladder.delivered(order, delivery);
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

/// Pins the target and sends it what is ordered. One descriptor at a time, closed again: a stop must not need more of
/// them than a fork storm leaves.
fn send(order: Order, stop_signal: Signal) -> Result<Delivery, Errno> {
    let target = order.target();
    let Some(process) = Process::pin(target.pid, target.start)? else { return Ok(Delivery::Gone) };
    match order {
        Order::Stop(_) => {
            let delivery = process.signal(stop_signal)?;
            // To all alike, not only to those seen stopped: one may stop between the look and the signal.
            process.signal(Signal::CONT)?;
            Ok(delivery)
        }
        Order::Kill(_) => process.signal(Signal::KILL),
    }
}

#[cfg(test)]
#[path = "enforce_tests.rs"]
mod tests;
