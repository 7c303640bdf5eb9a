//! What the guardian decides. Pure: it takes the time and an event, and returns the actions to carry out.
//!
//! ```text
//!  waiting ──terms──► watching ──wrapper gone──────────────► asking the daemon ──► stopping
//!     │                │  ▲ │                                  ▲      │             ▲  ▲
//!     │                │  │ └─deadline passed, no word, 3 s────┘      │             │  │
//!     │                │  └────the daemon has moved the deadline──────┘             │  │
//!     │                └─the wrapper has begun a stop─► told ──gone, or late with KILL─┘  │
//!     └─wrapper gone: the command was not and must not be executed────────────────────────┘
//! ```
//!
//! The daemon is asked because no process may get the stop signal twice: a daemon that knows the run and can reach it sends
//! the signal itself. A daemon that has moved the deadline meanwhile (a wrapper stopped by Ctrl-Z reads no answers) is
//! believed. A daemon that runs is given longer to answer than one that is stopped: on a loaded host it is late with its
//! signal too, and would send it after the guardian's.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::Exit;
use machineid_protocol::local::Killer;
use machineid_tree::FirstSignal;
use rustix::process::Signal;

use super::message::{GuardianOrder, GuardianReport, GuardianTerms};

/// How long the daemon may take to say that it knows the run.
pub(super) const ANSWER: Duration = Duration::from_millis(200);

/// How long a daemon that is running may take to answer; at most half of the grace, so that the agent has the other
/// half.
const LATE_ANSWER: Duration = Duration::from_secs(1);
/// How much too late the wrapper may move the deadline or begin the stop.
const LATENESS: Duration = Duration::from_secs(3);
/// A timer that fires this late was delayed by a suspend: the wrapper was too, and gets its time again.
const SUSPENDED: Duration = Duration::from_secs(1);
/// How long after its announced time a wrapper may still be about to send SIGKILL.
const KILL_LATENESS: Duration = Duration::from_millis(500);

/// An event for the guardian's core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuardianEvent {
    /// The wrapper sent this order.
    Told(GuardianOrder),
    /// The wrapper has ended.
    WrapperGone,
    /// The leader was stopped by this signal.
    LeaderStopped(i32),
    /// The leader has ended, and is not reaped. `alone`: no other process of the tree lives.
    LeaderEnded { exit: Exit, alone: bool },
    /// The daemon's answer.
    Answer(LeaseAnswer),
    /// Whether the daemon, which has not answered in time, lives and is not stopped.
    Listener { can_act: bool },
    /// Time has passed.
    Tick,
}

/// The daemon's answer about the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseAnswer {
    /// The run is being stopped; SIGKILL comes this much from now.
    Stopping { grace: Duration },
    /// The run may go on until this point on the guardian's clock.
    Lease { deadline: BootTime },
    /// No answer, an unintelligible one, or that the daemon knows no such run.
    Unknown,
}

/// An action for the guardian's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuardianAction {
    /// Send this to the wrapper.
    Tell(GuardianReport),
    /// Ask the daemon about the run; an earlier question is dropped.
    Ask,
    /// Find out whether the daemon that was asked can act.
    LookAtListener,
    /// Close the connection with the question to the daemon.
    DropQuestion,
    /// Begin to end the tree. If `kill_at` has passed, SIGKILL comes at once.
    Begin { first_signal: FirstSignal, kill_at: BootTime },
}

#[derive(Clone, Copy, Debug)]
enum GuardianPhase {
    Waiting,
    Watching {
        terms: GuardianTerms,
        deadline: BootTime,
        /// When the deadline was first seen to have passed.
        overdue_since: Option<BootTime>,
    },
    Asking {
        terms: GuardianTerms,
        since: BootTime,
        until: BootTime,
    },
    Told {
        kill_at: BootTime,
    },
    Stopping,
}

/// The guardian's decisions about one run: when to ask the daemon, and when to end the tree.
#[derive(Debug)]
pub(super) struct GuardianCore {
    phase: GuardianPhase,
    wrapper_lives: bool,
    acknowledged: bool,
    signal: Signal,
}

