//! What the wrapper decides. Pure: told the time and what happened, it answers with what to do.
//!
//! ```text
//!  asking ──allow──► running ──leader ended──► leftovers: `stop` ─► stopping
//!    │                  │  ▲                   leftovers: `wait` ─► waiting for the rest, supervised as before
//!    │                  │  └─ the stream may break and come back: only the deadline counts
//!    │                  └─ stop, or the deadline ─► stopping ──tree empty──► done
//!    └─ denied, undecided, timed out, signalled ─► done, and the command was never executed
//! ```
//!
//! Deadlines. `offset = (our boot clock when the request was sent) − (boot_ms of the connection's first line)` is never
//! larger than the true difference of the two clocks, so a deadline computed with it can only come early. On one
//! connection a later line counts, whatever it says: a daemon may shorten a lease. A line older (by its `boot_ms`) than
//! one already seen is dropped. After a reconnect the same lease would be computed earlier by however long the
//! validation took; since both results are bounds on the same or a later moment, the later one is kept unless the daemon
//! now names an earlier end. No line lengthens a lease beyond `lease_ms` from the moment it was read.

use std::time::Duration;

use rustix::process::Signal;

use super::event::{Action, Allowed, Daemon, Event, Leftovers, Lost, Refusal, Settings, Wait};
use super::outcome::{Cause, Outcome};
use super::verdict::{Verdict, outcome_of, verdict};
use crate::clock::BootTime;
use crate::protocol::code::CodeKind;
use crate::protocol::local::{Killer, SuperviseEvent};
use crate::protocol::{Code, Exit};
use crate::sys;
use crate::tree::FirstSignal;

/// The grace until a daemon has named one.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Time to the first new attempt after a failed one; it doubles with each.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest time between two attempts.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// A timer that fires later than this was held up (a suspend, a stop): there may be news to read first.
const LATE: Duration = Duration::from_secs(1);
/// How long news are waited for then.
const NEWS: Duration = Duration::from_secs(1);
/// How long the daemon may take to say whether it ended the leader; a `stop` that comes this soon after the leader's end
/// is taken for its cause.
const EXPLANATION: Duration = Duration::from_millis(500);

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
enum Phase {
    Asking {
        give_up_at: Option<BootTime>,
        last: Option<Outcome>,
        told: bool,
    },
    Running {
        lease: Lease,
    },
    /// The leader has ended, and the daemon is asked whether that was its doing: an agent that obeys at once is gone
    /// before the `stop` line has been read.
    Unexplained {
        lease: Lease,
        exit: Exit,
        until: BootTime,
        empty: bool,
    },
    /// The leader has ended and what it left behind runs on.
    Leftovers {
        lease: Lease,
        exit: Exit,
        interrupts: u8,
    },
    Stopping {
        outcome: Outcome,
        leader_ended_at: Option<BootTime>,
    },
    Done,
}

/// The wrapper's state.
#[derive(Debug)]
pub(super) struct Core {
    settings: Settings,
    link: Link,
    phase: Phase,
    retry_pause: Duration,
    grace: Duration,
    stop_signal: Signal,
    killer: Killer,
    /// When a SIGCONT came last.
    woke_at: Option<BootTime>,
    /// Until when news are waited for after waking late. Set once for each deadline.
    news_until: Option<BootTime>,
}

impl Core {
    /// Begins to ask.
    pub(super) fn begin(now: BootTime, settings: Settings) -> (Self, Vec<Action>) {
        let give_up_at = match settings.wait {
            Wait::No => Some(now + settings.timeout),
            Wait::Forever => None,
            Wait::For(span) => Some(now + span),
        };
        let mut core = Self {
            link: Link::Down { retry_at: now },
            phase: Phase::Asking { give_up_at, last: None, told: false },
            retry_pause: FIRST_RETRY,
            grace: settings.stop_grace.unwrap_or(DEFAULT_GRACE),
            stop_signal: settings.stop_signal.unwrap_or(Signal::TERM),
            killer: Killer::Wrapper,
            woke_at: None,
            news_until: None,
            settings,
        };
        let actions = core.ask(now);
        (core, actions)
    }

