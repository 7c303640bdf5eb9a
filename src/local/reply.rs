//! Answers on the local socket. Every body is a [`CheckAnswer`], so that a client that understands nothing else still reads
//! `"allowed": false`.
//!
//! [`CheckAnswer`]: machineid_protocol::local::CheckAnswer

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use machineid_clock::{self as clock, BootTime};
use machineid_protocol::{Code, Denial, DeviceId, RequestId};
use serde::Serialize;

use crate::gate::GateVerdict;
use crate::gate::standing::Grant;

/// `Retry-After` when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const CODE: HeaderName = HeaderName::from_static("x-machineid-code");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-machineid-request-id");
/// The initial capacity of a body, enough for most answers.
const ROOM: usize = 384;

/// A `CheckAnswer` that borrows its fields: it is written thousands of times a second, and nothing is copied for that.
#[derive(Clone, Copy, Debug, Serialize)]
struct Words<'a> {
    allowed: bool,
    code: &'a Code,
    request_id: Option<&'a RequestId>,
    device_id: Option<&'a DeviceId>,
    validated_at: Option<Timestamp>,
    age_ms: Option<u64>,
    reason: Option<&'a str>,
}

/// A refusal that concerns no device.
pub(super) fn refusal(status: StatusCode, code: Code, reason: impl AsRef<str>) -> Response<Body> {
    brief(status, code, reason.as_ref()).map(Body::from)
}

/// A refusal with the body type of a check.
#[expect(clippy::needless_pass_by_value, reason = "a code is named where it is refused")]
pub(super) fn brief(status: StatusCode, code: Code, reason: &str) -> Response<Bytes> {
    answer(status, &Words { reason: Some(reason), ..bare(&code, None) }, None)
}

/// A refusal as raw bytes, for connections that no HTTP server answers. Checks and wrappers both read it as a deny.
pub(super) fn raw(status: &str, code: &Code, reason: &str) -> Vec<u8> {
    let body = serde_json::to_string(&Words { reason: Some(reason), ..bare(code, None) }).unwrap_or_default();
    let body = body.replacen('{', "{\"event\":\"error\",", 1);
    let again = if status_of(code) == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\nx-machineid-code: {code}\r\n\
         {again}connection: close\r\n\r\n{body}\n"
    )
    .into_bytes()
}

/// A deny about a device for which no gate was asked.
pub(super) fn denied(denial: &Denial, device: &DeviceId) -> Response<Bytes> {
    let words = bare(&denial.code, Some(device));
    let words = Words { request_id: denial.request_id.as_ref(), reason: denial.reason.as_deref(), ..words };
    answer(status_of(&denial.code), &words, None)
}

pub(super) async fn wrong_method() -> Response<Body> {
    refusal(StatusCode::METHOD_NOT_ALLOWED, Code::BadRequest, "this path does not accept this method")
}

/// The HTTP status of a deny or error with this code.
pub(super) fn status_of(code: &Code) -> StatusCode {
    use machineid_protocol::code::CodeKind;
    match code.kind() {
        // The authority's own code for "no decision available".
        _ if *code == Code::SystemUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ if *code == Code::RegistrationLimited => StatusCode::TOO_MANY_REQUESTS,
        CodeKind::Deny | CodeKind::Unknown | CodeKind::Allow => StatusCode::FORBIDDEN,
        CodeKind::Undecided => StatusCode::SERVICE_UNAVAILABLE,
        CodeKind::Malformed => StatusCode::BAD_REQUEST,
    }
}

/// A gate's verdict as the answer to a check.
pub(super) fn verdict(verdict: &GateVerdict, device: Option<&DeviceId>) -> Response<Bytes> {
    match verdict {
        GateVerdict::Allowed { grant, .. } => {
            let timed = timed(bare(&grant.code, device), grant.confirmed_at);
            answer(StatusCode::OK, &Words { allowed: true, request_id: grant.request_id.as_ref(), ..timed }, None)
        }
        GateVerdict::Denied(refusal) => {
            let denial = &refusal.denial;
            let timed = timed(bare(&denial.code, device), refusal.confirmed_at);
            let words = Words { request_id: denial.request_id.as_ref(), reason: denial.reason.as_deref(), ..timed };
            answer(status_of(&denial.code), &words, None)
        }
        GateVerdict::Undecided { code, cause, retry_after } => {
            answer(status_of(code), &Words { reason: Some(cause), ..bare(code, device) }, *retry_after)
        }
    }
}

/// The answer to a check at this time: an ALLOW. The same ALLOW is sent thousands of times and differs only in its age: the
/// rest is serialized once for each thread and decision.
pub(super) fn allowed(grant: &Grant, device: &DeviceId, now: BootTime) -> Response<Bytes> {
    thread_local! {
        static NEWEST: RefCell<Option<Prepared>> = const { RefCell::new(None) };
    }
    NEWEST.with_borrow_mut(|newest| match newest {
        Some(prepared) if prepared.grant == *grant && prepared.device == *device => prepared.at(now),
        _ => match Prepared::of(grant, device) {
            Some(prepared) => newest.insert(prepared).at(now),
            None => verdict(&GateVerdict::Allowed { grant: grant.clone(), until: now }, Some(device)),
        },
    })
}

