//! What an answer that is no means for a run.

use machineid_protocol::code::CodeKind;
use machineid_protocol::{Code, Exit};

use super::event::Refusal;
use super::outcome::{Cause, Outcome};

/// What a no means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A decision against it.
    Denied,
    /// No decision could be had.
    Undecided,
    /// The question itself is refused: asking again is no use.
    Refused,
}

/// Reads it from the code, and for an unknown one from the status.
pub(super) fn verdict(refusal: &Refusal) -> Verdict {
    if matches!(refusal.code, Code::RemoteRefused | Code::PidNotPermitted) {
        return Verdict::Refused;
    }
    // The authority's own "I cannot tell": a deny, but one that says nothing about the device.
    if refusal.code == Code::SystemUnavailable {
        return Verdict::Undecided;
    }
    match refusal.code.kind() {
        CodeKind::Deny => Verdict::Denied,
        CodeKind::Malformed => Verdict::Refused,
        // A newer daemon's code: the status tells. 200 is a `stop` on a running stream.
        CodeKind::Unknown if matches!(refusal.status, 200 | 403) => Verdict::Denied,
        CodeKind::Undecided | CodeKind::Allow | CodeKind::Unknown => Verdict::Undecided,
    }
}

/// How a run that was refused or stopped for this reason ends.
pub(super) fn outcome_of(refusal: &Refusal, started: bool) -> Outcome {
    let (exit, cause) = match verdict(refusal) {
        Verdict::Denied => (Exit::Denied, Cause::Denied),
        Verdict::Undecided if refusal.code == Code::LeaseExpired => (Exit::Undecided, Cause::LeaseExpired),
        Verdict::Undecided => (Exit::Undecided, Cause::CouldNotAsk),
        Verdict::Refused if started => (Exit::Denied, Cause::Denied),
        Verdict::Refused => (Exit::Wrapper, Cause::WrapperFailed),
    };
    Outcome {
        exit,
        cause,
        code: Some(refusal.code.clone()),
        request_id: refusal.request_id.clone(),
        reason: refusal.reason.clone(),
        signal: None,
        started,
    }
}
