//! Turns what descriptors deliver into events for the core.

use std::ffi::{OsStr, OsString};

use machineid_clock::BootTime;
use machineid_protocol::Exit;
use machineid_protocol::local::SuperviseEvent;
use machineid_sys::Inherited;
use machineid_tree::{ProcessTable, Tree};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};

use super::super::child;
use super::super::event::WrapperEvent;
use super::super::guard::{GuardianEnd, GuardianReport};
use super::{Interrupt, Shell};

/// How many signals are taken before everything else is looked at again: an agent that floods the wrapper with them
/// must not keep it from its deadline.
const SIGNALS: usize = 64;
/// How many children are reaped before that, which takes a tenth of a second. Not fewer: each look at `/proc` takes
/// longer the more zombies there are, and an agent in a fork storm makes thousands in that time.
const CHILDREN: usize = 32_768;

impl Shell<'_> {
    pub(super) fn read_stream(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        for event in connection.advance() {
            if matches!(event, WrapperEvent::Lost(_) | WrapperEvent::Refused(_)) {
                self.connection = None;
            }
            self.event(event);
            self.carry_out();
        }
    }

    pub(super) fn read_inquiry(&mut self) {
        if self.errand.as_mut().is_some_and(|errand| !errand.advance().is_empty()) {
            self.errand = None;
        }
        let Some(inquiry) = &mut self.inquiry else { return };
        if let Some(answer) = inquiry.advance().into_iter().next() {
            self.inquiry = None;
            let stops = matches!(answer, WrapperEvent::Line(SuperviseEvent::Stop { .. }));
            self.event(if stops { answer } else { WrapperEvent::NotStopped });
            self.carry_out();
        }
    }

    pub(super) fn read_leaf(&mut self) {
        // Read in every round. Rounds are few, since the kernel reports changes only; finding out which descriptor has
        // woken the poll would cost more.
        let Some(Ok(state)) = self.leaf.as_ref().map(|leaf| leaf.state()) else { return };
        self.event(WrapperEvent::Frozen(state.frozen));
        self.carry_out();
    }

    pub(super) fn read_signals(&mut self) {
        for _ in 0..SIGNALS {
            let Ok(Some(arrived)) = self.signals.next() else { break };
            // A stop's signal that reaches this wrapper as a member of an outer tree has reached the agent as well.
            if !arrived.own && !arrived.from_ladder {
                let from_terminal = arrived.from_kernel;
                if from_terminal && super::is_interrupt(arrived.signal) {
                    self.interrupt = Interrupt::SeenByAll;
                }
                let ignored = Inherited::get().ignores(arrived.signal);
                self.event(WrapperEvent::Signal { signal: arrived.signal, ignored, from_terminal });
                self.carry_out();
            }
        }
        self.continued = false;
    }

    pub(super) fn read_guardian(&mut self) {
        while let Some(report) = self.guardian.next() {
            match report {
                GuardianReport::LeaderStopped(signal) => self.event(WrapperEvent::LeaderStopped(signal)),
                GuardianReport::LeaderEnded { exit, alone } => {
                    self.leader_ended(exit, alone);
                    // The question to the daemon first, if there is one: the rest is done while the daemon answers.
                    self.carry_out();
                    if alone {
                        self.guardian.dismiss();
                        // If that is too early, it is removed at the end.
                        self.leaf.take_if(|leaf| leaf.remove().is_ok());
                    } else {
                        self.guardian.acknowledge();
                    }
                }
                GuardianReport::Stopping { kill_at } => self.event(WrapperEvent::GuardianStops { kill_at }),
                // Only sent at the start.
                GuardianReport::Here { .. } | GuardianReport::Cannot(..) => {}
            }
            self.carry_out();
        }
    }

    /// Reaps children that have ended: the guardian and, after its death, the orphans that it would have reaped.
    /// Returns whether there may be more.
    pub(super) fn reap(&mut self) -> bool {
        let mut orphans_ended = false;
        let mut more = true;
        for _ in 0..CHILDREN {
            match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if pid == self.guardian.pid() => self.guardian_changed(status),
                Ok(Some((pid, status))) => {
                    if pid == self.child.pid && !self.child.ended && !status.stopped() {
                        self.leader_ended(exit_of(status), false);
                    }
                    orphans_ended |= !status.stopped();
                    self.carry_out();
                }
                Ok(None) => {
                    more = false;
                    break;
                }
                Err(Errno::INTR) => {}
                // ECHILD. A subreaper is the parent of every orphan: without children, the tree is empty.
                Err(_) => {
                    self.tree_is_empty();
                    return false;
                }
            }
        }
        // A wrapper that had children before the tree is never without any, so only the table can tell.
        let bystanders = self.tree.as_ref().is_some_and(Tree::has_bystanders);
        if orphans_ended && bystanders && self.guardian.is_gone() && self.tree_looks_empty() {
            self.tree_is_empty();
        }
        more
    }

    pub(super) fn guardian_changed(&mut self, status: WaitStatus) {
        if status.stopped() {
            self.guardian.resume();
            return;
        }
        // A daemon that has killed the guardian has announced that before; a wrapper that was delayed has not read it
        // yet.
        self.read_stream();
        let end = self.guardian.reaped(status);
        // A guardian that ends without a report about the leader, and without a stop, has failed.
        if let Some(stopping) = self.stopping.as_mut().filter(|_| end == GuardianEnd::Killed) {
            stopping.look_closely(BootTime::now());
        }
        if end == GuardianEnd::Killed || (!self.child.ended && self.stopping.is_none()) {
            // Everything in its namespace is gone, and the leader's number may belong to another process.
            self.child.ended |= self.guardian.is_init();
            self.event(WrapperEvent::GuardianKilled);
            self.carry_out();
        }
        if end == GuardianEnd::TreeEmpty {
            self.tree_is_empty();
        }
        self.carry_out();
    }

    pub(super) fn tree_is_empty(&mut self) {
        self.child.ended = true;
        self.event(WrapperEvent::TreeEmpty);
        self.carry_out();
    }

    pub(super) fn tree_looks_empty(&mut self) -> bool {
        let Some(tree) = &mut self.tree else { return false };
        ProcessTable::scan().is_ok_and(|table| tree.members(&table).is_empty())
    }

    pub(super) fn leader_ended(&mut self, exit: Exit, alone: bool) {
        self.child.ended = true;
        match self.child.exec_error() {
            Some(errno) => {
                let command = self.run.command.first().map_or(OsStr::new(""), OsString::as_os_str);
                let (exit, reason) = child::explain(command, errno);
                self.event(WrapperEvent::CannotExecute(exit, reason));
            }
            None => self.event(WrapperEvent::LeaderEnded { exit, alone }),
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    let number = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(number(signal)),
        None => Exit::Command(number(status.exit_status().unwrap_or(255))),
    }
}