/// The text after the age.
const END: &str = ",\"reason\":null}";

/// The serialized answer of an ALLOW, without its age.
#[derive(Debug)]
struct Prepared {
    grant: Grant,
    device: DeviceId,
    headers: HeaderMap,
    start: Box<[u8]>,
}

impl Prepared {
    /// `None` when the serialized answer does not have the expected form: then it is serialized each time.
    fn of(grant: &Grant, device: &DeviceId) -> Option<Self> {
        let words = timed(bare(&grant.code, Some(device)), grant.confirmed_at);
        let words = Words { allowed: true, request_id: grant.request_id.as_ref(), age_ms: Some(0), ..words };
        let (parts, body) = answer(StatusCode::OK, &words, None).into_parts();
        let start = body.strip_suffix(END.as_bytes())?.strip_suffix(b"0")?.into();
        Some(Self { grant: grant.clone(), device: device.clone(), headers: parts.headers, start })
    }

    fn at(&self, now: BootTime) -> Response<Bytes> {
        let age_ms = now.saturating_since(self.grant.confirmed_at).as_millis();
        // The exact capacity, so that the buffer is passed on without a copy.
        let digits = age_ms.checked_ilog10().map_or(1, |log| log as usize + 1);
        let mut body = Vec::with_capacity(self.start.len() + digits + END.len());
        body.extend_from_slice(&self.start);
        // Writing to memory cannot fail. Half an answer would not be an ALLOW.
        let _ = write!(body, "{age_ms}{END}");
        let mut response = Response::new(Bytes::from(body));
        response.headers_mut().clone_from(&self.headers);
        response
    }
}

const fn bare<'a>(code: &'a Code, device_id: Option<&'a DeviceId>) -> Words<'a> {
    Words { allowed: false, code, request_id: None, device_id, validated_at: None, age_ms: None, reason: None }
}

fn timed(words: Words<'_>, confirmed_at: BootTime) -> Words<'_> {
    let age = BootTime::now().saturating_since(confirmed_at);
    Words {
        validated_at: Some(clock::wall_at(confirmed_at)),
        age_ms: Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        ..words
    }
}

fn answer(status: StatusCode, words: &Words<'_>, retry_after: Option<Duration>) -> Response<Bytes> {
    let mut body = Vec::with_capacity(ROOM);
    // Serialization cannot fail on these fields. If it did, an empty body would not be an ALLOW.
    if serde_json::to_writer(&mut body, words).is_err() {
        body.clear();
    }
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Codes and request ids are visible ASCII.
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(CODE, words.code.as_str());
    if let Some(request_id) = words.request_id {
        put(REQUEST_ID, request_id.as_str());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let wait = retry_after.unwrap_or(RETRY_AFTER);
        put(header::RETRY_AFTER, &wait.as_secs().max(1).to_string());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_protocol::local::CheckAnswer;

    #[test]
    fn what_is_written_is_a_check_answer_to_the_letter() {
        let device: DeviceId = "host:1".parse().unwrap();
        let request_id = RequestId::from_foreign("r-1");
        let words = Words {
            request_id: request_id.as_ref(),
            reason: Some("said \"so\"\n"),
            ..timed(bare(&Code::DeviceRevoked, Some(&device)), BootTime::default())
        };
        for words in [words, bare(&Code::BadRequest, None)] {
            let text = serde_json::to_string(&words).unwrap();
            let read: CheckAnswer = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
    }

    #[test]
    fn an_allow_that_is_given_again_is_the_same_but_for_its_age() {
        let at = BootTime::now();
        let devices: [DeviceId; 2] = ["host:1".parse().unwrap(), "host:2".parse().unwrap()];
        let grants = ["r-1", "r-2"].map(|id| Grant {
            code: Code::Allow,
            request_id: RequestId::from_foreign(id),
            confirmed_at: at,
        });
        for (grant, device) in grants.iter().flat_map(|grant| devices.iter().map(move |device| (grant, device))) {
            let whole = verdict(&GateVerdict::Allowed { grant: grant.clone(), until: at }, Some(device));
            for age_ms in [0, 9, 10, 99, 100, 12_345] {
                let again = allowed(grant, device, at + Duration::from_millis(age_ms));
                assert_eq!((again.status(), again.headers()), (whole.status(), whole.headers()));
                let [mut again, mut whole] =
                    [again.body(), whole.body()].map(|body| serde_json::from_slice::<CheckAnswer>(body).unwrap());
                assert_eq!(again.age_ms.take(), Some(age_ms));
                whole.age_ms = None;
                // Made from the wall clock as it is read.
                assert!(again.validated_at.take().is_some() && whole.validated_at.take().is_some());
                assert_eq!(again, whole);
            }
        }
    }

    #[test]
    fn what_no_server_writes_reads_as_a_no_to_everybody() {
        let text = String::from_utf8(raw("503 Service Unavailable", &Code::Overloaded, "full")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("retry-after: 1\r\n") && head.contains("x-machineid-code: OVERLOADED\r\n"), "{head}");
        let read: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&read["allowed"], &read["event"]), (&false.into(), &"error".into()));
        assert!(serde_json::from_str::<machineid_protocol::local::SuperviseEvent>(body).is_ok(), "{body}");
    }

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
