//! What a handler answers with, before it has a request id and goes onto the wire.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::error;

use crate::authority::decide::Verdict;
use crate::authority::org::OrgId;
use crate::authority::plan::Account;
use crate::authority::store::StoreError;
use crate::protocol::{Code, DeviceId};

/// An answer. [`super::finish`] gives it its `request_id` and writes it, so that no answer can go without.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    content: Content,
    /// For the access log: the decision or refusal code.
    pub(super) code: Option<Code>,
    /// For the access log: whose request it was.
    pub(super) org: Option<OrgId>,
    /// When to come again.
    again: Option<Duration>,
}

#[derive(Clone)]
enum Content {
    Json(Map<String, Value>),
    Html(String),
    /// A file of the console's: its media type and what is in it.
    File(&'static str, String),
    Metrics(String),
    /// The body is in the response already, and goes on for as long as its reader likes.
    Events,
}

impl fmt::Debug for Content {
    /// Without what is in it: that may be a new key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json(_) => "Json",
            Self::Html(_) => "Html",
            Self::File(kind, _) => kind,
            Self::Metrics(_) => "Metrics",
            Self::Events => "Events",
        })
    }
}

impl Answer {
    /// `{"status": word, "handler": handler}` with HTTP 200.
    pub(super) fn ok(word: &str, handler: &str) -> Self {
        Self::json(StatusCode::OK).with("status", word).with("handler", handler)
    }

    /// `{"status":"error","error": error}`.
    pub(super) fn error(status: StatusCode, error: &str) -> Self {
        Self::json(status).with("status", "error").with("error", error)
    }

    /// A malformed request.
    pub(super) fn missing_params() -> Self {
        Self::error(StatusCode::BAD_REQUEST, "missing_params")
    }

    /// A page for a browser.
    pub(super) fn html(status: StatusCode, page: String) -> Self {
        Self { status, content: Content::Html(page), code: None, org: None, again: None }
    }

    /// A file of the console's.
    pub(super) fn file(kind: &'static str, content: String) -> Self {
        let content = Content::File(kind, content);
        Self { status: StatusCode::OK, content, code: None, org: None, again: None }
    }

    /// Metrics.
    pub(super) fn text(text: String) -> Self {
        Self { status: StatusCode::OK, content: Content::Metrics(text), code: None, org: None, again: None }
    }

    /// Too many of these.
    pub(super) fn too_many(again: Duration) -> Self {
        Self::error(StatusCode::TOO_MANY_REQUESTS, "rate_limited").later(again)
    }

    /// The same answer with 429, and when to come again.
    pub(super) fn later(mut self, again: Duration) -> Self {
        self.status = StatusCode::TOO_MANY_REQUESTS;
        self.again = Some(again);
        self
    }

    /// Server-sent events, for as long as `body` goes on.
    pub(super) fn event_stream(org: OrgId, body: Body) -> Response<Body> {
        let answer = Self { status: StatusCode::OK, content: Content::Events, code: None, org: Some(org), again: None };
        let mut response = answer.into_response();
        *response.body_mut() = body;
        response
    }

    fn json(status: StatusCode) -> Self {
        Self { status, content: Content::Json(Map::new()), code: None, org: None, again: None }
    }

    /// Adds a field. A page has none and stays as it is.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Content::Json(fields) = &mut self.content {
            fields.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Adds a code, which also goes into the access log.
    pub(super) fn with_code(mut self, code: Code) -> Self {
        self = self.with("code", code.as_str());
        self.code = Some(code);
        self
    }

    /// Adds the plan fields.
    pub(super) fn with_plan(mut self, account: &Account, now: Timestamp) -> Self {
        self.org = Some(account.org.id);
        if let Content::Json(fields) = &mut self.content {
            fields.extend(account.fields(now));
        }
        self
    }

