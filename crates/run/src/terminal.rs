//! The terminal's foreground and settings.
//!
//! The command's process group is not the wrapper's, so a shell that put the wrapper into the foreground has not put
//! the command there: the wrapper passes the foreground on, and takes it back at the end. At the start it does so only
//! when both input and output are the terminal. In `machineid-run agent | less` the pager shares the wrapper's group
//! and would be stopped for reading its keys; there the foreground is handed over when the command is stopped because
//! it lacks it. Its standard streams do not matter then: `echo text | machineid-run less` reads its keys from
//! `/dev/tty`.
//!
//! A shell restores the terminal's settings when its job was ended by a signal. It cannot see that of the command, only
//! the wrapper's exit code, so the wrapper restores them. After a stop it also resets the modes of the terminal itself
//! ([`super::screen`]), which a full-screen program that is ended by SIGKILL leaves on.
//!
//! The wrapper's own description of the terminal does not block: a terminal that is halted with Ctrl-S, or whose other
//! end reads nothing, must not hold up the end of a run.
//!
//! The terminal's calls are rustix's: nix's `Termios` drops flags and speeds that it has no name for, which could then
//! not be restored, and its `tcgetpgrp` answers 0 for a group outside the PID namespace.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;

use machineid_sys as sys;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::termios::{OptionalActions, Termios};

use super::{say, screen};

/// The wrapper's relation to its terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    /// The wrapper's process group. `None` when it is outside the PID namespace: then the foreground could not be given
    /// back to it.
    own_group: Option<Pid>,
    /// The session's controlling terminal, whatever the standard streams are; `None` if there is none.
    controlling: Option<File>,
    /// Whether both input and output are the terminal.
    at_both_ends: bool,
    handed_over: bool,
    /// Whether the command has ever had the terminal from this wrapper.
    was_handed_over: bool,
    /// The standard streams that were this terminal at the start, and blocked.
    blocking: [bool; 3],
    /// The settings when the shell gave the terminal to the wrapper.
    settings: Option<Termios>,
}

impl Terminal {
    /// Finds the terminal at the start.
    pub(super) fn find() -> Self {
        let own_group = Pid::from_raw(sys::own_group());
        // Fails with ENXIO in a session without one.
        let controlling = own_group.and_then(|_| open_controlling().ok());
        let input = is_controlling(rustix::stdio::stdin());
        let mut terminal = Self {
            own_group,
            at_both_ends: input && std::io::stdout().is_terminal(),
            controlling,
            handed_over: false,
            was_handed_over: false,
            blocking: streams().map(|stream| is_controlling(stream) && !is_nonblocking(stream)),
            settings: None,
        };
        terminal.given_by_the_shell();
        terminal
    }

    /// Whether there is a terminal that could stop the command.
    pub(super) const fn is_controlling(&self) -> bool {
        self.controlling.is_some()
    }

    /// Whether the wrapper has given the terminal to the command.
    pub(super) const fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Whether the wrapper's own group is in the foreground.
    pub(super) fn is_ours(&self) -> bool {
        let foreground = self.foreground();
        foreground.is_some() && foreground == self.own_group
    }

    fn foreground(&self) -> Option<Pid> {
        self.controlling.as_ref().and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok())
    }

    /// Whether the command is to be started in the foreground.
    pub(super) fn wants_handing_over(&self) -> bool {
        self.at_both_ends && self.is_ours()
    }

    /// Makes a group the foreground one. SIGTTOU must be blocked, as it is in the wrapper.
    fn give_to(&self, group: Pid) {
        if let Some(terminal) = &self.controlling {
            // ENOTTY when the terminal was hung up, EPERM when the group is gone: then there is nothing to hand over.
            let _: Result<(), Errno> = rustix::termios::tcsetpgrp(terminal, group);
        }
    }

    /// Hands the foreground to the command if the wrapper has it. Returns whether it had.
    pub(super) fn hand_over(&mut self, group: Pid) -> bool {
        if !self.is_ours() {
            return false;
        }
        if self.settings.is_none() {
            self.given_by_the_shell();
        }
        self.give_to(group);
        self.handed_over = true;
        self.was_handed_over = true;
        true
    }

    /// Whether this group is in the foreground.
    pub(super) fn is_with(&self, group: Pid) -> bool {
        self.foreground() == Some(group)
    }

    /// Takes the foreground back, if the command's group still has it, or a group that no longer exists.
    pub(super) fn take_back(&mut self) {
        if let Some(own_group) = self.own_group.filter(|_| self.handed_over) {
            self.give_to(own_group);
            self.handed_over = false;
        }
    }

    /// Remembers the settings, if the shell has given the terminal to the wrapper: at the start, and each time it
    /// continues a suspended job. Not each time the command gets the terminal, since it may have had it before and
    /// changed the settings.
    pub(super) fn given_by_the_shell(&mut self) {
        if self.is_ours() {
            self.settings = self.controlling.as_ref().and_then(|terminal| rustix::termios::tcgetattr(terminal).ok());
        }
    }

    /// Restores the settings for a command that was ended and could not do so itself, if the wrapper has the
    /// foreground.
    pub(super) fn restore_settings(&self) {
        if !self.is_ours() {
            return;
        }
        if let (Some(terminal), Some(settings)) = (&self.controlling, &self.settings) {
            // At once, not after the written output has been read, which may never happen.
            let _: Result<(), Errno> = rustix::termios::tcsetattr(terminal, OptionalActions::Now, settings);
        }
        // The flag belongs to the open description, which the command shared with the shell: a program that reads its
        // keys without blocking would leave the next reader with EAGAIN.
        for (stream, _) in streams().into_iter().zip(self.blocking).filter(|&(_, blocking)| blocking) {
            if let Ok(flags) = rustix::fs::fcntl_getfl(stream)
                && flags.contains(OFlags::NONBLOCK)
            {
                let _: Result<(), Errno> = rustix::fs::fcntl_setfl(stream, flags - OFlags::NONBLOCK);
            }
        }
    }

    /// Resets the modes that a command which was stopped may have left on, if it had the terminal and the wrapper has
    /// the foreground.
    pub(super) fn reset_modes(&self, term: Option<&OsStr>) {
        if let (Some(terminal), Some(modes)) = (&self.controlling, screen::reset(term))
            && self.was_handed_over
            && self.is_ours()
        {
            say::write_or_drop(terminal, modes);
        }
    }
}

fn streams() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Whether a stream is this session's controlling terminal.
pub(super) fn is_controlling(stream: BorrowedFd<'_>) -> bool {
    // Fails with ENOTTY for anything else.
    rustix::termios::tcgetpgrp(stream).is_ok()
}

fn is_nonblocking(stream: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_getfl(stream).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}

/// Opens the controlling terminal, with a description of its own that does not block.
pub(super) fn open_controlling() -> io::Result<File> {
    let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
    OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open("/dev/tty")
}