impl GuardianCore {
    pub(super) const fn new() -> Self {
        Self { phase: GuardianPhase::Waiting, wrapper_lives: true, acknowledged: false, signal: Signal::TERM }
    }

    /// Whether the leader may be reaped. Not before the wrapper knows of its end: until then the wrapper signals the
    /// leader's group by its number, which belongs to the group only while the leader is not reaped.
    pub(super) const fn may_reap_leader(&self) -> bool {
        self.acknowledged || !self.wrapper_lives
    }

    /// The first signal of a stop.
    pub(super) const fn signal(&self) -> Signal {
        self.signal
    }

    /// When to call [`handle`](Self::handle) with [`GuardianEvent::Tick`] at the latest.
    pub(super) fn wake_at(&self) -> Option<BootTime> {
        match self.phase {
            GuardianPhase::Waiting | GuardianPhase::Stopping => None,
            GuardianPhase::Watching { deadline, overdue_since, .. } => {
                Some(overdue_since.map_or(deadline, |since| since + LATENESS))
            }
            GuardianPhase::Asking { until, .. } => Some(until),
            GuardianPhase::Told { kill_at } => Some(kill_at + KILL_LATENESS),
        }
    }

    /// Takes an event and returns the actions to carry out, in this order.
    pub(super) fn handle(&mut self, now: BootTime, event: GuardianEvent) -> Vec<GuardianAction> {
        match event {
            GuardianEvent::Told(order) => self.told(now, order),
            GuardianEvent::WrapperGone => self.wrapper_gone(now),
            GuardianEvent::LeaderStopped(signal) => vec![GuardianAction::Tell(GuardianReport::LeaderStopped(signal))],
            GuardianEvent::LeaderEnded { exit, alone } => {
                vec![GuardianAction::Tell(GuardianReport::LeaderEnded { exit, alone })]
            }
            GuardianEvent::Answer(answer) => self.answered(now, answer),
            GuardianEvent::Listener { can_act } => self.listener(now, can_act),
            GuardianEvent::Tick => self.tick(now),
        }
    }

    fn told(&mut self, now: BootTime, order: GuardianOrder) -> Vec<GuardianAction> {
        match order {
            GuardianOrder::Acknowledge => {
                self.acknowledged = true;
                Vec::new()
            }
            GuardianOrder::Terms(terms, deadline) => {
                if matches!(self.phase, GuardianPhase::Waiting) {
                    self.signal = terms.signal;
                    self.phase = GuardianPhase::Watching { terms, deadline, overdue_since: None };
                }
                Vec::new()
            }
            GuardianOrder::Deadline(moved) => match &mut self.phase {
                GuardianPhase::Watching { deadline, overdue_since, .. } => {
                    *deadline = moved;
                    if moved > now {
                        *overdue_since = None;
                    }
                    Vec::new()
                }
                GuardianPhase::Asking { terms, .. } if moved > now => {
                    self.phase = GuardianPhase::Watching { terms: *terms, deadline: moved, overdue_since: None };
                    vec![GuardianAction::DropQuestion]
                }
                GuardianPhase::Waiting
                | GuardianPhase::Asking { .. }
                | GuardianPhase::Told { .. }
                | GuardianPhase::Stopping => Vec::new(),
            },
            GuardianOrder::Stopping { kill_at } => match self.phase {
                GuardianPhase::Stopping => Vec::new(),
                GuardianPhase::Waiting
                | GuardianPhase::Watching { .. }
                | GuardianPhase::Asking { .. }
                | GuardianPhase::Told { .. } => {
                    self.phase = GuardianPhase::Told { kill_at };
                    vec![GuardianAction::DropQuestion]
                }
            },
        }
    }

