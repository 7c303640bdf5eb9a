//! Carries out the core's actions by system calls.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Containment, Wish};
use machineid_sys as sys;
use machineid_tree::{Leaf, Pid, Process, ProcessTable};
use rustix::process::Signal;

use super::super::connection::DaemonConnection;
use super::super::event::{Allowed, WrapperAction, WrapperEvent};
use super::super::say::say;
use super::super::stopping::Stopping;
use super::super::wire;
use super::{Interrupt, Shell};

/// A question that was begun is finished within this time. Much longer than that takes, and much shorter than the time
/// after which the daemon drops it (10 s).
const STALE: Duration = Duration::from_secs(2);

impl Shell<'_> {
    pub(super) fn carry_out(&mut self) {
        while let Some(action) = self.pending.pop_front() {
            match action {
                WrapperAction::Ask => self.ask(),
                WrapperAction::HangUp => self.connection = None,
                WrapperAction::Inquire => self.inquire(),
                WrapperAction::Release(allowed) => self.release(allowed),
                WrapperAction::Forward(signal) => self.forward(signal),
                WrapperAction::Suspend(signal) => self.suspend(signal),
                WrapperAction::Resume => {
                    if !self.continued {
                        self.resume();
                    }
                }
                WrapperAction::TakeTerminal => {
                    if self.terminal.is_handed_over() {
                        self.interrupt = Interrupt::SeenByCommand;
                    }
                    self.terminal.take_back();
                }
                WrapperAction::BeginStop { first_signal, grace } => {
                    if let Some(tree) = self.tree.clone() {
                        let signal = self.core.terms().signal;
                        let now = BootTime::now();
                        let mut stopping = Stopping::begin(now, tree, signal, first_signal, grace);
                        if self.guardian.is_gone() {
                            stopping.look_closely(now);
                        }
                        self.stopping = Some(stopping);
                        // Before the first signal: if the guardian were told afterwards and the wrapper killed in
                        // between, the tree would get the signal twice.
                        self.brief_guardian();
                        self.step_stop();
                    }
                }
                WrapperAction::Hasten(grace) => {
                    if let Some(stopping) = &mut self.stopping {
                        stopping.hasten(BootTime::now(), grace);
                    }
                }
                WrapperAction::Notice(text) => {
                    if !self.run.quiet {
                        say(&format!("machineid-run: {text}"));
                    }
                }
                WrapperAction::Remark(text) => {
                    if std::io::stderr().is_terminal() && !self.run.quiet {
                        say(&format!("machineid-run: {text}"));
                    }
                }
                WrapperAction::HoldTerminal(hold) => self.hold_terminal(hold),
                WrapperAction::Thaw => self.thaw(),
                WrapperAction::LookOutside => {
                    if let Some(tree) = &self.tree {
                        self.outside.look(tree, self.run.settings.run_id, &self.run.socket);
                    }
                }
                WrapperAction::Finish(outcome) => self.outcome = Some(outcome),
            }
        }
    }

    pub(super) fn ask(&mut self) {
        let rest = wire::Rest {
            pid: self.child.pid.as_raw_pid(),
            guardian: self.guardian.pid().as_raw_pid(),
            containment: match self.made {
                Containment::Cgroup => Some(Wish::Named(Containment::Cgroup)),
                Containment::Pidns | Containment::Subreaper => self.run.question.containment,
            },
        };
        // A wrapper that was stopped in the middle of its question finds that the daemon has dropped it.
        let fresh = |&(at, _): &(BootTime, _)| BootTime::now().saturating_since(at) < STALE;
        let begun = self.first_connection.take().filter(fresh).map(|(_, begun)| begun);
        match begun.unwrap_or_else(|| DaemonConnection::begin(self.run)).and_then(|begun| begun.ask(wire::rest(&rest)))
        {
            Ok(connection) => {
                self.beside_daemon = connection.is_to_parent();
                self.connection = Some(connection);
            }
            Err(lost) => {
                self.connection = None;
                self.event(WrapperEvent::Lost(lost));
            }
        }
    }

    pub(super) fn inquire(&mut self) {
        let asked = DaemonConnection::open(&self.run.socket)
            .and_then(|connection| connection.ask(wire::inquiry(self.run.settings.run_id)));
        match asked {
            Ok(connection) => self.inquiry = Some(connection),
            Err(_) => self.event(WrapperEvent::NotStopped),
        }
    }

    pub(super) fn release(&mut self, allowed: Allowed) {
        // The terminal first: the command must never find itself in the background.
        if self.terminal.wants_handing_over() {
            self.terminal.hand_over(self.child.pid);
        }
        // Then the guardian: once the leader has the permit there is an agent to guard.
        if let Some(deadline) = self.core.deadline() {
            self.guardian.terms(self.core.terms(), deadline);
        }
        // A leader that is gone is reaped and reported as such.
        let _ = self.child.release(&allowed);
        self.device_id = Some(allowed.device_id);
        // After the permit, since finding the group that the daemon has made may mean reading all mounts.
        if allowed.containment == Containment::Cgroup && self.leaf.is_none() {
            self.leaf = Leaf::around(Pid::from(self.child.pid), self.run.settings.run_id).ok().flatten().map(Arc::new);
            self.tree = self.tree.take().map(|tree| match &self.leaf {
                Some(leaf) => tree.in_leaf(Arc::clone(leaf)),
                None => tree,
            });
            self.arm_leaf();
        }
    }

    /// Takes the terminal's keys from a frozen agent, which would never see them, or gives them back.
    pub(super) fn hold_terminal(&mut self, hold: bool) {
        if hold && self.terminal.is_handed_over() {
            self.terminal.take_back();
            self.holds_terminal = true;
        } else if !hold && std::mem::take(&mut self.holds_terminal) && !self.child.ended {
            self.terminal.hand_over(self.child.pid);
        }
    }

    pub(super) fn thaw(&mut self) {
        let Some(leaf) = &self.leaf else { return };
        if leaf.thaw().is_err() {
            // The daemon froze the agent and can thaw it. Without a daemon, SIGKILL still works on a frozen agent.
            let request = wire::thaw(self.run.settings.run_id);
            self.errand = DaemonConnection::open(&self.run.socket).and_then(|connection| connection.ask(request)).ok();
        }
    }

    /// Sends a signal to the leader's whole group, as a terminal does. After the leader's end the group's number may
    /// belong to other processes, so each remaining process is pinned and signalled by itself.
    pub(super) fn forward(&mut self, signal: i32) {
        if !self.child.ended {
            self.send_to_command(signal);
            return;
        }
        let (Ok(table), Some(signal)) = (ProcessTable::scan(), Signal::from_named_raw(signal)) else { return };
        let Some(tree) = &mut self.tree else { return };
        for member in tree.members(&table) {
            if let Ok(Some(process)) = Process::pin(member.identity.pid, member.identity.start) {
                let _ = process.signal(signal);
            }
        }
    }

    /// Sends a signal to the leader's own group, and to the leader if it has joined another.
    fn send_to_command(&self, signal: i32) {
        let leader = self.child.pid;
        let _ = sys::send_to_group(leader, signal);
        // The leader is not reaped before the wrapper has acknowledged its end, so the number is its own.
        let number = nix::unistd::Pid::from_raw(leader.as_raw_pid());
        if nix::unistd::getpgid(Some(number)).is_ok_and(|group| group != number) {
            let _ = sys::send_to_child(leader, signal);
        }
    }

    /// Reacts to a stopped leader. If it was stopped because it lacks the terminal, and the wrapper has it, the leader
    /// gets it; likewise if it was stopped just before it got the terminal. Otherwise, on a terminal, the wrapper stops
    /// as well, so that the shell sees a stopped job; the other processes of the wrapper's group stop too, as they
    /// would without a wrapper. Without a terminal no shell would continue the wrapper, which has a deadline to watch.
    pub(super) fn suspend(&mut self, signal: i32) {
        if self.beside_daemon {
            // The daemon belongs to the same job of the shell: it would be suspended as well, and could stop no agent.
            say("machineid-run: not suspended: the daemon runs in this job and must continue; start it separately to \
                 use Ctrl-Z");
            self.send_to_command(libc::SIGCONT);
            return;
        }
        let wanted = matches!(signal, libc::SIGTTIN | libc::SIGTTOU);
        if wanted && (self.terminal.hand_over(self.child.pid) || self.terminal.is_with(self.child.pid)) {
            self.send_to_command(libc::SIGCONT);
            return;
        }
        if !self.terminal.is_controlling() {
            return;
        }
        let whole_group = self.terminal.is_handed_over() && signal != libc::SIGSTOP;
        self.terminal.take_back();
        sys::stop_by(signal, whole_group);
        self.terminal.given_by_the_shell();
        self.resume();
        self.continued = true;
    }

    pub(super) fn resume(&mut self) {
        if self.child.ended || self.stopping.is_some() {
            return;
        }
        if self.device_id.is_some() && self.terminal.wants_handing_over() {
            self.terminal.hand_over(self.child.pid);
        }
        self.send_to_command(libc::SIGCONT);
    }
}
