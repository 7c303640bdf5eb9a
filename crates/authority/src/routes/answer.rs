//! The answer of a handler, before it gets a request id and is written.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use jiff::Timestamp;
use machineid_metrics as text;
use machineid_protocol::api::{KEY_ENDS_HEADER, KEY_ROLE_HEADER, UNDECIDED_HEADER};
use machineid_protocol::{Code, DeviceId, KeyRole};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::error;

use super::approvals;
use super::large::{LargeAnswer, Pieces};
use super::wire::DecisionBody;
use crate::decide::ValidationVerdict;
use crate::org::OrgId;
use crate::repeated::rarely;
use crate::store::StoreError;
use crate::unwritten::NotWritten;

/// An answer. [`super::finish`] adds its `request_id` and writes it, so that every answer has one.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    content: AnswerContent,
    /// For the access log: the decision or refusal code.
    pub(crate) code: Option<Code>,
    /// For the access log: the organisation of the request.
    pub(crate) org: Option<OrgId>,
    /// The value of `Retry-After`.
    again: Option<Duration>,
    /// No decision could be completed: the response also says so in a header.
    undecided: bool,
    /// The key was an old one, which ends at this time. Boxed, since few answers have it and an answer is often an
    /// error value.
    pub(crate) key_ends: Option<Box<Timestamp>>,
    /// The role of the key that a validation was asked with.
    pub(crate) key_role: Option<KeyRole>,
    /// Kept until the answer is sent, if it is large.
    held: Option<Arc<LargeAnswer>>,
}

/// The details of a decision besides the verdict.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The device asked about, when one was.
    pub(crate) device: Option<DeviceId>,
    /// The operator's reason for the revoke.
    pub(crate) said: Option<String>,
    /// The time of the revoke. A sidecar repeats it in its reports, which shows which revoke the sidecar knows.
    pub(crate) revoked_at: Option<Timestamp>,
    pub(crate) error: Option<&'static str>,
}

#[derive(Clone)]
enum AnswerContent {
    Json(Map<String, Value>),
    /// A JSON object as written, without the request id.
    Written(Vec<u8>),
    Html(String),
    /// A file of the console: its media type and content.
    File(&'static str, String),
    Metrics(String),
    /// JSON that is the same for every client.
    Document(&'static str),
    /// The body is already in the response, with this media type, and has no fixed length.
    Stream(&'static str),
}

impl fmt::Debug for AnswerContent {
    /// Formats without the content, which may be a new key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json(_) => "Json",
            Self::Written(_) => "Written",
            Self::Html(_) => "Html",
            Self::File(kind, _) | Self::Stream(kind) => kind,
            Self::Metrics(_) => "Metrics",
            Self::Document(_) => "Document",
        })
    }
}

impl Answer {
    fn new(status: StatusCode, content: AnswerContent) -> Self {
        Self {
            status,
            content,
            code: None,
            org: None,
            again: None,
            undecided: false,
            key_ends: None,
            key_role: None,
            held: None,
        }
    }

