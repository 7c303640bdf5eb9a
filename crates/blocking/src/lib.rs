//! Threads for calls that may block: reading files, resolving names, looking at processes.
//!
//! The daemon answers and validates on one thread, and the kernel can hold a call for ever: on a network file system whose
//! server is gone, on a name server that does not answer. Each kind of call has a [`Pool`] of its own, so that one kind that
//! hangs takes no thread from another. tokio's own blocking pool was rejected: it is one for all kinds, and 512 calls that
//! hang fill it.
//!
//! A call that has run for longer than `queue::OVERDUE` no longer counts among those that run at a time: the next one
//! starts on another thread. Threads are bounded all the same, and so is what one user can make wait.
//!
//! | file | concept |
//! |---|---|
//! | `queue` | pure: which call runs next |
//! | `pool` | the threads, and waiting for an answer |

#![forbid(unsafe_code)]

mod pool;
mod queue;

pub use pool::{Lost, Pool};
pub use queue::{Bounds, Owner};
