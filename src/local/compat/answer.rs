//! Verdicts in the format of the authority's API.
//!
//! A decision has the status that the authority would give it: 200 for a deny, since the official templates replace the body
//! of every status above 400 with one of their own, and 503 when no decision is available. Whatever the status, the body
//! contains `allowed`, which is true only for an ALLOW.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use machineid_protocol::api::UNDECIDED_HEADER;
use machineid_protocol::code::CodeKind;
use machineid_protocol::{Code, Denial, DeviceId, RequestId};
use serde_json::{Value, json};

use super::{CompatFinding, Endpoint};
use crate::gate::GateVerdict;

/// `Retry-After`, in seconds.
const RETRY_AFTER: &str = "1";

/// An answer before it is written.
struct Said<'a> {
    code: Code,
    request_id: Option<RequestId>,
    reason: Option<String>,
    device: Option<&'a DeviceId>,
}

pub(super) fn of(endpoint: Endpoint, finding: CompatFinding, device: &DeviceId) -> Response {
    let device = Some(device);
    let no = |code, request_id, reason| Said { code, request_id, reason, device };
    match finding {
        CompatFinding::Verdict(GateVerdict::Allowed { grant, .. }) => {
            let said = no(grant.code, grant.request_id, Some("Execution is allowed.".to_owned()));
            write(endpoint, &said, StatusCode::OK, true)
        }
        CompatFinding::Verdict(GateVerdict::Denied(refusal)) => denied(endpoint, refusal.denial, device),
        CompatFinding::Denied(denial) => denied(endpoint, denial, device),
        CompatFinding::Verdict(GateVerdict::Undecided { code, cause, .. }) => {
            let marked = code == Code::SystemUnavailable && endpoint == Endpoint::Validate;
            let said = no(code, None, Some(cause.to_string()));
            let mut response = write(endpoint, &said, StatusCode::SERVICE_UNAVAILABLE, false);
            if marked {
                // Marked as the authority marked it. A SYSTEM_UNAVAILABLE without the mark is a deny, and is passed on as a
                // deny.
                response.headers_mut().insert(UNDECIDED_HEADER, HeaderValue::from_static("1"));
            }
            response
        }
    }
}

fn denied(endpoint: Endpoint, denial: Denial, device: Option<&DeviceId>) -> Response {
    let Denial { code, request_id, reason, .. } = denial;
    let status = status_of(endpoint, &code);
    write(endpoint, &Said { code, request_id, reason, device }, status, false)
}

/// The answer when the key is not the token of a run.
pub(super) fn unknown_token(endpoint: Endpoint) -> Response {
    let reason = "This key is not the token of an agent that runs on this host.";
    bare(endpoint, Code::InvalidOrgKey, reason, StatusCode::UNAUTHORIZED, None)
}

/// The answer when the key is the token of a run, and the client is no process of that run's.
pub(super) fn foreign_token(endpoint: Endpoint) -> Response {
    let reason = "This key is the token of an agent, and is good only for processes that the agent has started.";
    bare(endpoint, Code::InvalidOrgKey, reason, StatusCode::UNAUTHORIZED, None)
}

/// The answer when the request has no device id.
pub(super) fn missing(endpoint: Endpoint) -> Response {
    bare(endpoint, Code::InvalidDeviceId, "The device id is missing.", StatusCode::BAD_REQUEST, Some("missing_params"))
}

/// The answer when the device id is invalid.
pub(super) fn invalid(endpoint: Endpoint) -> Response {
    bare(endpoint, Code::InvalidDeviceId, "The device id is invalid.", StatusCode::BAD_REQUEST, None)
}

/// The answer to a request for another server, or for a path that does not exist here.
pub(super) fn elsewhere(status: StatusCode, reason: &str) -> Response {
    bare(Endpoint::Validate, Code::BadRequest, reason, status, None)
}

fn bare(endpoint: Endpoint, code: Code, reason: &str, status: StatusCode, error: Option<&str>) -> Response {
    let said = Said { code, request_id: None, reason: Some(reason.to_owned()), device: None };
    write_with(endpoint, &said, status, false, error)
}

