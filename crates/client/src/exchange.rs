//! One request and its answer, within one deadline and one size limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use machineid_org_key::OrgKey;
use machineid_org_key::sidecar::SidecarSecret;
use machineid_protocol::Code;
use machineid_protocol::api::{Envelope, KEY_HEADER, SIDECAR_HEADER, UNDECIDED_HEADER};
use machineid_protocol::decision::{Head, Unusable};
use machineid_protocol::printable::printable;
use reqwest::Response;
use serde::de::DeserializeOwned;
use url::Url;

use super::connection::{Connections, HttpClient, outgoing};
use super::failure::{Failure, Refusal, SendError, Waiting};
use super::retry_after;

/// Whether a request may be sent again when a kept connection turns out to be dead. A request that may not is sent on a
/// new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Sending it twice has the same effect as once.
    Harmless,
    /// Sending it twice has another effect than once.
    Never,
}

/// A request to send.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) key: Option<&'a OrgKey>,
    /// The secret of the sidecar that asks, where the request proves which one it is.
    pub(super) sidecar: Option<&'a SidecarSecret>,
    pub(super) body: Option<Bytes>,
    pub(super) repeat: Repeat,
    /// The maximum size of the answer, in bytes.
    pub(super) limit: usize,
}

/// A complete answer, with any status.
#[derive(Debug)]
pub(super) struct RawAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The URL that gave the answer.
    url: Url,
}

/// Sends requests to one authority.
#[derive(Debug)]
pub(super) struct Exchange {
    connections: Connections,
    timeout: Duration,
}

impl Exchange {
    pub(super) const fn new(connections: Connections, timeout: Duration) -> Self {
        Self { connections, timeout }
    }

    /// Uses new connections from now on. The old ones are closed when their requests have been answered.
    pub(super) fn forget_connections(&self) {
        self.connections.forget();
    }

    /// Sends the request and reads the whole answer. One timeout covers everything, including a second attempt.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<RawAnswer, Failure> {
        tokio::time::timeout(self.timeout, self.ask_untimed(question)).await.unwrap_or_else(|_| {
            // All kept connections may have died silently, and each would take another timeout to show it.
            self.forget_connections();
            Err(Failure::Timeout { after: self.timeout })
        })
    }

    async fn ask_untimed(&self, question: Question<'_>) -> Result<RawAnswer, Failure> {
        if question.repeat == Repeat::Never {
            let response = self.send(self.connections.single(), &question).await?;
            return self.read(response, question.url, question.limit).await;
        }
        let mut kept = self.connections.kept();
        let response = match kept.http.send(self.request(&question)?).await {
            // A server may close an idle connection at the moment when a request is sent on it. That says nothing about
            // the authority, so it must not count as a failure. The request is repeated only once, and only if a dead
            // connection can be the reason: an authority that resets every request is not asked twice each time.
            Err(error) if kept.may_hold_a_dead_one() && error.may_be_a_dead_connection() => {
                self.connections.forget_these(&kept);
                kept = self.connections.kept();
                self.send(&kept.http, &question).await?
            }
            first => first.map_err(|error| error.classified(self.timeout))?,
        };
        let answer = self.read(response, question.url, question.limit).await?;
        if matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            // These answers have no body. Some servers send one anyway, and it would be read as the next answer.
            self.connections.forget_these(&kept);
        }
        kept.note_answer();
        Ok(answer)
    }

    /// Sends the request on its own connection and reads the head of the answer. The body may continue forever.
    pub(super) async fn begin(&self, question: &Question<'_>) -> Result<Response, Failure> {
        let sent = tokio::time::timeout(self.timeout, self.send(self.connections.single(), question)).await;
        sent.unwrap_or(Err(Failure::Timeout { after: self.timeout }))
    }

    /// The failure of an answer that is not the expected stream.
    pub(super) async fn refused(&self, response: Response, question: Question<'_>) -> Failure {
        let read = tokio::time::timeout(self.timeout, self.read(response, question.url, question.limit)).await;
        match read.unwrap_or(Err(Failure::Timeout { after: self.timeout })) {
            Ok(answer) if answer.status == StatusCode::OK => answer.not_understood(),
            Ok(answer) => answer.refusal(),
            Err(failure) => failure,
        }
    }

    /// The next part of an answer; `None` at its end. Cancel-safe.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        response.chunk().await.map_err(|error| SendError::from(error).classified(self.timeout))
    }

    async fn send(&self, http: &HttpClient, question: &Question<'_>) -> Result<Response, Failure> {
        http.send(self.request(question)?).await.map_err(|error| error.classified(self.timeout))
    }

    /// The request. Fails when the URL is too long for HTTP.
    fn request(&self, question: &Question<'_>) -> Result<http::Request<reqwest::Body>, Failure> {
        let mut request = http::Request::builder()
            .method(question.method.clone())
            .uri(question.url.as_str())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, self.connections.user_agent());
        if let Some(key) = question.key {
            request = request.header(HeaderName::from_static(KEY_HEADER), secret_header(key.expose()));
        }
        if let Some(secret) = question.sidecar {
            request = request.header(HeaderName::from_static(SIDECAR_HEADER), secret_header(secret.expose()));
        }
        let body = question.body.clone().map(outgoing);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(body.unwrap_or_default()).map_err(|error| Failure::Connect(Arc::new(error)))
    }

    async fn read(&self, mut response: Response, url: Url, limit: usize) -> Result<RawAnswer, Failure> {
        let body = body(&mut response, limit).await.map_err(|error| SendError::from(error).classified(self.timeout))?;
        let body = body.ok_or(Failure::TooLarge { limit })?;
        Ok(RawAnswer { status: response.status(), headers: std::mem::take(response.headers_mut()), body, url })
    }
}

