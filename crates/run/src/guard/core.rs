//! What the guardian decides. Pure: told the time and what happened, it answers with what to do.
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
//! The daemon is asked because no process may get the stop signal twice: one that knows the run and can reach it sends
//! the signal itself. One that has moved the deadline meanwhile (a wrapper stopped by Ctrl-Z reads no news) is believed.
//! A daemon that is there and can act is given longer to answer than one that is stopped: on a host that is short of
//! processors it is late with its signal too, and would send it after ours.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::Exit;
use machineid_protocol::local::Killer;
use machineid_tree::FirstSignal;
use rustix::process::Signal;

use super::message::{Order, Report, Terms};

/// How long the daemon may take to say that it knows the run.
pub(super) const ANSWER: Duration = Duration::from_millis(200);

/// How long it may take when it is there and not stopped; at most half of the grace, of which the other half is the agent's.
const LATE_ANSWER: Duration = Duration::from_secs(1);
/// How long the wrapper may be late in moving the deadline or beginning the stop.
const LATENESS: Duration = Duration::from_secs(3);
/// A timer that fires this much late was held up by a suspend: the wrapper was too, and gets its time.
const SUSPENDED: Duration = Duration::from_secs(1);
/// How long after the moment it named for SIGKILL a wrapper may still be about to send it.
const KILL_LATENESS: Duration = Duration::from_millis(500);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The wrapper said this.
    Told(Order),
    /// The wrapper has ended.
    WrapperGone,
    /// The leader was stopped by this signal.
    LeaderStopped(i32),
    /// The leader has ended, and is not reaped. `alone`: nobody else of the tree lives.
    LeaderEnded { exit: Exit, alone: bool },
    /// The daemon's answer.
    Answer(Answer),
    /// Whether the daemon, which has not answered in time, lives and is not stopped.
    Listener { can_act: bool },
    /// Time has passed.
    Tick,
}

/// What the daemon says about the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is being stopped; SIGKILL comes this much from now.
    Stopping { grace: Duration },
    /// It may run until then, on our clock.
    Lease { deadline: BootTime },
    /// Nothing, nothing intelligible, or that it knows no such run.
    Unknown,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Tell the wrapper.
    Tell(Report),
    /// Ask the daemon about the run; an earlier question is dropped.
    Ask,
    /// See whether the daemon that was asked can act.
    LookAtListener,
    /// Drop the question to the daemon.
    DropQuestion,
    /// Begin to end the tree. A `kill_at` that has passed is SIGKILL at once.
    Begin { first_signal: FirstSignal, kill_at: BootTime },
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Waiting,
    Watching {
        terms: Terms,
        deadline: BootTime,
        /// Since when the deadline is known to have passed.
        overdue_since: Option<BootTime>,
    },
    Asking {
        terms: Terms,
        since: BootTime,
        until: BootTime,
    },
    Told {
        kill_at: BootTime,
    },
    Stopping,
}

/// The guardian's state.
#[derive(Debug)]
pub(super) struct Core {
    phase: Phase,
    wrapper_lives: bool,
    acknowledged: bool,
    signal: Signal,
}

