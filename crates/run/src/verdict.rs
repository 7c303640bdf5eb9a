//! What a negative answer means for a run.

use machineid_protocol::code::CodeKind;
use machineid_protocol::{Code, Exit};

use super::event::DaemonRefusal;
use super::outcome::{EndCause, RunOutcome};

/// The meaning of a negative answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// A decision against it.
    Denied,
    /// No decision was available.
    Undecided,
    /// The question itself is refused: asking again is of no use.
    Refused,
}

/// Classifies an answer by its code, and an unknown code by the status.
pub(super) fn verdict(refusal: &DaemonRefusal) -> RefusalKind {
    if matches!(refusal.code, Code::RemoteRefused | Code::PidNotPermitted) {
        return RefusalKind::Refused;
    }
    // The authority could not decide. It is a deny, but one that says nothing about the device.
    if refusal.code == Code::SystemUnavailable {
        return RefusalKind::Undecided;
    }
    match refusal.code.kind() {
        CodeKind::Deny => RefusalKind::Denied,
        CodeKind::Malformed => RefusalKind::Refused,
        // A code of a newer daemon: the status tells. 200 stands for a `stop` on a running stream.
        CodeKind::Unknown if matches!(refusal.status, 200 | 403) => RefusalKind::Denied,
        CodeKind::Undecided | CodeKind::Allow | CodeKind::Unknown => RefusalKind::Undecided,
    }
}

/// The outcome of a run that was refused or stopped with this answer.
pub(super) fn outcome_of(refusal: &DaemonRefusal, started: bool) -> RunOutcome {
    let (exit, cause) = match verdict(refusal) {
        RefusalKind::Denied => (Exit::Denied, EndCause::Denied),
        RefusalKind::Undecided if refusal.code == Code::LeaseExpired => (Exit::Undecided, EndCause::LeaseExpired),
        RefusalKind::Undecided => (Exit::Undecided, EndCause::CouldNotAsk),
        RefusalKind::Refused if started => (Exit::Denied, EndCause::Denied),
        RefusalKind::Refused => (Exit::Wrapper, EndCause::WrapperFailed),
    };
    RunOutcome {
        exit,
        cause,
        code: Some(refusal.code.clone()),
        request_id: refusal.request_id.clone(),
        reason: refusal.reason.clone(),
        signal: None,
        started,
    }
}