    /// The first signal of a stop.
    pub(super) fn stop_signal(&self) -> Signal {
        self.stop_signal
    }

    /// When to come back with [`Event::Tick`] at the latest.
    pub(super) fn wake_at(&self) -> Option<BootTime> {
        let link = match (&self.link, &self.phase) {
            (_, Phase::Stopping { .. } | Phase::Unexplained { .. } | Phase::Done) | (Link::Up { .. }, _) => None,
            (Link::Down { retry_at }, _) => Some(*retry_at),
            (Link::Asking { give_up_at, .. }, _) => Some(*give_up_at),
        };
        let phase = match &self.phase {
            Phase::Asking { give_up_at, .. } => *give_up_at,
            Phase::Running { lease } | Phase::Leftovers { lease, .. } => {
                Some(self.news_until.unwrap_or(lease.deadline))
            }
            Phase::Unexplained { until, .. } => Some(*until),
            Phase::Stopping { .. } | Phase::Done => None,
        };
        link.into_iter().chain(phase).min()
    }

    /// Whether the daemon holds this run's stream and can end the tree by itself.
    pub(super) const fn daemon_can_end_it(&self) -> bool {
        matches!(self.link, Link::Up { .. }) && matches!(self.killer, Killer::Daemon)
    }

    /// Takes what happened and says what to do, in this order.
    pub(super) fn handle(&mut self, now: BootTime, event: Event) -> Vec<Action> {
        if matches!(self.phase, Phase::Done) {
            return Vec::new();
        }
        match event {
            Event::Line(line) => self.line(now, line),
            Event::Refused(refusal) => self.refused(now, &refusal),
            Event::Lost(lost) => self.lost(now, &lost),
            Event::Signal { signal, ignored } => self.signal(now, signal, ignored),
            Event::LeaderStopped(signal) => match self.phase {
                Phase::Running { .. } => vec![Action::Suspend(signal)],
                Phase::Asking { .. }
                | Phase::Unexplained { .. }
                | Phase::Leftovers { .. }
                | Phase::Stopping { .. }
                | Phase::Done => Vec::new(),
            },
            Event::LeaderEnded(exit) => self.leader_ended(now, exit),
            Event::CannotExecute(exit, reason) => {
                let mut outcome = Outcome::before_start(exit, Cause::CannotExecute, reason);
                outcome.started = true;
                self.finish(outcome)
            }
            Event::NotStopped => self.not_stopped(now),
            Event::TreeEmpty => self.tree_empty(),
            Event::Tick => self.tick(now),
        }
    }

    fn ask(&mut self, now: BootTime) -> Vec<Action> {
        self.link = Link::Asking { since: now, give_up_at: now + self.settings.timeout };
        vec![Action::Ask]
    }

    fn finish(&mut self, outcome: Outcome) -> Vec<Action> {
        self.phase = Phase::Done;
        vec![Action::Finish(outcome)]
    }

