//! The signals by which people and terminals end a command, for commands that have something to do before they end.

use std::io;

use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;

/// Watches for them.
pub(super) struct Interrupt(Signals);

impl Interrupt {
    /// From now on. Fails when a signal cannot be watched for.
    pub(super) fn watch() -> io::Result<Self> {
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map(Self)
    }

    /// Waits for one, and gives its number. May be dropped and called again.
    pub(super) async fn arrived(&mut self) -> u8 {
        match self.0.next().await.map(u8::try_from) {
            Some(Ok(number)) => number,
            // The stream ends only when it is closed, which nothing does, and it gives those signals alone.
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}