/// The whole body of an answer; `None` as soon as it is known to be longer than `limit` bytes.
pub async fn body(response: &mut Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let announced = response.content_length();
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

fn secret_header(secret: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(secret).expect("secrets are visible ASCII, which every header may hold");
    value.set_sensitive(true);
    value
}

impl RawAnswer {
    /// The headers that a decision depends on. A header that occurs twice or is not text counts as an invalid one.
    pub(super) fn head(&self) -> Head<'_> {
        Head {
            status: self.status.as_u16(),
            content_type: self.only(&header::CONTENT_TYPE),
            content_encoding: self.only(&header::CONTENT_ENCODING),
            age: self.only(&header::AGE),
            undecided: self.only(&HeaderName::from_static(UNDECIDED_HEADER)),
        }
    }

    fn only(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        if values.next().is_some() {
            return Some("?");
        }
        Some(first.to_str().unwrap_or("?"))
    }

    /// The delay requested by `Retry-After`.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        retry_after::read(text(header::RETRY_AFTER)?, text(header::DATE))
    }

    /// The failure for a status with neither a decision nor an explanation.
    pub(super) fn bare_status(&self) -> Failure {
        if self.status.is_redirection() {
            let target = self.headers.get(header::LOCATION).and_then(|to| self.url.join(to.to_str().ok()?).ok());
            let origin = target.map(|to| to.origin()).filter(|to| *to != self.url.origin());
            return Failure::Redirected { origin: origin.map(|origin| origin.ascii_serialization()) };
        }
        let reason = self.envelope().reason.map(|text| printable(&text, ' ').take(LONGEST_REASON).collect());
        Failure::Status { status: self.status.as_u16(), retry_after: self.retry_after(), reason }
    }

    /// The fields that every answer of the API may have; all are absent if the body is something else.
    pub(super) fn envelope(&self) -> Envelope {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the status says that the same request may succeed a little later.
    pub(super) fn is_passing(&self) -> bool {
        self.status.is_server_error() || matches!(self.status.as_u16(), 408 | 429)
    }

    /// The authority's explanation of a permanent refusal.
    pub(super) fn explanation(&self) -> Option<Refusal> {
        let Envelope { status, error, code, request_id, reason, approval_id, expires_at, .. } = self.envelope();
        let explained = error.is_some() || code.is_some() || (status.is_some() && self.status.is_client_error());
        if self.is_passing() || !explained {
            return None;
        }
        let code = code.filter(|code| *code != Code::Allow);
        let shown = |text: String, longest| printable(&text, ' ').take(longest).collect();
        let error = error.or(status).map(|text| shown(text, LONGEST));
        let reason = reason.map(|text| shown(text, LONGEST_REASON));
        let waits = approval_id.map(|id| {
            Box::new(Waiting {
                approval_id: shown(id, LONGEST),
                expires_at: expires_at.map(|at| shown(at, LONGEST)),
                reason: reason.clone(),
            })
        });
        Some(Refusal { status: self.status.as_u16(), error, code, request_id, reason, waits })
    }

    /// The failure for an answer that is not the expected one.
    pub(super) fn refusal(&self) -> Failure {
        self.explanation().map_or_else(|| self.bare_status(), Failure::Refused)
    }

    /// Whether what was asked for is done. 202 means that a stop is in force, and not in the authority's database yet.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.status, StatusCode::OK | StatusCode::ACCEPTED)
    }

    /// What the authority says about a stop that is not in its database yet.
    pub(super) fn notice(&self) -> Option<String> {
        self.envelope().notice.map(|text| printable(&text, ' ').take(LONGEST_REASON).collect())
    }

    /// Accepts only `"status":"ok"` as success.
    pub(super) fn accepted(&self) -> Result<(), Failure> {
        if !self.is_done() {
            return Err(self.refusal());
        }
        let envelope = self.envelope();
        if envelope.error.is_some() {
            return Err(self.refusal());
        }
        // A page that happens to have status 200 must not be taken for "revoked".
        if envelope.status.is_some() { Ok(()) } else { Err(self.not_understood()) }
    }

    /// Decodes a successful answer.
    pub(super) fn typed<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if !self.is_done() || self.envelope().error.is_some() {
            return Err(self.refusal());
        }
        serde_json::from_slice(&self.body).map_err(|_| self.not_understood())
    }

    /// The failure for a successful answer without the right content.
    pub(super) fn not_understood(&self) -> Failure {
        if serde_json::from_slice::<serde_json::Value>(&self.body).is_ok() {
            return Failure::Incomplete;
        }
        let json = self.only(&header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
        Failure::Unusable(if json { Unusable::Malformed } else { Unusable::NotJson })
    }
}

/// The maximum length of a stored explanation, in characters.
const LONGEST: usize = 120;

/// The longest sentence of a refusal that is kept, in characters.
const LONGEST_REASON: usize = 300;