    /// What `body`, an object, says.
    pub(crate) fn of(status: StatusCode, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(written) => Self::new(status, AnswerContent::Written(written)),
            // No type of `wire` can fail; if one does, nothing is said that was not.
            Err(error) => {
                error!(%error, "an answer could not be written");
                Self::unavailable()
            }
        }
    }

    /// The same answer, with its organisation in the access log.
    pub(crate) fn to(mut self, org: OrgId) -> Self {
        self.org = Some(org);
        self
    }

    /// The same answer, as a large one that is under way until it is sent.
    pub(super) fn large(mut self, answer: LargeAnswer) -> Self {
        self.held = Some(Arc::new(answer));
        self
    }

    /// `{"status": word, "handler": handler}` with HTTP 200.
    pub(crate) fn ok(word: &str, handler: &str) -> Self {
        Self::json(StatusCode::OK).with("status", word).with("handler", handler)
    }

    /// `{"status":"error","error": error}`.
    pub(crate) fn error(status: StatusCode, error: &str) -> Self {
        Self::json(status).with("status", "error").with("error", error)
    }

    /// A malformed request.
    pub(crate) fn missing_params() -> Self {
        Self::error(StatusCode::BAD_REQUEST, "missing_params")
    }

    /// A page for a browser.
    pub(crate) fn html(status: StatusCode, page: String) -> Self {
        Self::new(status, AnswerContent::Html(page))
    }

    /// A file of the console.
    pub(crate) fn file(kind: &'static str, content: String) -> Self {
        let content = AnswerContent::File(kind, content);
        Self::new(StatusCode::OK, content)
    }

    /// Metrics.
    pub(crate) fn text(text: String) -> Self {
        Self::new(StatusCode::OK, AnswerContent::Metrics(text))
    }

    /// A document in JSON.
    pub(crate) fn document(text: &'static str) -> Self {
        Self::new(StatusCode::OK, AnswerContent::Document(text))
    }

    /// A refusal for too many requests.
    pub(crate) fn too_many(again: Duration) -> Self {
        Self::error(StatusCode::TOO_MANY_REQUESTS, "rate_limited").later(again)
    }

    /// The same answer as 429, with `Retry-After`.
    pub(crate) fn later(mut self, again: Duration) -> Self {
        self.status = StatusCode::TOO_MANY_REQUESTS;
        self.again = Some(again);
        self
    }

    /// Server-sent events, as long as `body` continues.
    pub(crate) fn event_stream(org: OrgId, body: Body) -> Response<Body> {
        Self::stream("text/event-stream", org, body)
    }

    /// A long answer that is streamed, with this media type.
    pub(crate) fn stream(kind: &'static str, org: OrgId, body: Body) -> Response<Body> {
        let content = AnswerContent::Stream(kind);
        let mut response = Self::new(StatusCode::OK, content).to(org).into_response();
        *response.body_mut() = body;
        response
    }

    fn json(status: StatusCode) -> Self {
        Self::new(status, AnswerContent::Json(Map::new()))
    }

    /// Adds a field. A page and an answer made from a type stay unchanged.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let AnswerContent::Json(fields) = &mut self.content {
            fields.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Adds a code, which also goes into the access log.
    pub(crate) fn with_code(mut self, code: Code) -> Self {
        self = self.with("code", code.as_str());
        self.code = Some(code);
        self
    }

    /// The answer to a validation.
    pub(crate) fn decision(verdict: ValidationVerdict, facts: Facts) -> Self {
        let (status, word, reason) = decision_words(verdict);
        let reason = match facts.said {
            Some(said) => Cow::Owned(format!("{}: {said}", reason.trim_end_matches('.'))),
            None => Cow::Borrowed(reason),
        };
        let code = verdict.code();
        let body = DecisionBody {
            allowed: verdict == ValidationVerdict::Allow,
            code: code.clone(),
            status: word,
            reason,
            handler: "devices/validate",
            device_id: facts.device,
            revoked_at: facts.revoked_at,
            error: facts.error,
        };
        Self { code: Some(code), ..Self::of(status, &body) }
    }

    /// No decision could be completed.
    pub(crate) fn unavailable_decision(device: Option<DeviceId>) -> Self {
        let facts = Facts { device, error: Some("system_unavailable"), ..Facts::default() };
        Self { undecided: true, ..Self::decision(ValidationVerdict::Unavailable, facts) }
    }

    /// The database cannot decide. Names one of the known reasons, and nothing of the database's own message.
    pub(crate) fn not_ready(error: &StoreError) -> Self {
        error!(%error, "not ready");
        match error {
            StoreError::Down
            | StoreError::Standby
            | StoreError::ReadOnly
            | StoreError::Superseded
            | StoreError::Unconfirmed
            | StoreError::Late
            | StoreError::Closed => Self::unavailable().with("reason", error.to_string()),
            StoreError::Sqlite(_)
            | StoreError::Postgres(_)
            | StoreError::Undone
            | StoreError::Corrupt(_)
            | StoreError::Unwritable { .. }
            | StoreError::Waits(_)
            | StoreError::NotApproved(_)
            | StoreError::KeyRefused(_)
            | StoreError::NoRoom { .. }
            | StoreError::OnlyStopped(_)
            | StoreError::StopsWait(_)
            | StoreError::NotHere => Self::unavailable(),
        }
    }

    /// The same answer about a stop that is in force and may not be written: then its status is 202.
    pub(crate) fn unless_written(mut self, unwritten: Option<&NotWritten>) -> Self {
        if unwritten.is_some() && self.status == StatusCode::OK {
            self.status = StatusCode::ACCEPTED;
        }
        self
    }

    /// The store failed, or was too slow.
    pub(crate) fn unavailable() -> Self {
        Self::error(StatusCode::SERVICE_UNAVAILABLE, "system_unavailable").with_code(Code::SystemUnavailable)
    }

    /// Writes the response, in addition to the headers that `response` already has.
    pub(crate) fn write(self, mut response: Response<Body>, request_id: &str) -> Response<Body> {
        let (kind, body) = match self.content {
            AnswerContent::Json(mut fields) => {
                fields.insert("request_id".to_owned(), request_id.into());
                ("application/json", Value::Object(fields).to_string().into_bytes())
            }
            AnswerContent::Written(body) => ("application/json", numbered(body, request_id)),
            AnswerContent::Document(text) => ("application/json", text.as_bytes().to_vec()),
            AnswerContent::Html(page) => ("text/html; charset=utf-8", page.into_bytes()),
            AnswerContent::File(kind, content) => (kind, content.into_bytes()),
            AnswerContent::Metrics(page) => (text::CONTENT_TYPE, page.into_bytes()),
            AnswerContent::Stream(kind) => {
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
                // A proxy that buffers an answer would delay every hint.
                headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
                return response;
            }
        };
        let headers = response.headers_mut();
        if let Some(again) = self.again {
            // In whole seconds, rounded up, so that a client does not retry too early.
            headers.insert(header::RETRY_AFTER, (again.as_secs() + 1).into());
        }
        if self.undecided {
            headers.insert(UNDECIDED_HEADER, HeaderValue::from_static("1"));
        }
        if let Some(ends) = self.key_ends.and_then(|ends| HeaderValue::from_str(&ends.to_string()).ok()) {
            headers.insert(KEY_ENDS_HEADER, ends);
        }
        if let Some(role) = self.key_role {
            headers.insert(KEY_ROLE_HEADER, HeaderValue::from_static(role.as_str()));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        *response.status_mut() = self.status;
        *response.body_mut() = match self.held {
            Some(held) => Body::new(Pieces::new(body, held)),
            None => Body::from(body),
        };
        response
    }
}

