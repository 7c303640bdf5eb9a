//! Registering a descriptor with the runtime.

#![expect(unsafe_code, reason = "tokio's registration trusts its caller to keep the descriptor open")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the current runtime. Fails when the reactor is gone or the descriptor cannot be polled.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, always names the same descriptor, and is closed only when it is dropped, which the
    // `AsyncFd` that now owns it does after it has deregistered it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
