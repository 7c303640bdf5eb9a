//! What happens to the agent, and what follows from it.

use std::time::Duration;

use super::super::event::{Action, Leftovers};
use super::super::outcome::{Cause, Outcome};
use super::{Core, EXPLANATION, Lease, Phase};
use crate::clock::BootTime;
use crate::protocol::Exit;
use crate::tree::FirstSignal;

impl Core {
    pub(super) fn signal(&mut self, now: BootTime, signal: i32, ignored: bool) -> Vec<Action> {
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

    pub(super) fn leader_ended(&mut self, now: BootTime, exit: Exit) -> Vec<Action> {
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

    pub(super) fn leftovers(&mut self, now: BootTime, lease: Lease, exit: Exit) -> Vec<Action> {
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

    pub(super) fn stop(
        &mut self,
        now: BootTime,
        outcome: Outcome,
        first_signal: FirstSignal,
        grace: Duration,
    ) -> Vec<Action> {
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

    pub(super) fn not_stopped(&mut self, now: BootTime) -> Vec<Action> {
        let Phase::Unexplained { until, .. } = &mut self.phase else { return Vec::new() };
        *until = now;
        self.tick(now)
    }

    pub(super) fn tree_empty(&mut self) -> Vec<Action> {
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
}
