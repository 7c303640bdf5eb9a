//! One request and its answer, within one deadline and one size limit.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use machineid_org_key::OrgKey;
use machineid_protocol::Code;
use machineid_protocol::api::{Envelope, KEY_HEADER, UNDECIDED_HEADER};
use machineid_protocol::decision::{Head, Unusable};
use machineid_protocol::printable::printable;
use reqwest::{Client, Response};
use serde::de::DeserializeOwned;
use url::Url;

use super::connection::{Connections, outgoing};
use super::failure::{Cause, Failure, Refusal};
use super::retry_after;

/// Whether a request may be sent a second time when a connection that was kept turns out to be dead. One that may not goes
/// out on a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is the same as once.
    Harmless,
    /// Twice is not the same as once.
    Never,
}

/// What to send.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) key: Option<&'a OrgKey>,
    pub(super) body: Option<Bytes>,
    pub(super) repeat: Repeat,
    /// The longest answer taken, in bytes.
    pub(super) limit: usize,
}

/// A complete answer, of whatever status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// What gave it.
    url: Url,
}

/// Asks one authority.
#[derive(Debug)]
pub(super) struct Exchange {
    connections: Connections,
    timeout: Duration,
}

impl Exchange {
    pub(super) const fn new(connections: Connections, timeout: Duration) -> Self {
        Self { connections, timeout }
    }

    /// Asks on new connections from now on. The earlier ones are closed once the requests that were begun are answered.
    pub(super) fn forget_connections(&self) {
        self.connections.forget();
    }

    /// Sends the question and reads the whole answer. One timeout covers everything, the second attempt included.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, Failure> {
        tokio::time::timeout(self.timeout, self.ask_untimed(question)).await.unwrap_or_else(|_| {
            // The kept ones may all have died without a word, and each would take another timeout to find that out.
            self.forget_connections();
            Err(Failure::Timeout { after: self.timeout })
        })
    }

    async fn ask_untimed(&self, question: Question<'_>) -> Result<Answer, Failure> {
        if question.repeat == Repeat::Never {
            let response = self.send(self.connections.single(), &question).await?;
            return self.read(response, question.url, question.limit).await;
        }
        let mut kept = self.connections.kept();
        let response = match request(&kept.http, &question).send().await {
            // A server may close an idle connection in the moment a request goes out on it. That says nothing about the
            // authority, so it must not count as a failure. Only once, and only where a dead connection can be the reason: an
            // authority that resets every request is not asked twice each time.
            Err(error) if kept.may_hold_a_dead_one() && !error.is_connect() && Cause::of(&error).closed_early => {
                self.connections.forget_these(&kept);
                kept = self.connections.kept();
                self.send(&kept.http, &question).await?
            }
            first => first.map_err(|error| Failure::of(error, self.timeout))?,
        };
        let answer = self.read(response, question.url, question.limit).await?;
        if matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            // Nothing may follow the head of these. Some servers send it nevertheless, and it would be read as the next answer.
            self.connections.forget_these(&kept);
        }
        kept.note_answer();
        Ok(answer)
    }

    /// Sends the question on a connection of its own and takes the answer's head. What follows it may go on for ever.
    pub(super) async fn begin(&self, question: &Question<'_>) -> Result<Response, Failure> {
        let sent = tokio::time::timeout(self.timeout, self.send(self.connections.single(), question)).await;
        sent.unwrap_or(Err(Failure::Timeout { after: self.timeout }))
    }

    /// What an answer says that is not the stream hoped for.
    pub(super) async fn refused(&self, response: Response, question: Question<'_>) -> Failure {
        let read = tokio::time::timeout(self.timeout, self.read(response, question.url, question.limit)).await;
        match read.unwrap_or(Err(Failure::Timeout { after: self.timeout })) {
            Ok(answer) if answer.status == StatusCode::OK => answer.not_understood(),
            Ok(answer) => answer.refusal(),
            Err(failure) => failure,
        }
    }

    /// The next part of an answer; `None` at its end. Safe to drop and call again.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        response.chunk().await.map_err(|error| Failure::of(error, self.timeout))
    }

    async fn send(&self, http: &Client, question: &Question<'_>) -> Result<Response, Failure> {
        request(http, question).send().await.map_err(|error| Failure::of(error, self.timeout))
    }

    async fn read(&self, mut response: Response, url: Url, limit: usize) -> Result<Answer, Failure> {
        let body = body(&mut response, limit).await.map_err(|error| Failure::of(error, self.timeout))?;
        let body = body.ok_or(Failure::TooLarge { limit })?;
        Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body, url })
    }
}

