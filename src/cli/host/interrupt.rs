//! Ctrl-C and its kin, for commands that only it ends: they leave the terminal as it was, and have not failed.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Watches for them.
#[derive(Debug)]
pub(super) struct Interrupt([Signal; 3]);

impl Interrupt {
    /// From now on. Fails when a signal cannot be watched for.
    pub(super) fn watch() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    /// Waits for one. May be dropped and called again.
    pub(super) async fn arrived(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {},
            _ = terminate.recv() => {},
            _ = hangup.recv() => {},
        }
    }
}
