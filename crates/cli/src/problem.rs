//! The errors that end a command.

use std::fmt::Display;

use machineid_protocol::Exit;

/// The error text says what happened, where, and what to do next; with the exit code.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) text: String,
    pub(super) exit: Exit,
}

impl Problem {
    /// The action was tried and failed.
    pub(super) fn failure(text: impl Display) -> Self {
        Self { text: text.to_string(), exit: Exit::Failure }
    }

    /// An argument or the environment is wrong; nothing was tried.
    pub(super) fn usage(text: impl Display) -> Self {
        Self { text: text.to_string(), exit: Exit::Usage }
    }

    /// It could not be determined whether something may run.
    pub(super) fn undecided(text: impl Display) -> Self {
        Self { text: text.to_string(), exit: Exit::Undecided }
    }
}
