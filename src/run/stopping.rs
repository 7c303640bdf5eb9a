//! The wrapper's stop of its tree: when to look, and when to give up.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;

use crate::clock::BootTime;
use crate::tree::{FirstSignal, Glance, KILL_PATIENCE, Next, ProcessTable, Stop, Tree};

/// Time to the next look when one failed or found nobody.
const PAUSE: Duration = Duration::from_millis(20);
/// How long after SIGKILL the wrapper waits for those that do not go. Its guardian and the daemon go on after it.
const GIVE_UP: Duration = KILL_PATIENCE.saturating_add(Duration::from_secs(2));
/// Time between two looks during the grace while a guardian lives, which says by itself when nobody is left: each look reads
/// all of `/proc`, and a thousand wrappers may be stopping at once.
const AT_EASE: Duration = Duration::from_secs(1);
/// How many looks come as soon as the ladder wants them all the same: one may miss a process forked while it looks.
const KEEN_LOOKS: u8 = 2;
/// How long the guardian may take to notice that nobody is left.
const NOTICE: Duration = Duration::from_secs(1);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Somebody is left, or may be.
    Somebody,
    /// Nobody, for some time, and the guardian has not said so.
    NobodyForLong,
    /// Nobody; the guardian will say so in a moment.
    Nobody,
    /// Some who do not go.
    Stuck,
}

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stopping {
    stop: Stop,
    look_at: BootTime,
    nobody_since: Option<BootTime>,
    keen_looks: u8,
}

impl Stopping {
    pub(super) fn begin(now: BootTime, tree: Tree, signal: Signal, first_signal: FirstSignal, grace: Duration) -> Self {
        let stop = Stop::begin(now, tree, signal, first_signal, grace);
        let look_at = match first_signal {
            FirstSignal::Ours => now,
            // Where the signal is another's there is nothing to do before SIGKILL.
            FirstSignal::Theirs => stop.ladder().kill_at(),
        };
        Self { stop, look_at, nobody_since: None, keen_looks: KEEN_LOOKS }
    }

    /// There is no guardian any more to say when nobody is left.
    pub(super) fn look_closely(&mut self, now: BootTime) {
        self.keen_looks = u8::MAX;
        self.look_at = now;
    }

    /// When SIGKILL comes.
    pub(super) const fn kill_at(&self) -> BootTime {
        self.stop.ladder().kill_at()
    }

    /// When to look again.
    pub(super) const fn look_at(&self) -> BootTime {
        self.look_at
    }

    /// What was done, for the report.
    pub(super) const fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Lets the grace end this much from now, if that is sooner.
    pub(super) fn hasten(&mut self, now: BootTime, grace: Duration) {
        self.stop.hasten(now, grace);
        self.look_at = self.look_at.min(self.kill_at());
    }

    /// Looks and sends what is due, when it is time to.
    pub(super) fn step(&mut self, now: BootTime) -> Found {
        if now < self.look_at {
            return Found::Somebody;
        }
        match self.stop.glance(now) {
            Glance::Again => return Found::Somebody,
            Glance::Over => return self.nobody(now),
            Glance::Step => {}
        }
        let table = match ProcessTable::scan_until(self.stop.table_deadline(now)) {
            Ok(table) => table,
            Err(errno) => {
                self.look_at = if errno == Errno::TIME { now } else { now + PAUSE };
                return Found::Somebody;
            }
        };
        match self.stop.step(now, &table) {
            Next::LookAt(at) => {
                self.look_at = self.at_ease(now, at);
                self.nobody_since = None;
            }
            Next::Over => return self.nobody(now),
        }
        let stuck = now >= self.kill_at() + GIVE_UP && !self.stop.survivors(now).is_empty();
        if stuck { Found::Stuck } else { Found::Somebody }
    }

    fn nobody(&mut self, now: BootTime) -> Found {
        self.look_at = now + PAUSE;
        let since = *self.nobody_since.get_or_insert(now);
        if now.saturating_since(since) >= NOTICE { Found::NobodyForLong } else { Found::Nobody }
    }

    fn at_ease(&mut self, now: BootTime, wanted: BootTime) -> BootTime {
        let keen = self.keen_looks > 0;
        if self.keen_looks < u8::MAX {
            self.keen_looks = self.keen_looks.saturating_sub(1);
        }
        if keen || now >= self.kill_at() { wanted } else { wanted.max(now + AT_EASE).min(self.kill_at()) }
    }
}
