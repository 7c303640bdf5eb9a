//! How a run ended: the exit code, the line on stderr, and the status file's JSON.

use std::fmt::Write;

use machineid_protocol::{Code, Containment, DeviceId, Exit, RequestId, RunId};
use machineid_tree::StopSummary;
use serde::Serialize;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum EndCause {
    /// The command ended with an exit code.
    Exited,
    /// A signal ended the command.
    Signalled,
    /// Denied, before the start or while it ran.
    Denied,
    /// The lease ended.
    LeaseExpired,
    /// Whether the command may run could not be found out.
    CouldNotAsk,
    /// A signal ended the wrapper before the command was started.
    NotStarted,
    /// The command was not found or cannot be executed.
    CannotExecute,
    /// The wrapper itself failed, or asked a question that the daemon refuses.
    WrapperFailed,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunOutcome {
    pub(super) exit: Exit,
    pub(super) cause: EndCause,
    pub(super) code: Option<Code>,
    pub(super) request_id: Option<RequestId>,
    pub(super) reason: Option<String>,
    pub(super) signal: Option<i32>,
    /// Whether the command had been started.
    pub(super) started: bool,
}

impl RunOutcome {
    /// The command ended by itself.
    pub(super) fn of_command(exit: Exit) -> Self {
        let signal = match exit {
            Exit::Signal(signal) => Some(i32::from(signal)),
            Exit::Success
            | Exit::Failure
            | Exit::Usage
            | Exit::Blocked
            | Exit::Undecided
            | Exit::Denied
            | Exit::Wrapper
            | Exit::NotExecutable
            | Exit::NotFound
            | Exit::Command(_) => None,
        };
        let cause = if signal.is_some() { EndCause::Signalled } else { EndCause::Exited };
        Self { exit, cause, code: None, request_id: None, reason: None, signal, started: true }
    }

    /// Nothing was started; `reason` says why.
    pub(super) fn before_start(exit: Exit, cause: EndCause, reason: impl Into<String>) -> Self {
        Self { exit, cause, code: None, request_id: None, reason: Some(reason.into()), signal: None, started: false }
    }

    /// The command ran and was stopped.
    pub(super) const fn stopped(exit: Exit, cause: EndCause, code: Option<Code>) -> Self {
        Self { exit, cause, code, request_id: None, reason: None, signal: None, started: true }
    }

    /// The line for stderr; `None` when the command simply ended.
    pub(super) fn line(&self) -> Option<String> {
        let what = match (self.cause, self.started) {
            (EndCause::Exited | EndCause::Signalled, _) => return None,
            (EndCause::Denied, false) => "denied, nothing was started",
            (EndCause::LeaseExpired | EndCause::CouldNotAsk, false) => {
                "could not find out whether it may run, nothing was started"
            }
            (EndCause::Denied | EndCause::LeaseExpired | EndCause::CouldNotAsk, true) => "stopped",
            (EndCause::NotStarted, _) => "interrupted, nothing was started",
            (EndCause::CannotExecute, _) => "cannot execute the command",
            (EndCause::WrapperFailed, false) => "failed, nothing was started",
            (EndCause::WrapperFailed, true) => "failed",
        };
        let mut line = format!("machineid-run: {what}");
        if let Some(code) = &self.code {
            let _ = write!(line, ": {code}");
        }
        if let Some(id) = &self.request_id {
            let _ = write!(line, " (request_id {id})");
        }
        if let Some(reason) = &self.reason {
            let _ = write!(line, ": {}", printable(reason));
        }
        Some(line)
    }
}

/// Makes foreign text fit for a terminal: one line, no control characters, of bounded length.
pub(super) fn printable(text: &str) -> String {
    machineid_protocol::printable::printable(text, '?').take(500).collect()
}

/// The content of `--status-file`.
#[derive(Debug, Serialize)]
pub(super) struct StatusFile<'a> {
    run_id: RunId,
    device_id: Option<&'a DeviceId>,
    exit_code: u8,
    cause: EndCause,
    code: Option<&'a Code>,
    request_id: Option<&'a RequestId>,
    reason: Option<&'a str>,
    /// The signal that ended the command.
    signal: Option<i32>,
    /// How the tree was held together; null when nothing was started.
    containment: Option<Containment>,
    /// How many processes the wrapper sent the stop signal; 0 when the daemon did.
    signalled: usize,
    /// How many processes the wrapper sent SIGKILL.
    killed: usize,
    /// Milliseconds from the beginning of the stop to the last process gone; null without a stop, and when no process
    /// was left by the time the wrapper learnt of it.
    took_ms: Option<u64>,
    /// Processes that were left although SIGKILL was sent.
    survivors: Vec<SurvivorLine>,
}

#[derive(Debug, Serialize)]
struct SurvivorLine {
    pid: i32,
    reason: &'static str,
}

/// The status file's text.
pub(super) fn status_json(
    outcome: &RunOutcome,
    run_id: RunId,
    device_id: Option<&DeviceId>,
    containment: Option<Containment>,
    stop: Option<&StopSummary>,
) -> String {
    let survivors = stop.map_or(&[][..], |stop| &stop.survivors);
    let survivors = survivors
        .iter()
        .map(|survivor| SurvivorLine { pid: survivor.pid.as_raw(), reason: survivor.reason.in_words() })
        .collect();
    let status = StatusFile {
        run_id,
        device_id,
        exit_code: outcome.exit.code(),
        cause: outcome.cause,
        code: outcome.code.as_ref(),
        request_id: outcome.request_id.as_ref(),
        reason: outcome.reason.as_deref(),
        signal: outcome.signal,
        containment,
        signalled: stop.map_or(0, |stop| stop.signalled),
        killed: stop.map_or(0, |stop| stop.killed),
        took_ms: stop.map(|stop| u64::try_from(stop.took.as_millis()).unwrap_or(u64::MAX)),
        survivors,
    };
    // Strings and numbers only: nothing in it can fail to be written.
    serde_json::to_string(&status).map(|text| text + "\n").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_code_request_id_and_reason_and_nothing_that_moves_a_cursor() {
        let outcome = RunOutcome {
            exit: Exit::Denied,
            cause: EndCause::Denied,
            code: Some(Code::DeviceRevoked),
            request_id: RequestId::from_foreign("r-1"),
            reason: Some("by\n\u{1b}[2Jadmin".to_owned()),
            signal: None,
            started: true,
        };
        let line = outcome.line().unwrap();
        assert_eq!(line, "machineid-run: stopped: DEVICE_REVOKED (request_id r-1): by??[2Jadmin");
    }

    #[test]
    fn a_command_that_simply_ends_is_not_commented_on() {
        assert_eq!(RunOutcome::of_command(Exit::Command(3)).line(), None);
        assert_eq!(RunOutcome::of_command(Exit::Signal(9)).signal, Some(9));
    }
}
