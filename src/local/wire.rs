//! The bytes of one connection, below hyper: time limits for the client, and bodies for errors that hyper sends without one.
//!
//! hyper has its own timeout for heads. It creates and registers a timer for every request, which costs a cached check a
//! tenth of its time, and it closes the connection without an answer. Here, one clock reading per request and one timer per
//! connection are enough.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use machineid_clock::BootTime;
use machineid_protocol::Code;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::reply;
use super::server::NO_PLACE;

/// Time for a request's head, and again for its body.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason sent to a client that closes its sending side before it has its answer.
const HALF_CLOSED: &str = "the client closed its sending side before the answer came; keep it open until then (nc without -N; \
                           socat with -t 10)";

/// The time limit of a connection's client, shared by the connection and its server task.
#[derive(Debug)]
pub(super) struct Patience {
    /// Since when a request from the client is due, in milliseconds of the boot clock; 0 while a request is being answered.
    since: AtomicU64,
    /// Whether a part of the request has arrived.
    begun: AtomicBool,
    expired: AtomicBool,
    /// Whether the connection has lost its place while it was idle.
    displaced: AtomicBool,
}

impl Patience {
    pub(super) fn new() -> Arc<Self> {
        let since = AtomicU64::new(BootTime::now().as_millis().max(1));
        Arc::new(Self {
            since,
            begun: AtomicBool::new(false),
            expired: AtomicBool::default(),
            displaced: AtomicBool::default(),
        })
    }

    /// Notes that a request's head is complete: the daemon acts next.
    pub(super) fn head_came(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.begun.store(false, Ordering::Relaxed);
    }

    /// Since when a request from the client is due; `None` while one is being answered.
    pub(super) fn idle_since(&self) -> Option<u64> {
        Some(self.since.load(Ordering::Relaxed)).filter(|since| *since != 0)
    }

    /// Notes that the connection is closed for the sake of another.
    pub(super) fn displace(&self) {
        self.displaced.store(true, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.begun.store(false, Ordering::Relaxed);
        self.since.store(BootTime::now().as_millis().max(1), Ordering::Relaxed);
    }

    /// The time until the next look; `None` when the client has exceeded its time.
    pub(super) fn left(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            return Some(REQUEST_TIMEOUT);
        }
        let waited = BootTime::now().saturating_since(BootTime::from_millis(since));
        // One millisecond more, since `since` was rounded down.
        let left = (REQUEST_TIMEOUT + Duration::from_millis(1)).checked_sub(waited);
        if left.is_none() {
            self.expired.store(true, Ordering::Relaxed);
        }
        left
    }
}

/// The connection as hyper reads and writes it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    patience: Arc<Patience>,
    /// Whether a part of the answer to the newest request has been written.
    spoke: bool,
}

impl Wire {
    pub(super) const fn new(stream: UnixStream, patience: Arc<Patience>) -> Self {
        Self { stream, patience, spoke: false }
    }

    /// Tells a client that has closed its sending side while its request is answered. hyper drops the request then: that is how
    /// the end of a wrapper is noticed. A client that is gone altogether has no use for the words, and the kernel refuses them.
    fn half_closed(&mut self) {
        if !self.spoke && self.patience.idle_since().is_none() {
            self.spoke = true;
            let _ = self.stream.try_write(&reply::raw("400 Bad Request", &Code::BadRequest, HALF_CLOSED));
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Patience { begun, expired, displaced, .. } = &*self.patience;
        // An idle connection is closed without an answer: the client would read one as the answer to its next request.
        if !begun.load(Ordering::Relaxed) {
            return;
        }
        if displaced.load(Ordering::Relaxed) {
            let _ = self.stream.try_write(&reply::raw("503 Service Unavailable", &Code::Overloaded, NO_PLACE));
        } else if expired.load(Ordering::Relaxed) {
            let _ = self.stream.try_write(&reply::raw(
                "408 Request Timeout",
                &Code::BadRequest,
                "the request did not arrive in time",
            ));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, has_room) = (buf.filled().len(), buf.remaining() > 0);
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.patience.begun.store(true, Ordering::Relaxed);
            self.spoke = false;
        } else if has_room && matches!(read, Poll::Ready(Ok(()))) {
            self.half_closed();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match own_words(buf) {
            None => {
                self.spoke = true;
                Pin::new(&mut self.stream).poll_write(cx, buf)
            }
            Some(words) => {
                // A few hundred bytes, the last ones of the connection: a client without room for them does not read.
                let _ = self.stream.try_write(&words);
                Poll::Ready(Ok(buf.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Not vectored: hyper then writes head and body in one piece, and answers are short.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        self.poll_write(cx, first)
    }
}

/// Returns the answer to send instead of an error that hyper generated. Such an error has no body, while the daemon's own
/// answers with these statuses always have one. Every answer that a client does not understand must contain
/// `"allowed":false`.
fn own_words(answer: &[u8]) -> Option<Vec<u8>> {
    let status = answer.strip_prefix(b"HTTP/1.1 4")?;
    let empty = b"content-length: 0\r\n";
    if !status.windows(empty.len()).any(|window| window == empty) {
        return None;
    }
    Some(match status.get(..2)? {
        b"31" => reply::raw(
            "431 Request Header Fields Too Large",
            &Code::BadRequest,
            "the head of the request is longer than 8 KiB",
        ),
        b"14" => reply::raw("414 URI Too Long", &Code::BadRequest, "the path of the request is too long"),
        _ => reply::raw("400 Bad Request", &Code::BadRequest, "the request is not HTTP/1.1"),
    })
}

/// The body of an answer. When it is dropped, the client's time limit starts again.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Either,
    patience: Arc<Patience>,
}

#[derive(Debug)]
enum Either {
    /// The whole body, not yet taken.
    Whole(Bytes),
    Stream(Body),
}

impl AnswerBody {
    pub(super) const fn whole(body: Bytes, patience: Arc<Patience>) -> Self {
        Self { body: Either::Whole(body), patience }
    }

    pub(super) const fn stream(body: Body, patience: Arc<Patience>) -> Self {
        Self { body: Either::Stream(body), patience }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut self.body {
            Either::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Either::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Either::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Either::Whole(bytes) => bytes.is_empty(),
            Either::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Either::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Either::Stream(body) => body.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.patience.answered();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hyper_says_by_itself_gets_words() {
        let bare = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        for status in ["400 Bad Request", "431 Request Header Fields Too Large", "414 URI Too Long"] {
            let words = String::from_utf8(own_words(bare(status).as_bytes()).unwrap()).unwrap();
            assert!(
                words.starts_with(&format!("HTTP/1.1 {status}\r\n")) && words.contains("\"allowed\":false"),
                "{words}"
            );
        }
        assert_eq!(own_words(bare("200 OK").as_bytes()), None);
        assert_eq!(own_words(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 10\r\n\r\n"), None);
    }
}
