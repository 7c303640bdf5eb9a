//! What happens to the agent, and what follows from it.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Code, Containment, Exit};
use machineid_tree::FirstSignal;

use super::super::event::{Action, Leftovers};
use super::super::outcome::{Cause, Outcome};
use super::{Core, EXPLANATION, Lease, Phase};

impl Core {
    pub(super) fn signal(&mut self, now: BootTime, signal: i32, ignored: bool, from_terminal: bool) -> Vec<Action> {
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
                self.forward(signal, from_terminal)
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
                self.forward(signal, from_terminal)
            }
            Phase::Done => Vec::new(),
        }
    }

    /// Who is at the terminal can always interrupt the agent, also one that stands still.
    fn forward(&self, signal: i32, from_terminal: bool) -> Vec<Action> {
        let awakens = self.frozen && from_terminal && signal == libc::SIGINT;
        awakens.then_some(Action::Thaw).into_iter().chain([Action::Forward(signal)]).collect()
    }

    pub(super) fn set_frozen(&mut self, frozen: bool) -> Vec<Action> {
        if self.frozen == frozen {
            return Vec::new();
        }
        self.frozen = frozen;
        let text = if frozen {
            "the agent is frozen until it is known whether it may run; Ctrl-C resumes and interrupts it"
        } else {
            "the agent continues"
        };
        match self.phase {
            Phase::Running { .. } | Phase::Leftovers { .. } => {
                // In this order: who has read the remark may press the key.
                vec![Action::HoldTerminal(frozen), Action::Remark(text.to_owned())]
            }
            Phase::Unexplained { .. } | Phase::Stopping { .. } => vec![Action::HoldTerminal(frozen)],
            Phase::Asking { .. } | Phase::Done => Vec::new(),
        }
    }

    pub(super) fn leader_ended(&mut self, now: BootTime, exit: Exit, alone: bool) -> Vec<Action> {
        match self.phase {
            // It was to wait for us and is gone: somebody killed it.
            Phase::Asking { .. } => {
                let reason = "the process that was to become the command was killed before it was allowed";
                self.finish(Outcome::before_start(Exit::Wrapper, Cause::WrapperFailed, reason))
            }
            Phase::Running { lease } => {
                let otherwise = Outcome::of_command(exit);
                if self.daemon_can_end_it() {
                    return self.inquire(now, lease, otherwise, alone);
                }
                let mut actions = vec![Action::TakeTerminal];
                actions.extend(self.leader_explained(now, lease, otherwise, alone));
                actions
            }
            Phase::Stopping { .. } => {
                let mut actions = vec![Action::TakeTerminal];
                if alone {
                    actions.extend(self.tree_empty());
                }
                actions
            }
            Phase::Unexplained { .. } | Phase::Leftovers { .. } | Phase::Done => Vec::new(),
        }
    }

    fn inquire(&mut self, now: BootTime, lease: Lease, otherwise: Outcome, empty: bool) -> Vec<Action> {
        self.phase = Phase::Unexplained { lease, otherwise, until: now + EXPLANATION, empty };
        vec![Action::TakeTerminal, Action::Inquire]
    }

    /// The leader's end was not the daemon's doing.
    pub(super) fn leader_explained(
        &mut self,
        now: BootTime,
        lease: Lease,
        otherwise: Outcome,
        empty: bool,
    ) -> Vec<Action> {
        if empty { self.finish(otherwise) } else { self.leftovers(now, lease, otherwise.exit) }
    }

    fn leftovers(&mut self, now: BootTime, lease: Lease, exit: Exit) -> Vec<Action> {
        match self.settings.leftovers {
            Leftovers::Wait => {
                self.phase = Phase::Leftovers { lease, exit, interrupts: 0 };
                Vec::new()
            }
            Leftovers::Stop => {
                self.phase = Phase::Stopping { outcome: Outcome::of_command(exit), leader_ended_at: Some(now) };
                self.begin_stop(FirstSignal::Ours, self.grace)
            }
        }
    }

    fn begin_stop(&self, first_signal: FirstSignal, grace: Duration) -> Vec<Action> {
        let mut actions = vec![Action::BeginStop { first_signal, grace }];
        // So that it can act on the signal. The daemon does the same for its own.
        actions.extend((self.frozen && first_signal == FirstSignal::Ours).then_some(Action::Thaw));
        actions
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
                self.begin_stop(first_signal, grace)
            }
            Phase::Unexplained { empty, .. } => {
                if *empty {
                    return self.finish(outcome);
                }
                self.phase = Phase::Stopping { outcome, leader_ended_at: None };
                self.begin_stop(first_signal, grace)
            }
            Phase::Leftovers { exit, .. } => {
                // The code stays the leader's; the reason is told all the same.
                let outcome = Outcome { exit: *exit, ..outcome };
                self.phase = Phase::Stopping { outcome, leader_ended_at: None };
                self.begin_stop(first_signal, grace)
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

    /// The guardian has found the lease over and this wrapper silent. It has sent the stop signal, or knows who did.
    pub(super) fn guardian_stops(&mut self, now: BootTime, kill_at: BootTime) -> Vec<Action> {
        let reason = "no new permission came before the lease ended, and the wrapper was held up";
        let outcome = Outcome {
            reason: Some(reason.to_owned()),
            ..Outcome::stopped(Exit::Undecided, Cause::LeaseExpired, Some(Code::LeaseExpired))
        };
        self.stop(now, outcome, FirstSignal::Theirs, kill_at.saturating_since(now))
    }

    pub(super) fn guardian_killed(&mut self, now: BootTime) -> Vec<Action> {
        let reason = "its guardian was killed, and the command with it; what was left has been stopped";
        let outcome =
            Outcome { reason: Some(reason.to_owned()), ..Outcome::stopped(Exit::Wrapper, Cause::WrapperFailed, None) };
        match self.phase {
            Phase::Asking { .. } => {
                let reason = "its guardian was killed before the command was allowed";
                self.finish(Outcome::before_start(Exit::Wrapper, Cause::WrapperFailed, reason))
            }
            // The end of a namespace's first process is how a daemon ends the tree, and the end of all in it: nothing is left
            // to be stopped, and a daemon that gets no processor is late with saying that it did.
            Phase::Running { lease } if self.containment == Some(Containment::Pidns) && self.daemon_can_end_it() => {
                self.inquire(now, lease, outcome, true)
            }
            Phase::Running { .. } | Phase::Unexplained { .. } | Phase::Leftovers { .. } => {
                // Not by way of `stop`: the failure counts for more than a leader's own code.
                self.phase = Phase::Stopping { outcome, leader_ended_at: None };
                let mut actions = vec![Action::TakeTerminal];
                actions.extend(self.begin_stop(FirstSignal::Ours, self.grace));
                actions
            }
            // Its work is the wrapper's by now.
            Phase::Stopping { .. } | Phase::Done => Vec::new(),
        }
    }

    /// A stop that could not be finished is a failure, whatever the leader's own code.
    pub(super) fn stuck(&mut self) -> Vec<Action> {
        let Phase::Stopping { outcome, .. } = &self.phase else { return Vec::new() };
        let mut outcome = outcome.clone();
        if matches!(outcome.cause, Cause::Exited | Cause::Signalled) {
            outcome.exit = Exit::Wrapper;
            outcome.cause = Cause::WrapperFailed;
            outcome.reason = Some("what the command left behind cannot be ended".to_owned());
        }
        self.finish(outcome)
    }
}