    fn line(&mut self, now: BootTime, line: SuperviseEvent) -> Vec<Action> {
        match line {
            SuperviseEvent::Allow {
                run_id,
                device_id,
                base_url,
                code,
                boot_ms,
                until_boot_ms,
                lease_ms,
                stop_grace_ms,
                stop_signal,
                killer,
                token,
                ..
            } => {
                let asked = self.settings.device.as_ref().is_none_or(|device| *device == device_id);
                let allows = matches!(code.kind(), CodeKind::Allow | CodeKind::Unknown);
                if run_id != self.settings.run_id || !asked || !allows {
                    return self.broken(now, "it answered something else than was asked");
                }
                let length = Duration::from_millis(lease_ms);
                let Some(deadline) = self.deadline(now, boot_ms, until_boot_ms, length) else { return Vec::new() };
                if deadline <= now {
                    return self.broken(now, "its answer came after the end of the lease it names");
                }
                let lease = Lease { deadline, length, boot_ms, until_boot_ms };
                self.killer = killer;
                self.retry_pause = FIRST_RETRY;
                let compat = base_url.zip(token);
                if let Some(signal) = stop_signal.as_deref().and_then(|name| sys::parse_signal(name).ok())
                    && self.settings.stop_signal.is_none()
                {
                    self.stop_signal = signal;
                }
                self.allowed(lease, Duration::from_millis(stop_grace_ms), Allowed { device_id, compat })
            }
            SuperviseEvent::Lease { boot_ms, until_boot_ms } => {
                let known = match &self.phase {
                    Phase::Running { lease } | Phase::Leftovers { lease, .. } => *lease,
                    Phase::Asking { .. } | Phase::Unexplained { .. } | Phase::Stopping { .. } | Phase::Done => {
                        return Vec::new();
                    }
                };
                // Only a connection that has said `allow` speaks about this run.
                if matches!(self.link, Link::Up { .. })
                    && boot_ms >= known.boot_ms
                    && let Some(deadline) = self.deadline(now, boot_ms, until_boot_ms, known.length)
                {
                    self.set_lease(now, Lease { deadline, boot_ms, until_boot_ms, ..known });
                }
                Vec::new()
            }
            SuperviseEvent::Stop { code, request_id, reason, signalled, grace_ms } => {
                let refusal = Refusal { status: 200, code, request_id, reason };
                if matches!(self.phase, Phase::Asking { .. }) {
                    return self.refused(now, &refusal);
                }
                let first_signal = if signalled { FirstSignal::Theirs } else { FirstSignal::Ours };
                self.stop(now, outcome_of(&refusal, true), first_signal, Duration::from_millis(grace_ms))
            }
            SuperviseEvent::Error { code, request_id, reason, .. } => {
                self.refused(now, &Refusal { status: 200, code, request_id, reason })
            }
        }
    }

    /// The deadline on our clock; `None` when the connection is not one that is being listened to.
    fn deadline(&mut self, now: BootTime, boot_ms: u64, until_boot_ms: u64, length: Duration) -> Option<BootTime> {
        let offset = match self.link {
            Link::Up { offset } => offset,
            Link::Asking { since, .. } => i128::from(since.as_millis()) - i128::from(boot_ms),
            Link::Down { .. } => return None,
        };
        self.link = Link::Up { offset };
        let millis = (i128::from(until_boot_ms) + offset).clamp(0, i128::from(u64::MAX));
        let named = BootTime::from_millis(u64::try_from(millis).unwrap_or(0));
        Some(named.min(now + length))
    }

    fn allowed(&mut self, mut lease: Lease, grace: Duration, allowed: Allowed) -> Vec<Action> {
        match &mut self.phase {
            Phase::Asking { .. } => {
                self.grace = self.settings.stop_grace.map_or(grace, |asked| asked.min(grace));
                self.phase = Phase::Running { lease };
                vec![Action::Release(allowed)]
            }
            Phase::Running { lease: known } | Phase::Leftovers { lease: known, .. } => {
                // See the rule at the top: the same or a later end of the lease is never moved forward by the journey.
                let comparable = lease.boot_ms >= known.boot_ms;
                if comparable && lease.until_boot_ms >= known.until_boot_ms {
                    lease.deadline = lease.deadline.max(known.deadline);
                }
                *known = lease;
                self.news_until = None;
                Vec::new()
            }
            Phase::Unexplained { .. } | Phase::Stopping { .. } | Phase::Done => Vec::new(),
        }
    }

