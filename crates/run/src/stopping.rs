//! The wrapper's stop of its tree: when to look, and when to give up.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_tree::{Advance, FirstSignal, KILL_PATIENCE, Next, ScanAttempt, ScanTurn, Stop, Tree};
use rustix::io::Errno;
use rustix::process::Signal;

/// Time to the next look when one failed or found nobody.
const PAUSE: Duration = Duration::from_millis(20);
/// How long after SIGKILL the wrapper waits for those that do not go. Its guardian and the daemon go on after it.
const GIVE_UP: Duration = KILL_PATIENCE.saturating_add(Duration::from_secs(2));
/// How much later than the daemon the wrapper kills, where the daemon has begun the same stop and its connection stands:
/// most trees are gone by then, and a thousand wrappers need not all do what one daemon has done. It is as little as leaves
/// the wrapper alone time enough, should the daemon be there and do nothing.
const LEAD: Duration = Duration::from_millis(300);
/// How long after the daemon's connection has closed the wrapper takes the lead, once SIGKILL is due. The daemon closes it when it
/// has found the tree empty, which the guardian says a moment later; should the daemon have died, this is its delay.
const FAREWELL: Duration = Duration::from_millis(100);
/// How long the guardian may take to notice that nobody is left.
const NOTICE: Duration = Duration::from_secs(1);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookResult {
    /// Somebody is left, or may be.
    NotEmpty,
    /// Nobody, for some time, and the guardian has not said so.
    EmptyForLong,
    /// Nobody; the guardian will say so in a moment.
    Empty,
    /// Some who do not go.
    Stuck,
}

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stopping {
    stop: Stop,
    look_at: BootTime,
    nobody_since: Option<BootTime>,
    /// The daemon ends the tree as well, and its connection stands.
    led: bool,
    /// A guardian lives and says when nobody is left.
    guarded: bool,
    turns: ScanTurn,
}

impl Stopping {
    pub(super) fn begin(now: BootTime, tree: Tree, signal: Signal, first_signal: FirstSignal, grace: Duration) -> Self {
        let stop = Stop::begin(now, tree, signal, first_signal, grace);
        let look_at = match first_signal {
            FirstSignal::Ours => now,
            // Where the signal is another's there is nothing to do before SIGKILL.
            FirstSignal::Theirs => stop.ladder().kill_at(),
        };
        Self { stop, look_at, nobody_since: None, led: false, guarded: true, turns: ScanTurn::default() }
    }

    /// Whether the daemon ends the tree as well, as far as is known by now. One that no longer does is not waited for.
    pub(super) fn set_led(&mut self, now: BootTime, led: bool) {
        // Without a guardian nothing else tells the wrapper that the tree is empty: it does not leave the lead to the daemon.
        let led = led && self.guarded;
        if led == self.led {
            return;
        }
        self.led = led;
        if now >= self.kill_at() {
            self.look_at = if led { self.kill_due().max(now) } else { now + FAREWELL };
        } else if self.rests(now) {
            self.look_at = self.kill_due();
        }
    }

    /// There is no guardian any more to say when nobody is left.
    pub(super) fn look_closely(&mut self, now: BootTime) {
        self.guarded = false;
        self.led = false;
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
        self.look_at = self.look_at.min(self.kill_due());
    }

    /// Looks and sends what is due, when it is time to.
    pub(super) fn step(&mut self, now: BootTime) -> LookResult {
        if now < self.look_at {
            return LookResult::NotEmpty;
        }
        let next = match self.stop.advance(now) {
            Advance::Empty => return self.nobody(now),
            Advance::Next(next) => next,
            Advance::NeedsTable => match self.turns.scan(now, self.stop.table_deadline(now)) {
                Ok(ScanAttempt::Table(table)) => self.stop.step(now, &table),
                Ok(ScanAttempt::RetryAt(at)) => {
                    self.look_at = at;
                    return LookResult::NotEmpty;
                }
                Err(errno) => {
                    self.look_at = if errno == Errno::TIME { now } else { now + PAUSE };
                    return LookResult::NotEmpty;
                }
            },
        };
        match next {
            Next::LookAt(at) => {
                let waits = self.rests(now) || (self.led && now < self.kill_at() && at >= self.kill_at());
                self.look_at = if waits { self.kill_due() } else { at };
                self.nobody_since = None;
            }
            Next::Over => return self.nobody(now),
        }
        let stuck = now >= self.kill_at() + GIVE_UP && !self.stop.survivors().is_empty();
        if stuck { LookResult::Stuck } else { LookResult::NotEmpty }
    }

    fn nobody(&mut self, now: BootTime) -> LookResult {
        self.look_at = now + PAUSE;
        let since = *self.nobody_since.get_or_insert(now);
        if now.saturating_since(since) >= NOTICE { LookResult::EmptyForLong } else { LookResult::Empty }
    }

    /// Whether there is nothing to do before SIGKILL: the guardian says by itself when nobody is left.
    fn rests(&self, now: BootTime) -> bool {
        self.guarded && now < self.kill_at() && (self.stop.ladder().is_calm() || self.look_at >= self.kill_at())
    }

    /// When this side sends it.
    fn kill_due(&self) -> BootTime {
        if self.led { self.kill_at() + LEAD } else { self.kill_at() }
    }
}
