//! One connection's bytes, below hyper: how long a client lets us wait, and words for what hyper refuses without any.
//!
//! hyper has a timeout of its own for heads. It makes and registers a timer for every request, which costs a cached check a
//! tenth of its time, and it ends without a word; here a look at a clock for each request and one timer for the whole
//! connection do.

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

/// Time for a request's head, and again for its body.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What connection and server know of each other.
#[derive(Debug)]
pub(super) struct Patience {
    /// Since when the client owes us a request, in milliseconds of the boot clock; 0 while one is being answered.
    since: AtomicU64,
    /// Whether a part of it has come.
    begun: AtomicBool,
    expired: AtomicBool,
}

impl Patience {
    pub(super) fn new() -> Arc<Self> {
        let since = AtomicU64::new(BootTime::now().as_millis().max(1));
        Arc::new(Self { since, begun: AtomicBool::new(false), expired: AtomicBool::new(false) })
    }

    /// A request's head is complete: from now on it is for us to act.
    pub(super) fn head_came(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.begun.store(false, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.begun.store(false, Ordering::Relaxed);
        self.since.store(BootTime::now().as_millis().max(1), Ordering::Relaxed);
    }

    /// How long to wait until the next look; `None` when the client had its time.
    pub(super) fn left(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            return Some(REQUEST_TIMEOUT);
        }
        let waited = BootTime::now().saturating_since(BootTime::from_millis(since));
        // A millisecond more: `since` was rounded down.
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
}

impl Wire {
    pub(super) const fn new(stream: UnixStream, patience: Arc<Patience>) -> Self {
        Self { stream, patience }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Patience { begun, expired, .. } = &*self.patience;
        // A connection that merely idles is closed without a word: one would be read as the answer to the next request.
        if expired.load(Ordering::Relaxed) && begun.load(Ordering::Relaxed) {
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
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.patience.begun.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match own_words(buf) {
            None => Pin::new(&mut self.stream).poll_write(cx, buf),
            Some(words) => {
                // Some hundred bytes, and the last ones: a client that has no room for them does not read.
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

    /// No: hyper then hands over head and body in one piece, and answers are short.
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

/// What hyper answers by itself has no body, and nothing of ours with such a status is without one: then, the same with
/// words. Nothing that a client does not understand may be without its `"allowed":false`.
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

/// The body of an answer. The client's time begins anew when it is done with.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Either,
    patience: Arc<Patience>,
}

#[derive(Debug)]
enum Either {
    /// All there is, not yet taken.
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
