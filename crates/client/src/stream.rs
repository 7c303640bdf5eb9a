//! The event streams of an authority that offers them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use machineid_org_key::OrgKey;
use machineid_protocol::DeviceId;
use machineid_protocol::api::{EXTENSIONS_HEADER, path};
use machineid_protocol::decision::Unusable;
use reqwest::Response;
use serde_json::json;

use super::exchange::{Exchange, Question, Repeat};
use super::sse::{ServerSentEvent, SseReader};
use super::{AuthorityClient, Failure};

/// The authority's extensions of the service's API, as it announces them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// The authority offers streams of reasons to validate.
    pub watch: bool,
    /// The authority accepts reports.
    pub report: bool,
}

impl Extensions {
    /// Parses the announcement. Unknown words belong to other versions.
    pub(super) fn announced(headers: &HeaderMap) -> Self {
        let text = headers.get(EXTENSIONS_HEADER).and_then(|value| value.to_str().ok()).unwrap_or("");
        let says = |word: &str| text.split(',').any(|said| said.trim() == word);
        Self { watch: says("watch"), report: says("report") }
    }
}

/// An open stream.
#[derive(Debug)]
pub struct EventStream {
    exchange: Arc<Exchange>,
    response: Response,
    reader: SseReader,
    events: VecDeque<ServerSentEvent>,
}

impl EventStream {
    /// The next event; `None` at the end of the stream. May wait forever, so the caller needs a limit. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<ServerSentEvent>, Failure> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(chunk) = self.exchange.chunk(&mut self.response).await? else { return Ok(None) };
            let mut events = Vec::new();
            self.reader.take(&chunk, &mut events).map_err(|_| Failure::Unusable(Unusable::Malformed))?;
            self.events.extend(events);
        }
    }
}

impl AuthorityClient {
    /// Opens a stream of reasons to validate these devices, at most [`machineid_protocol::api::LARGEST_WATCH`]. The
    /// subscription is active once the first event, `ready`, has arrived.
    ///
    /// Fails with a [`Failure`] when the authority refuses, cannot be asked, or gives another answer.
    pub async fn watch(&self, key: &OrgKey, devices: &[DeviceId]) -> Result<EventStream, Failure> {
        let body = json!({ "deviceIds": devices }).to_string().into_bytes();
        self.open(Method::POST, path::WATCH, key, Some(body)).await
    }

    /// Opens a stream of changed devices of the organisation. It is active once the first event, `ready`, has arrived.
    ///
    /// Fails like [`Self::watch`].
    pub async fn changes(&self, key: &OrgKey) -> Result<EventStream, Failure> {
        self.open(Method::GET, path::EVENTS, key, None).await
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        key: &OrgKey,
        body: Option<Vec<u8>>,
    ) -> Result<EventStream, Failure> {
        let question = Question {
            sidecar: None,
            method,
            url: self.base_url().endpoint(path),
            key: Some(key),
            body: body.map(Bytes::from),
            repeat: Repeat::Never,
            limit: super::SMALL_ANSWER,
        };
        let response = self.exchange.begin(&question).await?;
        let is_stream = response.headers().get(http::header::CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str()
                .is_ok_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/event-stream"))
        });
        if response.status() != StatusCode::OK || !is_stream {
            return Err(self.exchange.refused(response, question).await);
        }
        Ok(EventStream {
            exchange: Arc::clone(&self.exchange),
            response,
            reader: SseReader::default(),
            events: VecDeque::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_announced_is_there() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(EXTENSIONS_HEADER, text.parse().unwrap());
            Extensions::announced(&headers)
        };
        assert_eq!(Extensions::announced(&HeaderMap::new()), Extensions::default());
        assert_eq!(of("watch, report"), Extensions { watch: true, report: true });
        assert_eq!(of("teleport,report"), Extensions { watch: false, report: true });
        assert_eq!(of("watchdog"), Extensions::default());
    }
}
