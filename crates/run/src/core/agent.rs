//! The core's reaction to events of the agent.

use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Code, Containment, Exit};
use machineid_tree::FirstSignal;

use super::super::event::{Leftovers, WrapperAction};
use super::super::outcome::{EndCause, RunOutcome};
use super::{EXPLANATION, Lease, WrapperCore, WrapperPhase};

impl WrapperCore {
    pub(super) fn signal(
        &mut self,
        now: BootTime,
        signal: i32,
        ignored: bool,
        from_terminal: bool,
    ) -> Vec<WrapperAction> {
        // The kernel sends these to a process about its own children, sockets and terminal: they do not concern the
        // agent.
        if matches!(signal, libc::SIGCHLD | libc::SIGURG | libc::SIGTTIN | libc::SIGTTOU) {
            return Vec::new();
        }
        match &mut self.phase {
            WrapperPhase::Asking { .. } => match signal {
                libc::SIGTSTP => vec![WrapperAction::Suspend(signal)],
                libc::SIGCONT | libc::SIGWINCH => Vec::new(),
                _ if ignored => Vec::new(),
                _ => {
                    let exit = Exit::Signal(u8::try_from(signal).unwrap_or(0));
                    let mut outcome =
                        RunOutcome::before_start(exit, EndCause::NotStarted, format!("by signal {signal}"));
                    outcome.signal = Some(signal);
                    self.finish(outcome)
                }
            },
            WrapperPhase::Running { .. } | WrapperPhase::Unexplained { .. } | WrapperPhase::Stopping { .. } => {
                if signal == libc::SIGCONT {
                    self.woke_at = Some(now);
                    return vec![WrapperAction::Resume];
                }
                self.forward(signal, from_terminal)
            }
            WrapperPhase::Leftovers { exit, interrupts, .. } => {
                if signal == libc::SIGCONT {
                    self.woke_at = Some(now);
                }
                let exit = *exit;
                *interrupts += u8::from(signal == libc::SIGINT && *interrupts < 2);
                if *interrupts >= 2 {
                    return self.stop(now, RunOutcome::of_command(exit), FirstSignal::Ours, self.grace);
                }
                self.forward(signal, from_terminal)
            }
            WrapperPhase::Done => Vec::new(),
        }
    }

    /// Ctrl-C always interrupts the agent, even a frozen one.
    fn forward(&self, signal: i32, from_terminal: bool) -> Vec<WrapperAction> {
        let awakens = self.frozen && from_terminal && signal == libc::SIGINT;
        awakens.then_some(WrapperAction::Thaw).into_iter().chain([WrapperAction::Forward(signal)]).collect()
    }

