//! One request and its answer, within one deadline and one size limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use reqwest::{Client, Response, Url};
use serde::de::DeserializeOwned;

use super::failure::{Cause, Failure, Refusal};
use super::retry_after;
use crate::protocol::api::{Envelope, KEY_HEADER};
use crate::protocol::decision::{Head, Unusable};
use crate::protocol::{Code, OrgKey};

/// Whether a request may be sent a second time when a pooled connection turns out to be dead.
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
    pub(super) body: Option<Vec<u8>>,
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
    /// The URL that gave it.
    url: Url,
}

/// The connections, and what is known of them.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Another one when its connections have been forgotten.
    http: RwLock<Client>,
    timeout: Duration,
    /// Whether the pool may hold a connection on which an answer came before, and which may have died since.
    pooled: AtomicBool,
}

impl Exchange {
    pub(super) const fn new(http: Client, timeout: Duration) -> Self {
        Self { http: RwLock::new(http), timeout, pooled: AtomicBool::new(false) }
    }

    /// Asks with this client from now on. The connections of the one before go with what is still asked on them.
    pub(super) fn replace(&self, http: Client) {
        *self.http.write().unwrap_or_else(PoisonError::into_inner) = http;
        self.pooled.store(false, Ordering::Relaxed);
    }

    /// Sends the question and reads the whole answer. One timeout covers everything, the second attempt included.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, Failure> {
        tokio::time::timeout(self.timeout, self.ask_untimed(question))
            .await
            .unwrap_or(Err(Failure::Timeout { after: self.timeout }))
    }

    async fn ask_untimed(&self, question: Question<'_>) -> Result<Answer, Failure> {
        let limit = question.limit;
        let url = question.url.clone();
        let response = match self.send(&question).await {
            // A server may close an idle connection in the moment a request goes out on it. That says nothing about the
            // authority, so it must not count as a failure; the HTTP library repeats by itself only what it had not begun
            // to send. Only once, and only where a dead connection can be the reason: an authority that resets
            // every request is not asked twice each time.
            Err(error)
                if question.repeat == Repeat::Harmless
                    && self.pooled.swap(false, Ordering::Relaxed)
                    && !error.is_connect()
                    && Cause::of(&error).closed_early =>
            {
                self.send(&question).await
            }
            first => first,
        };
        let response = response.map_err(|error| Failure::from_transport(error, self.timeout))?;
        let answer = self.read(response, url, limit).await?;
        self.pooled.store(true, Ordering::Relaxed);
        Ok(answer)
    }

    /// Sends the question and takes the answer's head. What follows it may go on for ever.
    pub(super) async fn begin(&self, question: Question<'_>) -> Result<(Response, Duration), Failure> {
        let sent = tokio::time::timeout(self.timeout, self.send(&question)).await;
        let response = sent.map_err(|_| Failure::Timeout { after: self.timeout })?;
        Ok((response.map_err(|error| Failure::from_transport(error, self.timeout))?, self.timeout))
    }

    /// What an answer says that is not the stream hoped for.
    pub(super) async fn refused(&self, response: Response) -> Failure {
        let url = response.url().clone();
        let read = tokio::time::timeout(self.timeout, self.read(response, url, super::SMALL_ANSWER)).await;
        match read.unwrap_or(Err(Failure::Timeout { after: self.timeout })) {
            Ok(answer) if answer.status == StatusCode::OK => answer.not_understood(),
            Ok(answer) => answer.refusal(),
            Err(failure) => failure,
        }
    }

    async fn send(&self, question: &Question<'_>) -> Result<Response, reqwest::Error> {
        let http = self.http.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut request =
            http.request(question.method.clone(), question.url.clone()).header(header::ACCEPT, "application/json");
        if let Some(key) = question.key {
            request = request.header(HeaderName::from_static(KEY_HEADER), key_header(key));
        }
        if let Some(body) = &question.body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.clone());
        }
        request.send().await
    }

    async fn read(&self, mut response: Response, url: Url, limit: usize) -> Result<Answer, Failure> {
        let too_large = Failure::TooLarge { limit };
        if response.content_length().is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit))
        {
            return Err(too_large);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::from_transport(error, self.timeout))? {
            if body.len() + chunk.len() > limit {
                return Err(too_large);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body, url })
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
