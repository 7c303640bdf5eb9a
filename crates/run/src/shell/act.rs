//! What the core wants done, as system calls.

use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Containment, Wish};
use machineid_sys as sys;
use machineid_tree::{Leaf, Pid, Process, ProcessTable};
use rustix::process::Signal;

use super::super::connection::DaemonConnection;
use super::super::event::{Allowed, WrapperAction, WrapperEvent};
use super::super::stopping::Stopping;
use super::super::{say, wire};
use super::{Interrupt, Shell};

/// Long after a question is begun it goes on, and long before the daemon gives one up (10 s).
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
                        // Before the first signal: were it told afterwards and the wrapper killed in between, the tree would
                        // get the signal twice.
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
                    if rustix::termios::isatty(rustix::stdio::stderr()) && !self.run.quiet {
                        say(&format!("machineid-run: {text}"));
                    }
                }
                WrapperAction::HoldTerminal(hold) => self.hold_terminal(hold),
                WrapperAction::Thaw => self.thaw(),
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
        // Who was stopped in the middle of its question finds that the daemon has given it up.
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
        // First the terminal: the command must not find itself in the background for a moment.
        if self.terminal.wants_handing_over() {
            self.terminal.hand_over(self.child.pid);
        }
        // And the guardian: from the word on there is somebody to guard.
        if let Some(deadline) = self.core.deadline() {
            self.guardian.terms(self.core.terms(), deadline);
        }
        // A child that is gone is reaped and reported as such.
        let _ = self.child.release(&allowed);
        self.device_id = Some(allowed.device_id);
        // Only now: to find the group that the daemon has made takes a look at all mounts.
        if allowed.containment == Containment::Cgroup && self.leaf.is_none() {
            self.leaf = Leaf::around(Pid::from(self.child.pid), self.run.settings.run_id).ok().flatten().map(Arc::new);
            self.tree = self.tree.take().map(|tree| match &self.leaf {
                Some(leaf) => tree.in_leaf(Arc::clone(leaf)),
                None => tree,
            });
            self.arm_leaf();
        }
    }

    /// A key on the terminal reaches whoever has it; an agent that stands still would never learn of it.
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
            // The daemon froze it and can thaw it. When it is gone there is still SIGKILL, which needs no thawing.
            let request = wire::thaw(self.run.settings.run_id);
            self.errand = DaemonConnection::open(&self.run.socket).and_then(|connection| connection.ask(request)).ok();
        }
    }

    /// To the leader's whole group, as a terminal does it. After the leader's end its number may belong to others, so
    /// whoever is left is pinned and signalled one by one.
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

    /// To the leader's own group, and to the leader where it has joined another.
    fn send_to_command(&self, signal: i32) {
        let leader = self.child.pid;
        let _ = sys::send_to_group(leader, signal);
        // Not reaped before we have acknowledged its end, so the number is its own.
        let number = nix::unistd::Pid::from_raw(leader.as_raw_pid());
        if nix::unistd::getpgid(Some(number)).is_ok_and(|group| group != number) {
            let _ = sys::send_to_child(leader, signal);
        }
    }

    /// The leader was stopped. For want of the terminal, while it is ours: it gets it; or while it has it already, and was
    /// stopped just before it got it. Else, on a terminal, the wrapper
    /// stops with it, so that the shell sees a stopped job; whoever shares the wrapper's group too, as they would have.
    /// Without a terminal nobody would continue the wrapper, and it has a deadline to watch.
    pub(super) fn suspend(&mut self, signal: i32) {
        if self.beside_daemon {
            // The daemon belongs to the same job of the shell: it would be suspended as well, and stop nobody.
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
