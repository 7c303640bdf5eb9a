//! What the wrapper decides. Pure: it takes the time and an event, and returns the actions to carry out. [`daemon`] and
//! [`agent`] handle the events of either side; this file has the states and the time.
//!
//! ```text
//!  asking ──allow──► running ──leader ended──► leftovers: `stop` ─► stopping
//!    │                  │  ▲                   leftovers: `wait` ─► waiting for the rest, still supervised
//!    │                  │  └─ the stream may break and come back: only the deadline counts
//!    │                  └─ stop, or the deadline ─► stopping ──tree empty──► done
//!    └─ denied, undecided, timed out, signalled ─► done, and the command was never executed
//! ```
//!
//! From `allow` to the end there is a guardian ([`super::guard`]). When it has begun to stop the tree, because this process
//! did not react to the deadline, the wrapper takes that stop over with its times; when it was killed, the wrapper begins a
//! stop. A stop that leaves processes after SIGKILL is given up after a while, and left to guardian and daemon.
//!
//! Deadlines. `offset = (own boot clock when the request was sent) − (boot_ms of the connection's first line)` is never
//! larger than the true difference of the two clocks, so a deadline computed with it can only come early. On one connection
//! a later line replaces an earlier one: a daemon may shorten a lease. A line with an older `boot_ms` than one already seen
//! is dropped. After a reconnect the same lease would be computed earlier, by the time that the validation took; since both
//! results are lower bounds of the true end or a later one, the later one is kept unless the daemon now names an earlier
//! end. No line lengthens a lease beyond `lease_ms` from the moment it was read.

mod agent;
mod daemon;

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::local::Killer;
use machineid_protocol::outside::OutsideHelper;
use machineid_protocol::{Code, Containment, Exit};
use machineid_tree::FirstSignal;
use rustix::process::Signal;

use super::event::{RunSettings, Wait, WrapperAction, WrapperEvent};
use super::guard::GuardianTerms;
use super::outcome::{EndCause, RunOutcome};

/// The grace until a daemon has named one.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Time to the first new attempt after a failed one; it doubles with each attempt.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest time between two attempts.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// A timer that fires later than this was delayed by a suspend or a stop: an answer may be waiting to be read.
const LATE: Duration = Duration::from_secs(1);
/// How long to wait for an answer then; after a suspend of the machine, at least as long as the daemon asks the
/// authority.
const NEWS: Duration = Duration::from_secs(1);
/// The longest resume grace that is accepted from a daemon.
const LONGEST_RESUME_GRACE: Duration = Duration::from_mins(1);
/// How long the daemon may take to say whether it ended the leader. A `stop` that comes this soon after the leader's
/// end is taken for its cause. Long enough for a loaded host: a denied agent must not look as if it had ended by
/// itself.
const EXPLANATION: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
enum Link {
    Down { retry_at: BootTime },
    Asking { since: BootTime, give_up_at: BootTime },
    Up { offset: i128 },
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    deadline: BootTime,
    length: Duration,
    boot_ms: u64,
    until_boot_ms: u64,
}

#[derive(Clone, Debug)]
enum WrapperPhase {
    Asking {
        give_up_at: Option<BootTime>,
        last: Option<RunOutcome>,
        told: bool,
    },
    Running {
        lease: Lease,
    },
    /// The leader has ended, and the daemon is asked whether it caused that: an agent that obeys at once is gone before
    /// the `stop` line has been read.
    Unexplained {
        lease: Lease,
        /// The outcome if the daemon did not cause it.
        otherwise: RunOutcome,
        until: BootTime,
        empty: bool,
    },
    /// The leader has ended, and processes that it left behind still run.
    Leftovers {
        lease: Lease,
        exit: Exit,
        interrupts: u8,
    },
    Stopping {
        outcome: RunOutcome,
        leader_ended_at: Option<BootTime>,
    },
    Done,
}

/// The wrapper's decisions about one run: when to ask, start, stop and end.
#[derive(Debug)]
pub(super) struct WrapperCore {
    settings: RunSettings,
    link: Link,
    phase: WrapperPhase,
    retry_pause: Duration,
    grace: Duration,
    stop_signal: Signal,
    killer: Killer,
    /// How the tree is held together, once the daemon has allowed it.
    containment: Option<Containment>,
    /// Why the daemon cannot ask the authority, by its last line about that.
    undecided: Option<String>,
    /// What the agent uses outside its tree, as the daemon last told.
    helpers: Vec<OutsideHelper>,
    /// Whether the agent's processes are frozen.
    frozen: bool,
    /// When the last SIGCONT came.
    woke_at: Option<BootTime>,
    /// When the machine last resumed from a suspend.
    resumed_at: Option<BootTime>,
    /// How long the daemon asks the authority after a suspend in which a lease ended.
    resume_grace: Duration,
    /// Until when to wait for an answer after waking late. Set once for each deadline.
    news_until: Option<BootTime>,
}

