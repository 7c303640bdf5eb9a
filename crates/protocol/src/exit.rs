//! The exit codes of the programs. `main` is the only place that turns an outcome into a number.

use std::process::ExitCode;

/// The exit codes shared by the wrapper, the daemon in front of a command, and the operator's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or allowed.
    Success,
    /// Something failed; the message says what. For commands on several devices: at least one of them failed.
    Failure,
    /// The command line or the configuration is wrong; nothing was started.
    Usage,
    /// Nothing was done yet: the request waits for a second key.
    Waiting,
    /// A hook blocks the tool call that an agent asked about. Agents take this code for a block, and most others for a yes.
    Blocked,
    /// It could not be found out whether the command may run: no daemon, no answer, `SYSTEM_UNAVAILABLE`, the lease
    /// ended.
    Undecided,
    /// Denied: before the start, or stopped by a deny; also by a deny that was made on the host.
    Denied,
    /// The wrapper itself failed.
    Wrapper,
    /// The command was found but cannot be executed.
    NotExecutable,
    /// The command was not found.
    NotFound,
    /// The command's own exit code, passed on.
    Command(u8),
    /// The command was ended by this signal: 128 + n.
    Signal(u8),
}

impl Exit {
    /// The number that a shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage | Self::Blocked => 2,
            Self::Waiting => 3,
            Self::Undecided => 75,
            Self::Denied => 77,
            Self::Wrapper => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Command(code) => code,
            Self::Signal(signal) => signal.wrapping_add(128),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn the_codes_are_those_of_the_documentation() {
        let table = [
            (Exit::Success, 0),
            (Exit::Failure, 1),
            (Exit::Usage, 2),
            (Exit::Waiting, 3),
            (Exit::Blocked, 2),
            (Exit::Undecided, 75),
            (Exit::Denied, 77),
            (Exit::Wrapper, 125),
            (Exit::NotExecutable, 126),
            (Exit::NotFound, 127),
            (Exit::Command(3), 3),
            (Exit::Signal(15), 143),
        ];
        for (exit, code) in table {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }
}
