//! The body of a long request.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The maximum size of a piece, in bytes.
const PIECE: usize = 64 * 1024;

/// Passes a body on in pieces. A body passed on as a whole would be sent as a whole, to a slow peer even after the
/// request was abandoned.
#[derive(Debug)]
struct Pieces(Bytes);

/// The body in reqwest's form, with the same length on the wire.
pub(crate) fn outgoing(body: Bytes) -> reqwest::Body {
    if body.len() > PIECE { reqwest::Body::wrap(Pieces(body)) } else { body.into() }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.0.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.0.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.0.len()).unwrap_or(u64::MAX))
    }
}
