//! HTTP/1.1 on one connection, by hyper. A library that also keeps connections, follows redirects and repeats requests
//! would take half of the time that a strict check may take, and what it decides by itself is decided in
//! [`exchange`](super::exchange) here.

pub(super) mod connect;
mod names;
pub(super) mod pool;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use tokio_util::task::AbortOnDropHandle;

type Outgoing = Request<Full<Bytes>>;

/// Takes one request at a time. It closes when this is dropped, and with it what is under way.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Aborted, not left to end: it would first try to send what is left of a request, to a peer that may not read.
    task: AbortOnDropHandle<Result<(), hyper::Error>>,
}

/// An answer's head, and what follows it as it comes.
#[derive(Debug)]
pub(crate) struct Response {
    head: Parts,
    body: Incoming,
    connection: Connection,
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) error: hyper::Error,
    /// Nothing of it was sent.
    pub(crate) is_unsent: bool,
}

impl Connection {
    /// Speaks HTTP over this stream, in a task of the present runtime.
    pub(crate) async fn over<S>(stream: S) -> Result<Self, hyper::Error>
    where
        S: Read + Write + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::handshake(stream).await?;
        Ok(Self { sender, task: AbortOnDropHandle::new(tokio::spawn(connection)) })
    }

    /// Sends a request, and takes the head of its answer.
    pub(crate) async fn send(mut self, request: Outgoing) -> Result<Response, Unanswered> {
        if let Err(closed) = self.sender.ready().await {
            // Why, only the task knows.
            let error = match self.task.await {
                Ok(Err(error)) => error,
                Ok(Ok(())) | Err(_) => closed,
            };
            return Err(Unanswered { error, is_unsent: true });
        }
        match self.sender.try_send_request(request).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                Ok(Response { head, body, connection: self })
            }
            Err(mut refused) => {
                let is_unsent = refused.take_message().is_some();
                Err(Unanswered { error: refused.into_error(), is_unsent })
            }
        }
    }

    /// Whether the next request can go out now: the answer to the one before is whole, and so is that one.
    fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Response {
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// What comes next; `None` at the end. Safe to drop and call again.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = self.body.frame().await {
            // Trailers say nothing here.
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Everything that follows; `None` when that is longer than `limit` bytes, as soon as it is known to be.
    pub(crate) async fn body(&mut self, limit: usize) -> Result<Option<Vec<u8>>, hyper::Error> {
        let announced = self.body.size_hint().exact();
        if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
            return Ok(None);
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Ok(None);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }

    /// The headers, and the connection for the next request: only once everything has come.
    pub(crate) fn end(self) -> (HeaderMap, Connection) {
        (self.head.headers, self.connection)
    }
}