impl WrapperCore {
    /// Begins with the first question.
    pub(super) fn begin(now: BootTime, settings: RunSettings) -> (Self, Vec<WrapperAction>) {
        let give_up_at = match settings.wait {
            Wait::No => Some(now + settings.timeout),
            Wait::Forever => None,
            Wait::For(span) => Some(now + span),
        };
        let mut core = Self {
            link: Link::Down { retry_at: now },
            phase: WrapperPhase::Asking { give_up_at, last: None, told: false },
            retry_pause: FIRST_RETRY,
            grace: settings.stop_grace.unwrap_or(DEFAULT_GRACE),
            stop_signal: settings.stop_signal.unwrap_or(Signal::TERM),
            killer: Killer::Wrapper,
            containment: None,
            undecided: None,
            helpers: Vec::new(),
            frozen: false,
            woke_at: None,
            resumed_at: None,
            resume_grace: Duration::ZERO,
            news_until: None,
            settings,
        };
        let actions = core.ask(now);
        (core, actions)
    }

    /// The terms of a stop, for the guardian.
    pub(super) const fn terms(&self) -> GuardianTerms {
        let in_leaf = matches!(self.containment, Some(Containment::Cgroup));
        GuardianTerms { signal: self.stop_signal, grace: self.grace, killer: self.killer, in_leaf }
    }

    /// How the tree is held together, once the daemon has allowed it.
    pub(super) const fn containment(&self) -> Option<Containment> {
        self.containment
    }

    /// When the run will be stopped without another answer, while it lives on a lease.
    pub(super) fn deadline(&self) -> Option<BootTime> {
        match &self.phase {
            WrapperPhase::Running { lease }
            | WrapperPhase::Unexplained { lease, .. }
            | WrapperPhase::Leftovers { lease, .. } => Some(self.news_until.unwrap_or(lease.deadline)),
            WrapperPhase::Asking { .. } | WrapperPhase::Stopping { .. } | WrapperPhase::Done => None,
        }
    }

    /// When to call [`handle`](Self::handle) with [`WrapperEvent::Tick`] at the latest.
    pub(super) fn wake_at(&self) -> Option<BootTime> {
        let link = match (&self.link, &self.phase) {
            (_, WrapperPhase::Stopping { .. } | WrapperPhase::Unexplained { .. } | WrapperPhase::Done)
            | (Link::Up { .. }, _) => None,
            (Link::Down { retry_at }, _) => Some(*retry_at),
            (Link::Asking { give_up_at, .. }, _) => Some(*give_up_at),
        };
        let phase = match &self.phase {
            WrapperPhase::Asking { give_up_at, .. } => *give_up_at,
            WrapperPhase::Running { lease } | WrapperPhase::Leftovers { lease, .. } => {
                Some(self.news_until.unwrap_or(lease.deadline))
            }
            WrapperPhase::Unexplained { until, .. } => Some(*until),
            WrapperPhase::Stopping { .. } | WrapperPhase::Done => None,
        };
        link.into_iter().chain(phase).min()
    }

    /// What the agent uses outside its tree.
    pub(super) fn helpers(&self) -> &[OutsideHelper] {
        &self.helpers
    }

    /// Whether a daemon can end the tree by itself; also one that was restarted and does not know of this wrapper yet.
    pub(super) const fn daemon_can_end_it(&self) -> bool {
        matches!(self.killer, Killer::Daemon)
    }

    /// Whether the daemon has begun the same stop: at a deny or at the end of the lease, which it knows of, and not for
    /// processes that a leader has left behind.
    pub(super) const fn daemon_ends_it(&self) -> bool {
        match &self.phase {
            WrapperPhase::Stopping { outcome, .. } => {
                self.daemon_can_end_it() && matches!(outcome.cause, EndCause::Denied | EndCause::LeaseExpired)
            }
            WrapperPhase::Asking { .. }
            | WrapperPhase::Running { .. }
            | WrapperPhase::Unexplained { .. }
            | WrapperPhase::Leftovers { .. }
            | WrapperPhase::Done => false,
        }
    }

    /// Takes an event and returns the actions to carry out, in this order.
    pub(super) fn handle(&mut self, now: BootTime, event: WrapperEvent) -> Vec<WrapperAction> {
        if matches!(self.phase, WrapperPhase::Done) {
            return Vec::new();
        }
        match event {
            WrapperEvent::Line(line) => self.line(now, line),
            WrapperEvent::Refused(refusal) => self.refused(now, &refusal),
            WrapperEvent::Lost(lost) => self.lost(now, &lost),
            WrapperEvent::Signal { signal, ignored, from_terminal } => self.signal(now, signal, ignored, from_terminal),
            WrapperEvent::LeaderStopped(signal) => match self.phase {
                WrapperPhase::Running { .. } => vec![WrapperAction::Suspend(signal)],
                WrapperPhase::Asking { .. }
                | WrapperPhase::Unexplained { .. }
                | WrapperPhase::Leftovers { .. }
                | WrapperPhase::Stopping { .. }
                | WrapperPhase::Done => Vec::new(),
            },
            WrapperEvent::LeaderEnded { exit, alone } => self.leader_ended(now, exit, alone),
            WrapperEvent::CannotExecute(exit, reason) => {
                let mut outcome = RunOutcome::before_start(exit, EndCause::CannotExecute, reason);
                outcome.started = true;
                self.finish(outcome)
            }
            WrapperEvent::NotStopped => self.not_stopped(now),
            WrapperEvent::Frozen(frozen) => self.set_frozen(frozen),
            WrapperEvent::GuardianStops { kill_at } => self.guardian_stops(now, kill_at),
            WrapperEvent::GuardianKilled => self.guardian_killed(now),
            WrapperEvent::Resumed => self.resumed(now),
            WrapperEvent::TreeEmpty => self.tree_empty(),
            WrapperEvent::Stuck => self.stuck(),
            WrapperEvent::Tick => self.tick(now),
        }
    }