    fn wrapper_gone(&mut self, now: BootTime) -> Vec<GuardianAction> {
        self.wrapper_lives = false;
        match self.phase {
            // The leader's pipe is closed, so it executes nothing; it may be stopped and not notice.
            GuardianPhase::Waiting => self.begin(FirstSignal::Theirs, now),
            GuardianPhase::Watching { terms, .. } => match terms.killer {
                Killer::Daemon => self.ask(now, terms),
                Killer::Wrapper => self.begin(FirstSignal::Ours, now + terms.grace),
            },
            GuardianPhase::Asking { terms, .. } => self.ask(now, terms),
            // The wrapper sent the stop signal, or knew that the daemon had.
            GuardianPhase::Told { kill_at } => self.begin(FirstSignal::Theirs, kill_at),
            GuardianPhase::Stopping => Vec::new(),
        }
    }

    fn answered(&mut self, now: BootTime, answer: LeaseAnswer) -> Vec<GuardianAction> {
        let GuardianPhase::Asking { terms, since, .. } = self.phase else { return Vec::new() };
        let reaches = terms.killer == Killer::Daemon;
        match answer {
            LeaseAnswer::Lease { deadline } if self.wrapper_lives && deadline > now => {
                self.phase = GuardianPhase::Watching { terms, deadline, overdue_since: None };
                vec![GuardianAction::DropQuestion]
            }
            LeaseAnswer::Stopping { grace } if reaches => self.begin(FirstSignal::Theirs, now + grace.min(terms.grace)),
            // The daemon has seen, or will see in a moment, that the wrapper is gone.
            LeaseAnswer::Lease { .. } if reaches && !self.wrapper_lives => {
                self.begin(FirstSignal::Theirs, now + terms.grace)
            }
            // The time that the question took must not be added to the agent's grace.
            LeaseAnswer::Stopping { .. } | LeaseAnswer::Lease { .. } | LeaseAnswer::Unknown => {
                self.begin(FirstSignal::Ours, since + terms.grace)
            }
        }
    }

    fn listener(&mut self, now: BootTime, can_act: bool) -> Vec<GuardianAction> {
        let GuardianPhase::Asking { terms, since, until } = &mut self.phase else { return Vec::new() };
        let late = *since + LATE_ANSWER.min(terms.grace / 2);
        if can_act && late > now {
            *until = late;
            return Vec::new();
        }
        self.answered(now, LeaseAnswer::Unknown)
    }

    fn tick(&mut self, now: BootTime) -> Vec<GuardianAction> {
        match &mut self.phase {
            GuardianPhase::Waiting | GuardianPhase::Stopping => Vec::new(),
            GuardianPhase::Watching { terms, deadline, overdue_since } => {
                if now < *deadline {
                    return Vec::new();
                }
                let since = *overdue_since.get_or_insert(now);
                let late = now.saturating_since(since);
                if late < LATENESS {
                    return Vec::new();
                }
                if late > LATENESS + SUSPENDED {
                    *overdue_since = Some(now);
                    return Vec::new();
                }
                let terms = *terms;
                self.ask(now, terms)
            }
            GuardianPhase::Asking { since, until, .. } => {
                if now < *until {
                    return Vec::new();
                }
                let looked = *until > *since + ANSWER;
                if looked { self.answered(now, LeaseAnswer::Unknown) } else { vec![GuardianAction::LookAtListener] }
            }
            GuardianPhase::Told { kill_at } => {
                let kill_at = *kill_at;
                if now < kill_at + KILL_LATENESS {
                    return Vec::new();
                }
                self.begin(FirstSignal::Theirs, kill_at)
            }
        }
    }

    fn ask(&mut self, now: BootTime, terms: GuardianTerms) -> Vec<GuardianAction> {
        self.phase = GuardianPhase::Asking { terms, since: now, until: now + ANSWER };
        vec![GuardianAction::Ask]
    }

    fn begin(&mut self, first_signal: FirstSignal, kill_at: BootTime) -> Vec<GuardianAction> {
        self.phase = GuardianPhase::Stopping;
        let mut actions = vec![GuardianAction::DropQuestion, GuardianAction::Begin { first_signal, kill_at }];
        if self.wrapper_lives {
            actions.insert(0, GuardianAction::Tell(GuardianReport::Stopping { kill_at }));
        }
        actions
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