fn status_of(endpoint: Endpoint, code: &Code) -> StatusCode {
    match (code.kind(), endpoint) {
        (_, _) if *code == Code::SystemUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        (_, _) if *code == Code::RegistrationLimited => StatusCode::TOO_MANY_REQUESTS,
        (CodeKind::Undecided, _) => StatusCode::SERVICE_UNAVAILABLE,
        (_, _) if *code == Code::InvalidOrgKey => StatusCode::UNAUTHORIZED,
        (_, _) if *code == Code::OrgNotFound => StatusCode::NOT_FOUND,
        (CodeKind::Malformed, _) => StatusCode::BAD_REQUEST,
        (CodeKind::Allow | CodeKind::Deny | CodeKind::Unknown, Endpoint::Validate) => StatusCode::OK,
        (CodeKind::Allow | CodeKind::Deny | CodeKind::Unknown, Endpoint::Register) => StatusCode::FORBIDDEN,
    }
}

fn write(endpoint: Endpoint, said: &Said<'_>, status: StatusCode, allowed: bool) -> Response {
    write_with(endpoint, said, status, allowed, None)
}

fn write_with(endpoint: Endpoint, said: &Said<'_>, status: StatusCode, allowed: bool, error: Option<&str>) -> Response {
    let mut body = json!({
        // Clients rely on a request id. One that is generated here says so, so that no operator looks for it at the
        // authority.
        "request_id": said.request_id.as_ref().map_or_else(
            || format!("local-{}", uuid::Uuid::new_v4().hyphenated()),
            |id| id.as_str().to_owned(),
        ),
        "deviceId": said.device,
        "reason": said.reason,
        // On every answer: a client that understands nothing else reads this correctly.
        "allowed": allowed,
        "code": said.code.as_str(),
    });
    let (handler, word, error) = match endpoint {
        Endpoint::Validate => ("devices/validate", if allowed { "ok" } else { "denied" }, error),
        Endpoint::Register => {
            let (word, known) = registration(&said.code, allowed);
            ("devices/register", word, error.or(known))
        }
    };
    body["handler"] = handler.into();
    body["status"] = word.into();
    if let Some(error) = error {
        body["error"] = error.into();
    }
    respond(status, &said.code, body)
}

/// The `status` and `error` of a registration. An allowed device is registered: the daemon did that.
fn registration(code: &Code, allowed: bool) -> (&'static str, Option<&'static str>) {
    let known = [
        (Code::DeviceLimitReached, "blocked", "device_limit_reached"),
        (Code::DeviceRevoked, "revoked", "device_revoked"),
        (Code::InvalidOrgKey, "error", "invalid_org_key"),
        (Code::InvalidDeviceId, "error", "invalid_device_id"),
        (Code::SystemUnavailable, "error", "system_unavailable"),
    ];
    if allowed {
        return ("exists", None);
    }
    if let Some((_, word, error)) = known.iter().find(|(known, ..)| known == code) {
        return (word, Some(error));
    }
    match code.kind() {
        CodeKind::Undecided => ("error", Some("system_unavailable")),
        CodeKind::Allow | CodeKind::Deny | CodeKind::Unknown | CodeKind::Malformed => ("blocked", Some("denied")),
    }
}

fn respond(status: StatusCode, code: &Code, body: Value) -> Response {
    let mut response = (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
    if let Ok(value) = HeaderValue::from_str(code.as_str()) {
        response.headers_mut().insert(HeaderName::from_static("x-machineid-code"), value);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deny_comes_whole_and_what_could_not_be_found_out_as_503() {
        for (code, validate, register) in [
            (Code::DeviceRevoked, 200, 403),
            (Code::LocalKill, 200, 403),
            (Code::DeviceNotPermitted, 200, 403),
            (Code::from("A_CODE_OF_TOMORROW"), 200, 403),
            (Code::InvalidOrgKey, 401, 401),
            (Code::OrgNotFound, 404, 404),
            (Code::SystemUnavailable, 503, 503),
            (Code::AuthorityUnreachable, 503, 503),
            (Code::LeaseExpired, 503, 503),
        ] {
            assert_eq!(status_of(Endpoint::Validate, &code).as_u16(), validate, "{code}");
            assert_eq!(status_of(Endpoint::Register, &code).as_u16(), register, "{code}");
        }
    }

    #[test]
    fn a_registration_is_told_in_the_words_the_clients_know() {
        assert_eq!(registration(&Code::Allow, true), ("exists", None));
        assert_eq!(registration(&Code::DeviceLimitReached, false), ("blocked", Some("device_limit_reached")));
        assert_eq!(registration(&Code::DeviceRevoked, false), ("revoked", Some("device_revoked")));
        assert_eq!(registration(&Code::AuthorityUnreachable, false), ("error", Some("system_unavailable")));
    }
}
