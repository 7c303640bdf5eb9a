//! One request and its answer, within one deadline and one size limit.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use url::{Position, Url};

use super::connection::connect::Connector;
use super::connection::pool::Pool;
use super::connection::{Connection, Response};
use super::failure::{Cause, Failure, Lost, Refusal};
use super::retry_after;
use crate::protocol::api::{Envelope, KEY_HEADER, UNDECIDED_HEADER};
use crate::protocol::decision::{Head, Unusable};
use crate::protocol::{Code, OrgKey};

/// Whether a request may be sent a second time when a connection that was kept turns out to be dead. One that may not goes
/// out on a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is the same as once.
    Harmless,
    /// Twice is not the same as once.
    Never,
}

/// Where a request goes, ready for its first lines.
#[derive(Debug)]
pub(super) struct Target {
    url: Url,
    uri: Uri,
    host: HeaderValue,
}

/// What to send.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) target: Arc<Target>,
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
    target: Arc<Target>,
}

/// The connections to one authority.
#[derive(Debug)]
pub(super) struct Exchange {
    connector: Connector,
    /// Another one when its connections have been forgotten.
    pool: RwLock<Arc<Pool>>,
    user_agent: HeaderValue,
    timeout: Duration,
}

impl Exchange {
    pub(super) fn new(connector: Connector, user_agent: HeaderValue, timeout: Duration) -> Self {
        Self { connector, pool: RwLock::default(), user_agent, timeout }
    }

    /// Asks on new connections from now on. Those of before are closed once the requests that were begun are answered.
    pub(super) fn forget_connections(&self) {
        *self.pool.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    /// Fails on a URL that is too long for HTTP.
    pub(super) fn target(&self, url: Url) -> Result<Arc<Target>, Failure> {
        let target = Target::new(url, self.connector.is_forwarded());
        target.map(Arc::new).map_err(|error| Failure::Connect(Arc::new(error)))
    }

    /// Sends the question and reads the whole answer. One timeout covers everything, the second attempt included.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, Failure> {
        tokio::time::timeout(self.timeout, self.ask_untimed(question)).await.unwrap_or_else(|_| {
            // They may all have died without a word, and each would take another timeout to find that out.
            self.forget_connections();
            Err(Failure::Timeout { after: self.timeout })
        })
    }

    async fn ask_untimed(&self, question: Question<'_>) -> Result<Answer, Failure> {
        let pool = self.pool();
        let response = self.send(&pool, &question).await?;
        let (answer, connection) = self.read(response, question.target, question.limit).await?;
        // With these nothing may follow the head, and some servers send it nevertheless.
        if !matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            pool.put(connection);
        }
        Ok(answer)
    }

    /// Sends the question and takes the answer's head. What follows it may go on for ever.
    pub(super) async fn begin(&self, question: Question<'_>) -> Result<(Response, Duration), Failure> {
        let sent = tokio::time::timeout(self.timeout, self.send(&self.pool(), &question)).await;
        let response = sent.map_err(|_| Failure::Timeout { after: self.timeout })??;
        Ok((response, self.timeout))
    }

    /// What an answer says that is not the stream hoped for.
    pub(super) async fn refused(&self, response: Response, target: Arc<Target>) -> Failure {
        let read = tokio::time::timeout(self.timeout, self.read(response, target, super::SMALL_ANSWER)).await;
        match read.unwrap_or(Err(Failure::Timeout { after: self.timeout })) {
            Ok((answer, _)) if answer.status == StatusCode::OK => answer.not_understood(),
            Ok((answer, _)) => answer.refusal(),
            Err(failure) => failure,
        }
    }

    fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A server may close an idle connection in the moment a request goes out on it. That says nothing about the authority,
    /// so it must not count as a failure. The request is then repeated once, on a new connection: an authority that resets
    /// every request is not asked twice each time.
    async fn send(&self, pool: &Pool, question: &Question<'_>) -> Result<Response, Failure> {
        while question.repeat == Repeat::Harmless
            && let Some(kept) = pool.take()
        {
            match kept.send(self.request(question)).await {
                Ok(response) => return Ok(response),
                Err(unanswered) if unanswered.is_unsent => {}
                Err(unanswered) if Cause::of(&unanswered.error).closed_early => break,
                Err(unanswered) => return Err(self.lost(Lost::Answer(unanswered.error))),
            }
        }
        // Boxed: it is large, and seldom needed.
        let connection = Box::pin(self.connector.connect()).await;
        let connection = connection.map_err(|error| self.lost(Lost::Connection(error)))?;
        let sent = connection.send(self.request(question)).await;
        sent.map_err(|unanswered| self.lost(Lost::Answer(unanswered.error)))
    }

    fn request(&self, question: &Question<'_>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(question.body.clone().unwrap_or_default()));
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = question.target.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, question.target.host.clone());
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) = self.connector.authorization() {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        if let Some(key) = question.key {
            headers.insert(HeaderName::from_static(KEY_HEADER), key_header(key));
        }
        if question.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request
    }

    async fn read(
        &self,
        mut response: Response,
        target: Arc<Target>,
        limit: usize,
    ) -> Result<(Answer, Connection), Failure> {
        let body = response.body(limit).await.map_err(|error| self.lost(Lost::Answer(error)))?;
        let body = body.ok_or(Failure::TooLarge { limit })?;
        let status = response.status();
        let (headers, connection) = response.end();
        Ok((Answer { status, headers, body, target }, connection))
    }

    fn lost(&self, lost: Lost) -> Failure {
        Failure::of(lost, self.timeout)
    }
}

impl Target {
    /// `is_forwarded`: a proxy that passes requests on has to be told the whole of it.
    fn new(url: Url, is_forwarded: bool) -> Result<Self, http::Error> {
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort])?;
        let uri = if is_forwarded {
            url[..Position::AfterQuery].parse()?
        } else {
            Uri::from(url[Position::BeforePath..Position::AfterQuery].parse::<PathAndQuery>()?)
        };
        Ok(Self { url, uri, host })
    }
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
            let asked = &self.target.url;
            let target = self.headers.get(header::LOCATION).and_then(|to| asked.join(to.to_str().ok()?).ok());
            let origin = target.map(|to| to.origin()).filter(|to| *to != asked.origin());
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
        let error = error.or(status).map(|text| printable(&text));
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

fn printable(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
