//! A signal to end one connection, or all of them.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio_util::sync::CancellationToken;

/// The signal. Each poll of a cancellation token takes a lock, and a connection is polled twice for each request: so the token
/// is polled once, and a flag says when to poll it again.
#[derive(Clone, Debug, Default)]
pub(super) struct Closing {
    begun: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Closing {
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
        self.token.cancel();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Returns when closing has begun. Only for a task's own body: it wakes the task that polled it first.
    pub(super) async fn wait(&self) {
        let mut begun = pin!(self.token.cancelled());
        let mut waits = false;
        poll_fn(|cx| {
            if waits && !self.has_begun() {
                return Poll::Pending;
            }
            waits = true;
            begun.as_mut().poll(cx)
        })
        .await;
    }
}
