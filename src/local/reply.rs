//! Answers on the local socket. Every body is a [`CheckAnswer`], so that whatever a client does not understand still reads
//! `"allowed": false`.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::clock::{self, BootTime};
use crate::gate::Verdict;
use crate::protocol::local::CheckAnswer;
use crate::protocol::{Code, Denial, DeviceId};

/// What a client is told to wait before it asks again, when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A no that has nothing to do with any device.
pub(super) fn refusal(status: StatusCode, code: Code, reason: impl Into<String>) -> Response {
    answer(status, CheckAnswer { reason: Some(reason.into()), ..bare(code, None) }, None)
}

/// A no about a device that no gate was asked for.
pub(super) fn denied(denial: Denial, device: DeviceId) -> Response {
    let Denial { code, request_id, reason } = denial;
    let status = status_of(&code);
    answer(status, CheckAnswer { request_id, reason, ..bare(code, Some(device)) }, None)
}

pub(super) async fn wrong_method() -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, Code::BadRequest, "this path takes another method")
}

/// The status that goes with a "no" of this code.
pub(super) fn status_of(code: &Code) -> StatusCode {
    use crate::protocol::code::CodeKind;
    match code.kind() {
        // The authority's own word for "could not find out".
        _ if *code == Code::SystemUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        CodeKind::Deny | CodeKind::Unknown | CodeKind::Allow => StatusCode::FORBIDDEN,
        CodeKind::Undecided => StatusCode::SERVICE_UNAVAILABLE,
        CodeKind::Malformed => StatusCode::BAD_REQUEST,
    }
}

/// A gate's verdict as the answer to a check.
pub(super) fn verdict(verdict: Verdict, device: Option<DeviceId>) -> Response {
    match verdict {
        Verdict::Allowed { grant, .. } => {
            let timed = timed(bare(grant.code, device), grant.confirmed_at);
            answer(StatusCode::OK, CheckAnswer { allowed: true, request_id: grant.request_id, ..timed }, None)
        }
        Verdict::Denied(refusal) => {
            let denial = refusal.denial;
            let status = status_of(&denial.code);
            let timed = timed(bare(denial.code, device), refusal.confirmed_at);
            answer(status, CheckAnswer { request_id: denial.request_id, reason: denial.reason, ..timed }, None)
        }
        Verdict::Undecided { code, cause, retry_after } => {
            let status = status_of(&code);
            answer(status, CheckAnswer { reason: Some(cause.to_string()), ..bare(code, device) }, retry_after)
        }
    }
}

fn bare(code: Code, device_id: Option<DeviceId>) -> CheckAnswer {
    CheckAnswer { allowed: false, code, request_id: None, device_id, validated_at: None, age_ms: None, reason: None }
}

fn timed(answer: CheckAnswer, confirmed_at: BootTime) -> CheckAnswer {
    let age = BootTime::now().saturating_since(confirmed_at);
    CheckAnswer {
        validated_at: Some(clock::wall_at(confirmed_at).to_string()),
        age_ms: Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        ..answer
    }
}

fn answer(status: StatusCode, body: CheckAnswer, retry_after: Option<Duration>) -> Response {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put("cache-control", "no-store");
    put("x-machineid-code", body.code.as_str());
    if let Some(request_id) = &body.request_id {
        put("x-machineid-request-id", request_id.as_str());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let wait = retry_after.unwrap_or(RETRY_AFTER);
        put(header::RETRY_AFTER.as_str(), &wait.as_secs().max(1).to_string());
    }
    (status, headers, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_no_has_its_status() {
        for (code, status) in [
            (Code::DeviceRevoked, 403),
            (Code::LocalKill, 403),
            (Code::RemoteRefused, 403),
            (Code::from("A_CODE_OF_TOMORROW"), 403),
            // The authority's deny, which a client reads as "could not find out".
            (Code::SystemUnavailable, 503),
            (Code::AuthorityUnreachable, 503),
            (Code::LeaseExpired, 503),
            (Code::Overloaded, 503),
            (Code::BadRequest, 400),
        ] {
            assert_eq!(status_of(&code).as_u16(), status, "{code}");
        }
    }
}