    pub(super) fn set_frozen(&mut self, frozen: bool) -> Vec<WrapperAction> {
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
            WrapperPhase::Running { .. } | WrapperPhase::Leftovers { .. } => {
                // In this order: a user who has read the remark may press the key at once.
                vec![WrapperAction::HoldTerminal(frozen), WrapperAction::Remark(text.to_owned())]
            }
            WrapperPhase::Unexplained { .. } | WrapperPhase::Stopping { .. } => {
                vec![WrapperAction::HoldTerminal(frozen)]
            }
            WrapperPhase::Asking { .. } | WrapperPhase::Done => Vec::new(),
        }
    }

    pub(super) fn leader_ended(&mut self, now: BootTime, exit: Exit, alone: bool) -> Vec<WrapperAction> {
        match self.phase {
            // The leader was to wait for the permit and is gone: another process has killed it.
            WrapperPhase::Asking { .. } => {
                let reason = "the process that was to become the command was killed before it was allowed";
                self.finish(RunOutcome::before_start(Exit::Wrapper, EndCause::WrapperFailed, reason))
            }
            WrapperPhase::Running { lease } => {
                let otherwise = RunOutcome::of_command(exit);
                if self.daemon_can_end_it() {
                    return self.inquire(now, lease, otherwise, alone);
                }
                let mut actions = vec![WrapperAction::TakeTerminal];
                actions.extend(self.leader_explained(now, lease, otherwise, alone));
                actions
            }
            WrapperPhase::Stopping { .. } => {
                let mut actions = vec![WrapperAction::TakeTerminal];
                if alone {
                    actions.extend(self.tree_empty());
                }
                actions
            }
            WrapperPhase::Unexplained { .. } | WrapperPhase::Leftovers { .. } | WrapperPhase::Done => Vec::new(),
        }
    }

    fn inquire(&mut self, now: BootTime, lease: Lease, otherwise: RunOutcome, empty: bool) -> Vec<WrapperAction> {
        self.phase = WrapperPhase::Unexplained { lease, otherwise, until: now + EXPLANATION, empty };
        vec![WrapperAction::TakeTerminal, WrapperAction::Inquire]
    }

    /// Continues after the leader's end, which was not caused by the daemon.
    pub(super) fn leader_explained(
        &mut self,
        now: BootTime,
        lease: Lease,
        otherwise: RunOutcome,
        empty: bool,
    ) -> Vec<WrapperAction> {
        if empty { self.finish(otherwise) } else { self.leftovers(now, lease, otherwise.exit) }
    }

    fn leftovers(&mut self, now: BootTime, lease: Lease, exit: Exit) -> Vec<WrapperAction> {
        match self.settings.leftovers {
            Leftovers::Wait => {
                self.phase = WrapperPhase::Leftovers { lease, exit, interrupts: 0 };
                Vec::new()
            }
            Leftovers::Stop => {
                self.phase =
                    WrapperPhase::Stopping { outcome: RunOutcome::of_command(exit), leader_ended_at: Some(now) };
                self.begin_stop(FirstSignal::Ours, self.grace)
            }
        }
    }

    fn begin_stop(&self, first_signal: FirstSignal, grace: Duration) -> Vec<WrapperAction> {
        let mut actions = vec![WrapperAction::BeginStop { first_signal, grace }];
        // The agent must be able to act on the signal. The daemon does the same for its own stops.
        actions.extend((self.frozen && first_signal == FirstSignal::Ours).then_some(WrapperAction::Thaw));
        actions
    }

    pub(super) fn stop(
        &mut self,
        now: BootTime,
        outcome: RunOutcome,
        first_signal: FirstSignal,
        grace: Duration,
    ) -> Vec<WrapperAction> {
        match &mut self.phase {
            WrapperPhase::Running { .. } => {
                self.phase = WrapperPhase::Stopping { outcome, leader_ended_at: None };
                self.begin_stop(first_signal, grace)
            }
            WrapperPhase::Unexplained { empty, .. } => {
                if *empty {
                    return self.finish(outcome);
                }
                self.phase = WrapperPhase::Stopping { outcome, leader_ended_at: None };
                self.begin_stop(first_signal, grace)
            }
            WrapperPhase::Leftovers { exit, .. } => {
                // The exit code stays the leader's; the reason is reported all the same.
                let outcome = RunOutcome { exit: *exit, ..outcome };
                self.phase = WrapperPhase::Stopping { outcome, leader_ended_at: None };
                self.begin_stop(first_signal, grace)
            }
            WrapperPhase::Stopping { outcome: decided, leader_ended_at } => {
                // The first reason stays, unless this stop of the daemon's caused the leader's end.
                let explains = leader_ended_at.is_some_and(|ended| now.saturating_since(ended) <= EXPLANATION);
                if explains && first_signal == FirstSignal::Theirs {
                    *decided = outcome;
                    *leader_ended_at = None;
                }
                vec![WrapperAction::Hasten(grace)]
            }
            WrapperPhase::Asking { .. } | WrapperPhase::Done => Vec::new(),
        }
    }

    pub(super) fn not_stopped(&mut self, now: BootTime) -> Vec<WrapperAction> {
        let WrapperPhase::Unexplained { until, .. } = &mut self.phase else { return Vec::new() };
        *until = now;
        self.tick(now)
    }

    pub(super) fn tree_empty(&mut self) -> Vec<WrapperAction> {
        match &mut self.phase {
            WrapperPhase::Stopping { outcome, .. } => {
                let outcome = outcome.clone();
                self.finish(outcome)
            }
            WrapperPhase::Leftovers { exit, .. } => {
                let outcome = RunOutcome::of_command(*exit);
                self.finish(outcome)
            }
            WrapperPhase::Unexplained { empty, .. } => {
                *empty = true;
                Vec::new()
            }
            WrapperPhase::Asking { .. } | WrapperPhase::Running { .. } | WrapperPhase::Done => Vec::new(),
        }
    }

    /// Takes over the stop of a guardian that has seen the lease end without a word of this wrapper. The guardian has
    /// sent the stop signal, or knows that the daemon has.
    pub(super) fn guardian_stops(&mut self, now: BootTime, kill_at: BootTime) -> Vec<WrapperAction> {
        let reason = "no new permission came before the lease ended, and the wrapper did not react in time";
        let outcome = RunOutcome {
            reason: Some(reason.to_owned()),
            ..RunOutcome::stopped(Exit::Undecided, EndCause::LeaseExpired, Some(Code::LeaseExpired))
        };
        self.stop(now, outcome, FirstSignal::Theirs, kill_at.saturating_since(now))
    }

    pub(super) fn guardian_killed(&mut self, now: BootTime) -> Vec<WrapperAction> {
        let reason = "its guardian was killed, and the command with it; what was left has been stopped";
        let outcome = RunOutcome {
            reason: Some(reason.to_owned()),
            ..RunOutcome::stopped(Exit::Wrapper, EndCause::WrapperFailed, None)
        };
        match self.phase {
            WrapperPhase::Asking { .. } => {
                let reason = "its guardian was killed before the command was allowed";
                self.finish(RunOutcome::before_start(Exit::Wrapper, EndCause::WrapperFailed, reason))
            }
            // A daemon ends a namespace by killing its first process, and all others end with it: nothing is left to be
            // stopped. A daemon that gets no processor reports that late, so it is asked.
            WrapperPhase::Running { lease }
                if self.containment == Some(Containment::Pidns) && self.daemon_can_end_it() =>
            {
                self.inquire(now, lease, outcome, true)
            }
            WrapperPhase::Running { .. } | WrapperPhase::Unexplained { .. } | WrapperPhase::Leftovers { .. } => {
                // Not through `stop`: the failure counts for more than a leader's own exit code.
                self.phase = WrapperPhase::Stopping { outcome, leader_ended_at: None };
                let mut actions = vec![WrapperAction::TakeTerminal];
                actions.extend(self.begin_stop(FirstSignal::Ours, self.grace));
                actions
            }
            // The wrapper does the guardian's work by now.
            WrapperPhase::Stopping { .. } | WrapperPhase::Done => Vec::new(),
        }
    }

    /// A stop that could not be finished is a failure, whatever the leader's own code.
    pub(super) fn stuck(&mut self) -> Vec<WrapperAction> {
        let WrapperPhase::Stopping { outcome, .. } = &self.phase else { return Vec::new() };
        let mut outcome = outcome.clone();
        if matches!(outcome.cause, EndCause::Exited | EndCause::Signalled) {
            outcome.exit = Exit::Wrapper;
            outcome.cause = EndCause::WrapperFailed;
            outcome.reason = Some("what the command left behind cannot be ended".to_owned());
        }
        self.finish(outcome)
    }
}