impl Core {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Waiting, wrapper_lives: true, acknowledged: false, signal: Signal::TERM }
    }

    /// Whether the leader may be reaped. Not before the wrapper knows of its end: it signals the leader's group by a number
    /// that is the group's own for just as long.
    pub(super) const fn may_reap_leader(&self) -> bool {
        self.acknowledged || !self.wrapper_lives
    }

    /// The first signal of a stop.
    pub(super) const fn signal(&self) -> Signal {
        self.signal
    }

    /// When to come back with [`Event::Tick`] at the latest.
    pub(super) fn wake_at(&self) -> Option<BootTime> {
        match self.phase {
            Phase::Waiting | Phase::Stopping => None,
            Phase::Watching { deadline, overdue_since, .. } => {
                Some(overdue_since.map_or(deadline, |since| since + LATENESS))
            }
            Phase::Asking { until, .. } => Some(until),
            Phase::Told { kill_at } => Some(kill_at + KILL_LATENESS),
        }
    }

    /// Takes what happened and says what to do, in this order.
    pub(super) fn handle(&mut self, now: BootTime, event: Event) -> Vec<Action> {
        match event {
            Event::Told(order) => self.told(now, order),
            Event::WrapperGone => self.wrapper_gone(now),
            Event::LeaderStopped(signal) => vec![Action::Tell(Report::LeaderStopped(signal))],
            Event::LeaderEnded { exit, alone } => vec![Action::Tell(Report::LeaderEnded { exit, alone })],
            Event::Answer(answer) => self.answered(now, answer),
            Event::Listener { can_act } => self.listener(now, can_act),
            Event::Tick => self.tick(now),
        }
    }

    fn told(&mut self, now: BootTime, order: Order) -> Vec<Action> {
        match order {
            Order::Acknowledge => {
                self.acknowledged = true;
                Vec::new()
            }
            Order::Terms(terms, deadline) => {
                if matches!(self.phase, Phase::Waiting) {
                    self.signal = terms.signal;
                    self.phase = Phase::Watching { terms, deadline, overdue_since: None };
                }
                Vec::new()
            }
            Order::Deadline(moved) => match &mut self.phase {
                Phase::Watching { deadline, overdue_since, .. } => {
                    *deadline = moved;
                    if moved > now {
                        *overdue_since = None;
                    }
                    Vec::new()
                }
                Phase::Asking { terms, .. } if moved > now => {
                    self.phase = Phase::Watching { terms: *terms, deadline: moved, overdue_since: None };
                    vec![Action::DropQuestion]
                }
                Phase::Waiting | Phase::Asking { .. } | Phase::Told { .. } | Phase::Stopping => Vec::new(),
            },
            Order::Stopping { kill_at } => match self.phase {
                Phase::Stopping => Vec::new(),
                Phase::Waiting | Phase::Watching { .. } | Phase::Asking { .. } | Phase::Told { .. } => {
                    self.phase = Phase::Told { kill_at };
                    vec![Action::DropQuestion]
                }
            },
        }
    }

    fn wrapper_gone(&mut self, now: BootTime) -> Vec<Action> {
        self.wrapper_lives = false;
        match self.phase {
            // Its pipe is closed, so it executes nothing; it may be stopped and not know.
            Phase::Waiting => self.begin(FirstSignal::Theirs, now),
            Phase::Watching { terms, .. } => match terms.killer {
                Killer::Daemon => self.ask(now, terms),
                Killer::Wrapper => self.begin(FirstSignal::Ours, now + terms.grace),
            },
            Phase::Asking { terms, .. } => self.ask(now, terms),
            // It sent the stop signal, or knew who had.
            Phase::Told { kill_at } => self.begin(FirstSignal::Theirs, kill_at),
            Phase::Stopping => Vec::new(),
        }
    }

    fn answered(&mut self, now: BootTime, answer: Answer) -> Vec<Action> {
        let Phase::Asking { terms, since, .. } = self.phase else { return Vec::new() };
        let reaches = terms.killer == Killer::Daemon;
        match answer {
            Answer::Lease { deadline } if self.wrapper_lives && deadline > now => {
                self.phase = Phase::Watching { terms, deadline, overdue_since: None };
                vec![Action::DropQuestion]
            }
            Answer::Stopping { grace } if reaches => self.begin(FirstSignal::Theirs, now + grace.min(terms.grace)),
            // It has seen, or will see in a moment, that its wrapper is gone.
            Answer::Lease { .. } if reaches && !self.wrapper_lives => {
                self.begin(FirstSignal::Theirs, now + terms.grace)
            }
            // The time of the question is none of the agent's.
            Answer::Stopping { .. } | Answer::Lease { .. } | Answer::Unknown => {
                self.begin(FirstSignal::Ours, since + terms.grace)
            }
        }
    }

    fn listener(&mut self, now: BootTime, can_act: bool) -> Vec<Action> {
        let Phase::Asking { terms, since, until } = &mut self.phase else { return Vec::new() };
        let late = *since + LATE_ANSWER.min(terms.grace / 2);
        if can_act && late > now {
            *until = late;
            return Vec::new();
        }
        self.answered(now, Answer::Unknown)
    }

    fn tick(&mut self, now: BootTime) -> Vec<Action> {
        match &mut self.phase {
            Phase::Waiting | Phase::Stopping => Vec::new(),
            Phase::Watching { terms, deadline, overdue_since } => {
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
            Phase::Asking { since, until, .. } => {
                if now < *until {
                    return Vec::new();
                }
                let looked = *until > *since + ANSWER;
                if looked { self.answered(now, Answer::Unknown) } else { vec![Action::LookAtListener] }
            }
            Phase::Told { kill_at } => {
                let kill_at = *kill_at;
                if now < kill_at + KILL_LATENESS {
                    return Vec::new();
                }
                self.begin(FirstSignal::Theirs, kill_at)
            }
        }
    }

    fn ask(&mut self, now: BootTime, terms: Terms) -> Vec<Action> {
        self.phase = Phase::Asking { terms, since: now, until: now + ANSWER };
        vec![Action::Ask]
    }

    fn begin(&mut self, first_signal: FirstSignal, kill_at: BootTime) -> Vec<Action> {
        self.phase = Phase::Stopping;
        let mut actions = vec![Action::DropQuestion, Action::Begin { first_signal, kill_at }];
        if self.wrapper_lives {
            actions.insert(0, Action::Tell(Report::Stopping { kill_at }));
        }
        actions
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