    fn set_lease(&mut self, now: BootTime, new: Lease) {
        if let Phase::Running { lease } | Phase::Leftovers { lease, .. } = &mut self.phase {
            *lease = new;
            if new.deadline > now {
                self.news_until = None;
            }
        }
    }

    fn broken(&mut self, now: BootTime, why: &str) -> Vec<Action> {
        let mut actions = vec![Action::HangUp];
        actions.extend(self.lost(now, &Lost { why: why.to_owned(), daemon: Daemon::There }));
        actions
    }

    fn refused(&mut self, now: BootTime, refusal: &Refusal) -> Vec<Action> {
        let mut actions = vec![Action::HangUp];
        let verdict = verdict(refusal);
        match &mut self.phase {
            Phase::Asking { last, .. } => {
                let outcome = outcome_of(refusal, false);
                match (verdict, self.settings.wait) {
                    (Verdict::Refused, _) | (_, Wait::No) => actions.extend(self.finish(outcome)),
                    (Verdict::Denied | Verdict::Undecided, Wait::Forever | Wait::For(_)) => {
                        let why = outcome.code.as_ref().map_or_else(String::new, ToString::to_string);
                        *last = Some(outcome);
                        actions.extend(self.retry(now, &why));
                    }
                }
            }
            Phase::Running { .. } | Phase::Leftovers { .. } => match verdict {
                Verdict::Denied => {
                    let outcome = outcome_of(refusal, true);
                    actions.extend(self.stop(now, outcome, FirstSignal::Ours, self.grace));
                }
                // They say nothing about the agent. The deadline bounds how long that can go on.
                Verdict::Undecided | Verdict::Refused => actions.extend(self.retry(now, "")),
            },
            Phase::Unexplained { .. } | Phase::Stopping { .. } | Phase::Done => {
                self.link = Link::Down { retry_at: now };
            }
        }
        actions
    }

    fn lost(&mut self, now: BootTime, lost: &Lost) -> Vec<Action> {
        match &mut self.phase {
            Phase::Asking { last, .. } => {
                let remedy = match lost.daemon {
                    Daemon::Absent => {
                        "; start it (`machineid-sidecar`, or the service that runs it), name another socket with --socket, \
                         or use --wait to wait for it"
                    }
                    Daemon::Busy | Daemon::There => "",
                };
                let reason = format!("no answer from the daemon at {}: {}{remedy}", self.settings.socket, lost.why);
                let outcome = Outcome::before_start(Exit::Undecided, Cause::CouldNotAsk, reason);
                if self.settings.wait == Wait::No && lost.daemon != Daemon::Busy {
                    return self.finish(outcome);
                }
                // A deny says more than a connection that failed afterwards.
                if last.as_ref().is_none_or(|last| last.cause != Cause::Denied) {
                    *last = Some(outcome);
                }
                self.retry(now, &lost.why)
            }
            Phase::Running { .. } | Phase::Leftovers { .. } => self.retry(now, ""),
            Phase::Unexplained { .. } => {
                // Nobody is left to explain it.
                self.link = Link::Down { retry_at: now };
                self.not_stopped(now)
            }
            Phase::Stopping { .. } | Phase::Done => {
                self.link = Link::Down { retry_at: now };
                Vec::new()
            }
        }
    }

    fn retry(&mut self, now: BootTime, why: &str) -> Vec<Action> {
        self.link = Link::Down { retry_at: now + self.retry_pause };
        self.retry_pause = (self.retry_pause * 2).min(LONGEST_RETRY);
        match &mut self.phase {
            Phase::Asking { told, .. } if !*told && self.settings.wait != Wait::No => {
                *told = true;
                vec![Action::Notice(format!("waiting until it is allowed to run ({why})"))]
            }
            Phase::Asking { .. }
            | Phase::Running { .. }
            | Phase::Unexplained { .. }
            | Phase::Leftovers { .. }
            | Phase::Stopping { .. }
            | Phase::Done => Vec::new(),
        }
    }

