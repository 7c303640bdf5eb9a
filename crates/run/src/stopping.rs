//! The wrapper's own stop of its tree: when to look, and when to give up.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_tree::{Advance, FirstSignal, KILL_PATIENCE, Next, ScanAttempt, ScanTurn, Stop, Tree};
use rustix::io::Errno;
use rustix::process::Signal;

/// Time to the next look after one that failed or found no process.
const PAUSE: Duration = Duration::from_millis(20);
/// How long after SIGKILL the wrapper waits for processes that do not end. Its guardian and the daemon continue after
/// that.
const GIVE_UP: Duration = KILL_PATIENCE.saturating_add(Duration::from_secs(2));
/// How much later than the daemon the wrapper sends SIGKILL, when the daemon has begun the same stop and its connection
/// stands. By then most trees are gone, so that a thousand wrappers need not repeat the work of one daemon. The delay
/// is short enough for the wrapper to end the tree in time alone, if the daemon does nothing.
const LEAD: Duration = Duration::from_millis(300);
/// How long after the daemon's connection has closed the wrapper takes the lead, once SIGKILL is due. The daemon closes
/// the connection when it has found the tree empty, which the guardian reports a moment later; if the daemon has died,
/// this is the delay that its death costs.
const FAREWELL: Duration = Duration::from_millis(100);
/// How long the guardian may take to notice that no process is left.
const NOTICE: Duration = Duration::from_secs(1);

/// The result of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookResult {
    /// A process is left, or may be.
    NotEmpty,
    /// No process has been left for some time, and the guardian has not reported it.
    EmptyForLong,
    /// No process is left; the guardian will report it in a moment.
    Empty,
    /// Processes are left that do not end.
    Stuck,
}

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stopping {
    stop: Stop,
    look_at: BootTime,
    empty_since: Option<BootTime>,
    /// Whether the daemon ends the tree as well, and its connection stands.
    led: bool,
    /// Whether a guardian lives, which reports when no process is left.
    guarded: bool,
    turns: ScanTurn,
}

impl Stopping {
    pub(super) fn begin(now: BootTime, tree: Tree, signal: Signal, first_signal: FirstSignal, grace: Duration) -> Self {
        let stop = Stop::begin(now, tree, signal, first_signal, grace).naming();
        let look_at = match first_signal {
            FirstSignal::Ours => now,
            // The other side sends the stop signal: there is nothing to do before SIGKILL.
            FirstSignal::Theirs => stop.ladder().kill_at(),
        };
        Self { stop, look_at, empty_since: None, led: false, guarded: true, turns: ScanTurn::default() }
    }

    /// Sets whether the daemon ends the tree as well. A daemon that no longer does is not waited for.
    pub(super) fn set_led(&mut self, now: BootTime, led: bool) {
        // Without a guardian only looks tell the wrapper that the tree is empty: it does not leave the lead to the
        // daemon.
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

    /// Takes note that the guardian is gone: from now on only looks tell when no process is left.
    pub(super) fn look_closely(&mut self, now: BootTime) {
        self.guarded = false;
        self.led = false;
        self.look_at = now;
    }

    /// When SIGKILL is due.
    pub(super) const fn kill_at(&self) -> BootTime {
        self.stop.ladder().kill_at()
    }

    /// When to look again.
    pub(super) const fn look_at(&self) -> BootTime {
        self.look_at
    }

    /// The stop, for the report.
    pub(super) const fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Shortens the grace to end this much from now, if that is sooner.
    pub(super) fn hasten(&mut self, now: BootTime, grace: Duration) {
        self.stop.hasten(now, grace);
        self.look_at = self.look_at.min(self.kill_due());
    }

    /// Looks and sends what is due, if it is time for a look.
    pub(super) fn step(&mut self, now: BootTime) -> LookResult {
        if now < self.look_at {
            return LookResult::NotEmpty;
        }
        let next = match self.stop.advance(now) {
            Advance::Empty => return self.empty(now),
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
                self.empty_since = None;
            }
            Next::Over => return self.empty(now),
        }
        let stuck = now >= self.kill_at() + GIVE_UP && !self.stop.survivors().is_empty();
        if stuck { LookResult::Stuck } else { LookResult::NotEmpty }
    }

    fn empty(&mut self, now: BootTime) -> LookResult {
        self.look_at = now + PAUSE;
        let since = *self.empty_since.get_or_insert(now);
        if now.saturating_since(since) >= NOTICE { LookResult::EmptyForLong } else { LookResult::Empty }
    }

    /// Whether there is nothing to do before SIGKILL: the guardian reports when no process is left.
    fn rests(&self, now: BootTime) -> bool {
        self.guarded && now < self.kill_at() && (self.stop.ladder().is_calm() || self.look_at >= self.kill_at())
    }

    /// When this side sends SIGKILL.
    fn kill_due(&self) -> BootTime {
        if self.led { self.kill_at() + LEAD } else { self.kill_at() }
    }
}
