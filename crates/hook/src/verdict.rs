//! Whether a tool call may begin.

use std::fmt;

use machineid_protocol::printable::printable;

/// The most characters of a reason.
const LONGEST: usize = 600;

/// Why a call may not begin, in one line: never empty, since some agents ignore a no without a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

/// Whether the tool call may begin. Only a whole ALLOW of the daemon is a yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not: the device is denied. The session ends where the agent can be told to end it.
    Denied(Reason),
    /// It could not be found out, so it may not. The session goes on: the next call may be allowed.
    Undecided(Reason),
}

impl Verdict {
    /// A no, for what the daemon said.
    #[must_use]
    pub fn denied(why: &str) -> Self {
        let why = clean(why, "the daemon gave no reason");
        Self::Denied(Reason(format!("machineid: denied, this agent must stop; do not try again: {why}")))
    }

    /// No answer, for this cause.
    #[must_use]
    pub fn undecided(why: &str) -> Self {
        let why = clean(why, "the cause is unknown");
        Self::Undecided(Reason(format!(
            "machineid: could not find out whether this agent may run, so the call is blocked: {why}"
        )))
    }
}

impl Reason {
    /// The reason as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Foreign text as a part of one line.
fn clean(text: &str, otherwise: &str) -> String {
    let text: String = printable(text, ' ').take(LONGEST).collect();
    let text = text.trim();
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_always_has_a_reason_in_one_line() {
        for text in ["", " \n", "\u{1b}[2J", "why\nnot", &"x".repeat(10_000)] {
            for verdict in [Verdict::denied(text), Verdict::undecided(text)] {
                let (Verdict::Denied(reason) | Verdict::Undecided(reason)) = verdict else { panic!("a no") };
                assert!(reason.as_str().len() > 40 && reason.as_str().len() < 1_000, "{reason}");
                assert!(
                    !reason.as_str().contains(|c: char| c.is_control()) && !reason.as_str().ends_with(": "),
                    "{reason}"
                );
            }
        }
    }
}