fn request(http: &Client, question: &Question<'_>) -> reqwest::RequestBuilder {
    let mut request =
        http.request(question.method.clone(), question.url.clone()).header(header::ACCEPT, "application/json");
    if let Some(key) = question.key {
        request = request.header(HeaderName::from_static(KEY_HEADER), key_header(key));
    }
    if let Some(body) = &question.body {
        request = request.header(header::CONTENT_TYPE, "application/json").body(outgoing(body.clone()));
    }
    request
}

/// All of an answer's body; `None` when that is longer than `limit` bytes, as soon as it is known to be.
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

fn key_header(key: &OrgKey) -> HeaderValue {
    let mut value =
        HeaderValue::from_str(key.expose()).expect("an OrgKey is visible ASCII, which every header may hold");
    value.set_sensitive(true);
    value
}

impl Answer {
    /// What a decision depends on besides the body. A header that is there twice or is no text counts as a bad one.
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

    /// When the authority wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        retry_after::read(text(header::RETRY_AFTER)?, text(header::DATE))
    }

    /// What a status that carries neither decision nor explanation amounts to.
    pub(super) fn bare_status(&self) -> Failure {
        if self.status.is_redirection() {
            let target = self.headers.get(header::LOCATION).and_then(|to| self.url.join(to.to_str().ok()?).ok());
            let origin = target.map(|to| to.origin()).filter(|to| *to != self.url.origin());
            return Failure::Redirected { origin: origin.map(|origin| origin.ascii_serialization()) };
        }
        Failure::Status { status: self.status.as_u16(), retry_after: self.retry_after() }
    }

    /// The fields every answer of the API may have; none of them when the body is something else.
    pub(super) fn envelope(&self) -> Envelope {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the status says that the same request may succeed a little later.
    pub(super) fn is_passing(&self) -> bool {
        self.status.is_server_error() || matches!(self.status.as_u16(), 408 | 429)
    }

    /// The authority's words for a no that will stay one.
    pub(super) fn explanation(&self) -> Option<Refusal> {
        let Envelope { status, error, code, request_id, .. } = self.envelope();
        let explained = error.is_some() || code.is_some() || (status.is_some() && self.status.is_client_error());
        if self.is_passing() || !explained {
            return None;
        }
        let code = code.filter(|code| *code != Code::Allow);
        let error = error.or(status).map(|text| printable(&text, ' ').take(LONGEST).collect());
        Some(Refusal { status: self.status.as_u16(), error, code, request_id })
    }

    /// What this answer says when it is not the one hoped for.
    pub(super) fn refusal(&self) -> Failure {
        self.explanation().map_or_else(|| self.bare_status(), Failure::Refused)
    }

    /// Takes `"status":"ok"` for done.
    pub(super) fn accepted(&self) -> Result<(), Failure> {
        if self.status != StatusCode::OK {
            return Err(self.refusal());
        }
        let envelope = self.envelope();
        if envelope.error.is_some() {
            return Err(self.refusal());
        }
        // A page that happens to come with 200 must not read as "revoked".
        if envelope.status.is_some() { Ok(()) } else { Err(self.not_understood()) }
    }

    /// Reads a successful answer as what it should be.
    pub(super) fn typed<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if self.status != StatusCode::OK || self.envelope().error.is_some() {
            return Err(self.refusal());
        }
        serde_json::from_slice(&self.body).map_err(|_| self.not_understood())
    }

    /// What a successful answer without the right content is.
    pub(super) fn not_understood(&self) -> Failure {
        if serde_json::from_slice::<serde_json::Value>(&self.body).is_ok() {
            return Failure::Incomplete;
        }
        let json = self.only(&header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
        Failure::Unusable(if json { Unusable::Malformed } else { Unusable::NotJson })
    }
}

/// The longest explanation kept, in characters.
const LONGEST: usize = 120;