    fn signal(&mut self, now: BootTime, signal: i32, ignored: bool) -> Vec<Action> {
        // Those the kernel sends a process about its own children, sockets and terminal are nobody else's business.
        if matches!(signal, libc::SIGCHLD | libc::SIGURG | libc::SIGTTIN | libc::SIGTTOU) {
            return Vec::new();
        }
        match &mut self.phase {
            Phase::Asking { .. } => match signal {
                libc::SIGTSTP => vec![Action::Suspend(signal)],
                libc::SIGCONT | libc::SIGWINCH => Vec::new(),
                _ if ignored => Vec::new(),
                _ => {
                    let exit = Exit::Signal(u8::try_from(signal).unwrap_or(0));
                    let mut outcome = Outcome::before_start(exit, Cause::NotStarted, format!("by signal {signal}"));
                    outcome.signal = Some(signal);
                    self.finish(outcome)
                }
            },
            Phase::Running { .. } | Phase::Unexplained { .. } | Phase::Stopping { .. } => {
                if signal == libc::SIGCONT {
                    self.woke_at = Some(now);
                    return vec![Action::Resume];
                }
                vec![Action::Forward(signal)]
            }
            Phase::Leftovers { exit, interrupts, .. } => {
                if signal == libc::SIGCONT {
                    self.woke_at = Some(now);
                }
                let exit = *exit;
                *interrupts += u8::from(signal == libc::SIGINT && *interrupts < 2);
                if *interrupts >= 2 {
                    return self.stop(now, Outcome::of_command(exit), FirstSignal::Ours, self.grace);
                }
                vec![Action::Forward(signal)]
            }
            Phase::Done => Vec::new(),
        }
    }

    fn leader_ended(&mut self, now: BootTime, exit: Exit) -> Vec<Action> {
        match self.phase {
            // It was to wait for us and is gone: somebody killed it.
            Phase::Asking { .. } => {
                let reason = "the process that was to become the command was killed before it was allowed";
                self.finish(Outcome::before_start(Exit::Wrapper, Cause::WrapperFailed, reason))
            }
            Phase::Running { lease } => {
                if self.daemon_can_end_it() {
                    let until = now + EXPLANATION;
                    self.phase = Phase::Unexplained { lease, exit, until, empty: false };
                    return vec![Action::TakeTerminal, Action::Inquire];
                }
                let mut actions = vec![Action::TakeTerminal];
                actions.extend(self.leftovers(now, lease, exit));
                actions
            }
            Phase::Stopping { .. } => vec![Action::TakeTerminal],
            Phase::Unexplained { .. } | Phase::Leftovers { .. } | Phase::Done => Vec::new(),
        }
    }

    fn leftovers(&mut self, now: BootTime, lease: Lease, exit: Exit) -> Vec<Action> {
        match self.settings.leftovers {
            Leftovers::Wait => {
                self.phase = Phase::Leftovers { lease, exit, interrupts: 0 };
                Vec::new()
            }
            Leftovers::Stop => {
                self.phase = Phase::Stopping { outcome: Outcome::of_command(exit), leader_ended_at: Some(now) };
                vec![Action::BeginStop { first_signal: FirstSignal::Ours, grace: self.grace }]
            }
        }
    }

