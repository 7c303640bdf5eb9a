//! The signals by which users and terminals end a command, for commands that must clean up before they end.

use std::io;

use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;

/// Watches for these signals.
pub(super) struct Interrupt(Signals);

impl Interrupt {
    /// Starts watching. Fails when a signal cannot be watched.
    pub(super) fn watch() -> io::Result<Self> {
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map(Self)
    }

    /// Waits for a signal, and returns its number. Cancel-safe.
    pub(super) async fn arrived(&mut self) -> u8 {
        match self.0.next().await.map(u8::try_from) {
            Some(Ok(number)) => number,
            // The stream ends only when it is closed, which never happens, and yields only these signals.
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}
