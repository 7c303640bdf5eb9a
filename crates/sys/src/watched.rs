//! Registering a descriptor with tokio's reactor.

#![expect(unsafe_code, reason = "tokio's registration trusts its caller to keep the descriptor open")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use super::timer::Timer;

/// Registers a descriptor with the current runtime. Fails when the reactor is gone or the descriptor cannot be polled.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd)
}

/// Registers a timer as [`watch`] does a descriptor.
pub fn watch_timer(timer: Timer) -> io::Result<AsyncFd<Timer>> {
    register(timer)
}

fn register<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the two callers pass an `OwnedFd`, or a `Timer`, which holds one. It is open, always names the same
    // descriptor, and is closed only when it is dropped, which the `AsyncFd` that now owns it does after it has
    // deregistered it.
    Ok(unsafe { AsyncFd::register(owner) }?)
}