    /// The answer to a validation.
    pub(super) fn decision(verdict: Verdict, device: Option<&DeviceId>, org: Option<OrgId>) -> Self {
        let (status, word, reason) = decision_words(verdict);
        let mut answer = Self::json(status)
            .with("handler", "devices/validate")
            .with("allowed", verdict == Verdict::Allow)
            .with("status", word)
            .with("reason", reason)
            .with("deviceId", device.map_or(Value::Null, |id| json!(id)))
            .with_code(verdict.code());
        answer.org = org;
        answer
    }

    /// Puts an operator's words behind those of the decision.
    pub(super) fn because(self, verdict: Verdict, said: &str) -> Self {
        let (_, _, reason) = decision_words(verdict);
        self.with("reason", format!("{}: {said}", reason.trim_end_matches('.')))
    }

    /// No decision could be completed.
    pub(super) fn unavailable_decision(device: Option<&DeviceId>) -> Self {
        Self::decision(Verdict::Unavailable, device, None).with("error", "system_unavailable")
    }

    /// The store failed, or was too slow.
    pub(super) fn unavailable() -> Self {
        Self::error(StatusCode::SERVICE_UNAVAILABLE, "system_unavailable").with_code(Code::SystemUnavailable)
    }

    /// The response as it goes onto the wire, on top of the headers that `response` has already.
    pub(super) fn write(self, mut response: Response<Body>, request_id: &str) -> Response<Body> {
        let (kind, body) = match self.content {
            Content::Json(mut fields) => {
                fields.insert("request_id".to_owned(), request_id.into());
                ("application/json", Value::Object(fields).to_string())
            }
            Content::Html(page) => ("text/html; charset=utf-8", page),
            Content::File(kind, content) => (kind, content),
            Content::Metrics(text) => ("application/openmetrics-text; version=1.0.0; charset=utf-8", text),
            Content::Events => {
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                // A proxy that collects an answer before it passes it on would keep every hint.
                headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
                return response;
            }
        };
        let headers = response.headers_mut();
        if let Some(again) = self.again {
            // In whole seconds, and never before there is one again.
            headers.insert(header::RETRY_AFTER, (again.as_secs() + 1).into());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        *response.status_mut() = self.status;
        *response.body_mut() = Body::from(body);
        response
    }
}

impl IntoResponse for Answer {
    /// Travels as an extension: the body is written when the request id is known.
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Answer {
    fn from(error: StoreError) -> Self {
        error!(%error, "the store failed; the request is refused");
        Self::unavailable()
    }
}

/// The HTTP status of a decision, its legacy `status`, and its legacy `reason`, a sentence for people.
///
/// Whole decisions come with 200: the official templates replace the body of anything from 400 up.
fn decision_words(verdict: Verdict) -> (StatusCode, &'static str, &'static str) {
    match verdict {
        Verdict::Allow => (StatusCode::OK, "ok", "Execution is allowed."),
        Verdict::InvalidOrgKey => {
            (StatusCode::UNAUTHORIZED, "error", "The org key is missing or is not the key of any organisation.")
        }
        Verdict::OrgNotFound => (StatusCode::NOT_FOUND, "error", "The organisation of this key was deleted."),
        Verdict::InvalidDeviceId => (StatusCode::BAD_REQUEST, "error", "The device id is missing or invalid."),
        Verdict::OrgDisabled => (StatusCode::OK, "denied", "Execution is switched off for the whole organisation."),
        Verdict::PlanFrozen => (StatusCode::OK, "denied", "The organisation is frozen."),
        Verdict::EntitlementExpired => (StatusCode::OK, "denied", "The organisation's plan entitlement is not active."),
        Verdict::DeviceNotFound => (StatusCode::OK, "denied", "The device is not registered, or was removed."),
        Verdict::DeviceRevoked => (StatusCode::OK, "denied", "The device is revoked."),
        Verdict::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "error",
            "No authoritative decision could be completed. Treat this as a deny; you may ask again.",
        ),
        Verdict::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "error", "A device is validated with POST."),
    }
}