    fn stop(&mut self, now: BootTime, outcome: Outcome, first_signal: FirstSignal, grace: Duration) -> Vec<Action> {
        match &mut self.phase {
            Phase::Running { .. } => {
                self.phase = Phase::Stopping { outcome, leader_ended_at: None };
                vec![Action::BeginStop { first_signal, grace }]
            }
            Phase::Unexplained { empty, .. } => {
                if *empty {
                    return self.finish(outcome);
                }
                self.phase = Phase::Stopping { outcome, leader_ended_at: None };
                vec![Action::BeginStop { first_signal, grace }]
            }
            Phase::Leftovers { exit, .. } => {
                // The code stays the leader's; the reason is told all the same.
                let outcome = Outcome { exit: *exit, ..outcome };
                self.phase = Phase::Stopping { outcome, leader_ended_at: None };
                vec![Action::BeginStop { first_signal, grace }]
            }
            Phase::Stopping { outcome: decided, leader_ended_at } => {
                // Latched: the first reason stays, unless the leader's end was this stop's doing.
                let explains = leader_ended_at.is_some_and(|ended| now.saturating_since(ended) <= EXPLANATION);
                if explains && first_signal == FirstSignal::Theirs {
                    *decided = outcome;
                    *leader_ended_at = None;
                }
                vec![Action::Hasten(grace)]
            }
            Phase::Asking { .. } | Phase::Done => Vec::new(),
        }
    }

    fn not_stopped(&mut self, now: BootTime) -> Vec<Action> {
        let Phase::Unexplained { until, .. } = &mut self.phase else { return Vec::new() };
        *until = now;
        self.tick(now)
    }

    fn tree_empty(&mut self) -> Vec<Action> {
        match &mut self.phase {
            Phase::Stopping { outcome, .. } => {
                let outcome = outcome.clone();
                self.finish(outcome)
            }
            Phase::Leftovers { exit, .. } => {
                let outcome = Outcome::of_command(*exit);
                self.finish(outcome)
            }
            Phase::Unexplained { empty, .. } => {
                *empty = true;
                Vec::new()
            }
            Phase::Asking { .. } | Phase::Running { .. } | Phase::Done => Vec::new(),
        }
    }

    fn tick(&mut self, now: BootTime) -> Vec<Action> {
        match &mut self.phase {
            Phase::Asking { give_up_at, last, .. } => {
                if give_up_at.is_some_and(|give_up_at| now >= give_up_at) {
                    let reason = format!(
                        "the daemon at {} did not answer within the time (--timeout, --wait); try `machineid status`",
                        self.settings.socket
                    );
                    let silent = Outcome::before_start(Exit::Undecided, Cause::CouldNotAsk, reason);
                    let outcome = last.take().unwrap_or(silent);
                    return self.finish(outcome);
                }
                self.tick_link(now)
            }
            Phase::Running { lease } | Phase::Leftovers { lease, .. } => {
                let deadline = lease.deadline;
                if self.is_over(now, deadline) {
                    let reason = "no new permission came before the lease ended".to_owned();
                    let outcome = Outcome {
                        exit: Exit::Undecided,
                        cause: Cause::LeaseExpired,
                        code: Some(Code::LeaseExpired),
                        request_id: None,
                        reason: Some(reason),
                        signal: None,
                        started: true,
                    };
                    return self.stop(now, outcome, FirstSignal::Ours, self.grace);
                }
                self.tick_link(now)
            }
            Phase::Unexplained { lease, exit, until, empty } => {
                if now < *until {
                    return Vec::new();
                }
                let (lease, exit, empty) = (*lease, *exit, *empty);
                let mut actions = self.leftovers(now, lease, exit);
                if empty {
                    actions.extend(self.tree_empty());
                }
                actions
            }
            Phase::Stopping { .. } | Phase::Done => Vec::new(),
        }
    }

    /// Whether to stop at this deadline now. One who wakes late (the machine or the wrapper was suspended) waits a little
    /// for news; the stream has been read before this is asked.
    fn is_over(&mut self, now: BootTime, deadline: BootTime) -> bool {
        if now < deadline {
            return false;
        }
        if let Some(until) = self.news_until {
            return now >= until;
        }
        let slept_through = self.woke_at.is_some_and(|woke| woke >= deadline);
        if slept_through || now.saturating_since(deadline) > LATE {
            self.news_until = Some(now + NEWS);
            return false;
        }
        true
    }

    fn tick_link(&mut self, now: BootTime) -> Vec<Action> {
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
#[path = "core_tests.rs"]
mod tests;
