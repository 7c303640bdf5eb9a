//! Large answers under way: their number is bounded for each key, since a client that asks and does not read keeps the answer in
//! the server's memory. An answer is under way until its last piece is on the way to the client.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::keys::KeyMark;

/// How many one key may have under way.
const OF_ONE: usize = 16;

/// How many all keys may have. An answer has at most a few megabytes.
const OF_ALL: usize = 256;

/// The size of a piece. The connection takes the next one when it has sent about as much.
const PIECE: usize = 16 * 1024;

/// The large answers under way.
#[derive(Debug, Default)]
pub(crate) struct LargeAnswers {
    // A std mutex: held for one look into the map, never across an await.
    keys: Mutex<HashMap<KeyMark, usize>>,
}

/// The right to one large answer, given up when this is dropped.
#[derive(Debug)]
pub(crate) struct LargeAnswer {
    all: Arc<LargeAnswers>,
    key: KeyMark,
}

impl LargeAnswers {
    /// Begins one for this key; `None` when too many are under way.
    pub(crate) fn begin(self: &Arc<Self>, key: KeyMark) -> Option<LargeAnswer> {
        let mut keys = self.lock();
        let own = keys.get(&key).copied().unwrap_or(0);
        if own >= OF_ONE || keys.values().sum::<usize>() >= OF_ALL {
            return None;
        }
        keys.insert(key, own + 1);
        drop(keys);
        Some(LargeAnswer { all: Arc::clone(self), key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyMark, usize>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LargeAnswer {
    fn drop(&mut self) {
        let mut keys = self.all.lock();
        let left = keys.get(&self.key).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            keys.remove(&self.key);
        } else {
            keys.insert(self.key, left);
        }
    }
}

/// The body of a large answer, sent in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    left: Bytes,
    /// Kept as long as there is something left.
    _answer: Arc<LargeAnswer>,
}

impl Pieces {
    pub(super) fn new(body: Vec<u8>, answer: Arc<LargeAnswer>) -> Self {
        Self { left: body.into(), _answer: answer }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.left.len().min(PIECE);
        Poll::Ready((piece > 0).then(|| Ok(Frame::data(self.left.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_key_has_so_many_under_way_and_no_key_takes_those_of_another() {
        let all = Arc::<LargeAnswers>::default();
        let mut own: Vec<_> = (0..OF_ONE).map(|_| all.begin([1; 6]).unwrap()).collect();
        assert!(all.begin([1; 6]).is_none());
        let other = all.begin([2; 6]).unwrap();
        own.pop();
        assert!(all.begin([1; 6]).is_some());
        drop((own, other));
        assert!(all.lock().is_empty());
        let many: Vec<_> = (0..OF_ALL).filter_map(|number| all.begin([u8::try_from(number / 8).unwrap(); 6])).collect();
        assert!(many.len() == OF_ALL && all.begin([99; 6]).is_none());
    }

    #[test]
    fn an_answer_is_under_way_until_its_last_piece_is_taken() {
        let all = Arc::<LargeAnswers>::default();
        let body = vec![7; PIECE + 1];
        let mut pieces = Pieces::new(body, Arc::new(all.begin([1; 6]).unwrap()));
        assert_eq!(pieces.size_hint().exact(), Some(PIECE as u64 + 1));
        let mut sizes = Vec::new();
        while !pieces.is_end_stream() {
            let frame = std::future::poll_fn(|context| Pin::new(&mut pieces).poll_frame(context)).now_or_never();
            sizes.push(frame.unwrap().unwrap().unwrap().into_data().unwrap().len());
            assert_eq!(all.lock().len(), 1);
        }
        assert_eq!(sizes, [PIECE, 1]);
        drop(pieces);
        assert!(all.lock().is_empty());
    }
}