/// Adds the request id as the last field of the object.
fn numbered(mut object: Vec<u8>, request_id: &str) -> Vec<u8> {
    object.pop();
    if object.len() > 1 {
        object.push(b',');
    }
    // A request id is hex digits and hyphens.
    object.extend_from_slice(br#""request_id":""#);
    object.extend_from_slice(request_id.as_bytes());
    object.extend_from_slice(b"\"}");
    object
}

impl IntoResponse for Answer {
    /// The answer is passed as an extension: the body is written once the request id is known.
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Answer {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Waits(ref approval) => approvals::waits(approval, None),
            StoreError::NotApproved(refusal) => approvals::refused(refusal),
            StoreError::KeyRefused(refusal) => {
                Self::error(StatusCode::CONFLICT, refusal.as_str()).with("reason", refusal.to_string())
            }
            // What a client can do about these is no secret.
            StoreError::NoRoom { .. } | StoreError::StopsWait(_) => {
                rarely!(error, %error, "the store failed; the request is refused");
                Self::unavailable().with("reason", error.to_string())
            }
            StoreError::OnlyStopped(ref unwritten) => {
                rarely!(error, %error, "the store failed; only the stop was done");
                let answer = Self::unavailable().with("written", false).with("survivesRestart", unwritten.kept);
                answer.with("reason", error.to_string())
            }
            StoreError::Sqlite(_)
            | StoreError::Postgres(_)
            | StoreError::Undone
            | StoreError::Late
            | StoreError::Down
            | StoreError::Standby
            | StoreError::ReadOnly
            | StoreError::Superseded
            | StoreError::Unconfirmed
            | StoreError::Closed
            | StoreError::Corrupt(_)
            | StoreError::Unwritable { .. }
            | StoreError::NotHere => {
                rarely!(error, %error, "the store failed; the request is refused");
                Self::unavailable()
            }
        }
    }
}

