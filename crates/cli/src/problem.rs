//! The errors that end a command.

use machineid_protocol::Exit;

/// The error text says what happened, where, and what to do next; with the exit code.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) text: String,
    pub(super) exit: Exit,
}

impl Problem {
    /// The action was tried and failed.
    pub(super) fn failure(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::Failure }
    }

    /// An argument or the environment is wrong; nothing was tried.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::Usage }
    }

    /// It could not be determined whether something may run.
    pub(super) fn undecided(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::Undecided }
    }
}
