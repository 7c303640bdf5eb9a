//! Who has the terminal.
//!
//! The command's process group is not the wrapper's, so a shell that put the wrapper into the foreground has not put the
//! command there: the wrapper hands the foreground on, and takes it back at the end. It does so at the start only when
//! both input and output are the terminal. In `machineid-run agent | less` the pager shares the wrapper's group and would
//! be stopped for reading its keys; there the foreground is handed over when the command is stopped for the want of it.

use rustix::io::Errno;
use rustix::process::Pid;

use crate::sys;

/// The wrapper's relation to its terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    /// `None` when it is outside the PID namespace, and nothing could be handed back to it.
    own_group: Option<Pid>,
    /// Whether standard input is the controlling terminal.
    controlling: bool,
    output_too: bool,
    handed_over: bool,
}

impl Terminal {
    /// As found at the start.
    pub(super) fn find() -> Self {
        let input = rustix::stdio::stdin();
        let own_group = Pid::from_raw(sys::own_group());
        Self {
            own_group,
            // Fails with ENOTTY for anything that is not this session's terminal.
            controlling: own_group.is_some() && rustix::termios::tcgetpgrp(input).is_ok(),
            output_too: rustix::termios::isatty(rustix::stdio::stdout()),
            handed_over: false,
        }
    }

    /// Whether there is a terminal that could stop the command.
    pub(super) const fn is_controlling(&self) -> bool {
        self.controlling
    }

    /// Whether the command has the terminal, by our doing.
    pub(super) const fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Whether the wrapper's own group is in the foreground.
    pub(super) fn is_ours(&self) -> bool {
        self.controlling && rustix::termios::tcgetpgrp(rustix::stdio::stdin()).ok() == self.own_group
    }

    /// Whether the command is to be started in the foreground.
    pub(super) fn wants_handing_over(&self) -> bool {
        self.output_too && self.is_ours()
    }

    /// Makes a group the foreground one. Needs SIGTTOU blocked, as the wrapper has it.
    fn give_to(group: Pid) {
        // ENOTTY when the terminal was hung up, EPERM when the group is gone: nothing to hand over then.
        let _: Result<(), Errno> = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group);
    }

    /// Hands the foreground to the command when it is ours to give. Says whether it was.
    pub(super) fn hand_over(&mut self, group: Pid) -> bool {
        if !self.is_ours() {
            return false;
        }
        Self::give_to(group);
        self.handed_over = true;
        true
    }

    /// Takes the foreground back, if the command's group (or nobody any more) still has it.
    pub(super) fn take_back(&mut self) {
        if let Some(own_group) = self.own_group.filter(|_| self.handed_over) {
            Self::give_to(own_group);
            self.handed_over = false;
        }
    }
}
