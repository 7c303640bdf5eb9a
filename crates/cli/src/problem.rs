//! Why a command ended without doing what it should.

use machineid_protocol::Exit;

/// What happened, where, and what to do next; and the exit code that goes with it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) text: String,
    pub(super) exit: Exit,
}

impl Problem {
    /// It was tried and failed.
    pub(super) fn failure(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::Failure }
    }

    /// What was typed, or what the environment holds, is wrong; nothing was tried.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::Usage }
    }

    /// Whether something may run could not be found out.
    pub(super) fn undecided(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::Undecided }
    }
}