    fn ask(&mut self, now: BootTime) -> Vec<WrapperAction> {
        self.link = Link::Asking { since: now, give_up_at: now + self.settings.timeout };
        vec![WrapperAction::Ask]
    }

    fn finish(&mut self, outcome: RunOutcome) -> Vec<WrapperAction> {
        self.phase = WrapperPhase::Done;
        vec![WrapperAction::Finish(outcome)]
    }

    fn tick(&mut self, now: BootTime) -> Vec<WrapperAction> {
        match &mut self.phase {
            WrapperPhase::Asking { give_up_at, last, .. } => {
                if give_up_at.is_some_and(|give_up_at| now >= give_up_at) {
                    let reason = format!(
                        "the daemon at {} did not answer within the time (--timeout, --wait); try `machineid status`",
                        self.settings.socket
                    );
                    let silent = RunOutcome::before_start(Exit::Undecided, EndCause::CouldNotAsk, reason);
                    let outcome = last.take().unwrap_or(silent);
                    return self.finish(outcome);
                }
                self.tick_link(now)
            }
            WrapperPhase::Running { lease } | WrapperPhase::Leftovers { lease, .. } => {
                let deadline = lease.deadline;
                if self.is_over(now, deadline) {
                    let outcome = RunOutcome {
                        reason: Some(format!("no new permission came before the lease ended: {}", self.why_no_news())),
                        ..RunOutcome::stopped(Exit::Undecided, EndCause::LeaseExpired, Some(Code::LeaseExpired))
                    };
                    return self.stop(now, outcome, FirstSignal::Ours, self.grace);
                }
                self.tick_link(now)
            }
            WrapperPhase::Unexplained { lease, otherwise, until, empty } => {
                if now < *until {
                    return Vec::new();
                }
                let (lease, otherwise, empty) = (*lease, otherwise.clone(), *empty);
                self.leader_explained(now, lease, otherwise, empty)
            }
            WrapperPhase::Stopping { .. } | WrapperPhase::Done => Vec::new(),
        }
    }

    /// Why no answer moved the deadline, as far as the wrapper can tell.
    fn why_no_news(&self) -> String {
        match (&self.link, &self.undecided) {
            (Link::Up { .. }, Some(cause)) => cause.clone(),
            (Link::Up { .. }, None) => {
                format!(
                    "the daemon at {} is running but does not respond; see its log, or try `machineid status`",
                    self.settings.socket
                )
            }
            (Link::Down { .. } | Link::Asking { .. }, _) => {
                format!("the daemon at {} does not answer; start it again", self.settings.socket)
            }
        }
    }

    /// Whether to stop at this deadline now. After waking late (the machine or the wrapper was suspended) the wrapper
    /// first waits a little for an answer; the stream has been read before this is called.
    fn is_over(&mut self, now: BootTime, deadline: BootTime) -> bool {
        if now < deadline {
            return false;
        }
        if let Some(until) = self.news_until {
            return now >= until;
        }
        if self.resumed_at.is_some_and(|resumed| resumed >= deadline) {
            // The daemon has as long to ask, from about the same moment.
            self.news_until = Some(now + NEWS.max(self.resume_grace));
            return false;
        }
        let slept_through = self.woke_at.is_some_and(|woke| woke >= deadline);
        if slept_through || now.saturating_since(deadline) > LATE {
            self.news_until = Some(now + NEWS);
            return false;
        }
        true
    }

    /// A wait that has begun is begun anew: the daemon was suspended as well.
    fn resumed(&mut self, now: BootTime) -> Vec<WrapperAction> {
        self.resumed_at = Some(now);
        self.news_until = None;
        Vec::new()
    }

    fn tick_link(&mut self, now: BootTime) -> Vec<WrapperAction> {
        match self.link {
            Link::Down { retry_at } if now >= retry_at => self.ask(now),
            Link::Asking { give_up_at, .. } if now >= give_up_at => {
                self.broken(now, "it did not answer in time (--timeout)")
            }
            Link::Down { .. } | Link::Asking { .. } | Link::Up { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