/// The HTTP status of a decision, its legacy `status`, and its legacy `reason`, a sentence for users.
///
/// Whole decisions come with 200: the official templates replace the body of anything from 400 up.
fn decision_words(verdict: ValidationVerdict) -> (StatusCode, &'static str, &'static str) {
    match verdict {
        ValidationVerdict::Allow => (StatusCode::OK, "ok", "Execution is allowed."),
        ValidationVerdict::InvalidOrgKey => {
            (StatusCode::UNAUTHORIZED, "error", "The org key is missing or is not the key of any organisation.")
        }
        ValidationVerdict::NotPermitted => {
            (StatusCode::FORBIDDEN, "error", "The role of this org key may not validate, or not for this device.")
        }
        ValidationVerdict::OrgNotFound => (StatusCode::NOT_FOUND, "error", "The organisation of this key was deleted."),
        ValidationVerdict::InvalidDeviceId => {
            (StatusCode::BAD_REQUEST, "error", "The device id is missing or invalid.")
        }
        ValidationVerdict::OrgDisabled => {
            (StatusCode::OK, "denied", "Execution is switched off for the whole organisation.")
        }
        ValidationVerdict::PlanFrozen => (StatusCode::OK, "denied", "The organisation is frozen."),
        ValidationVerdict::EntitlementExpired => {
            (StatusCode::OK, "denied", "The organisation's plan entitlement is not active.")
        }
        ValidationVerdict::DeviceNotFound => {
            (StatusCode::OK, "denied", "The device is not registered, or was removed.")
        }
        ValidationVerdict::DeviceRevoked => (StatusCode::OK, "denied", "The device is revoked."),
        ValidationVerdict::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "error",
            "No authoritative decision could be completed. Treat this as a deny; you may ask again.",
        ),
        ValidationVerdict::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "error", "A device is validated with POST."),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::wire::{Health, Nothing, RefusalBody};
    use super::*;

    fn written(answer: Answer) -> Value {
        let response = answer.write(Response::new(Body::empty()), "id");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX);
        let body = futures_util::FutureExt::now_or_never(body).unwrap().unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn every_object_goes_out_with_its_request_id() {
        let health = Health { status: "ok".to_owned(), handler: "healthz".to_owned(), problems: Vec::new() };
        let expected = json!({"status": "ok", "handler": "healthz", "request_id": "id"});
        assert_eq!(written(Answer::of(StatusCode::OK, &health)), expected);
        assert_eq!(written(Answer::ok("ok", "healthz")), expected);
        assert_eq!(written(Answer::of(StatusCode::OK, &json!({}))), json!({"request_id": "id"}));
    }

    #[test]
    fn every_refusal_is_one_as_described() {
        for answer in [Answer::missing_params(), Answer::unavailable(), Answer::too_many(Duration::ZERO)] {
            serde_json::from_value::<RefusalBody>(written(answer)).unwrap();
        }
        serde_json::from_value::<Nothing>(json!({"x": 1})).unwrap();
    }

    #[test]
    fn only_an_allow_is_allowed_and_a_revoke_tells_why() {
        let facts = Facts { said: Some("gone mad".to_owned()), ..Facts::default() };
        let answer = written(Answer::decision(ValidationVerdict::DeviceRevoked, facts));
        assert_eq!(answer["reason"], "The device is revoked: gone mad");
        assert_eq!((&answer["allowed"], &answer["code"]), (&json!(false), &json!("DEVICE_REVOKED")));
        assert_eq!(written(Answer::decision(ValidationVerdict::Allow, Facts::default()))["allowed"], json!(true));
        assert_eq!(written(Answer::unavailable_decision(None))["allowed"], json!(false));
    }
}
