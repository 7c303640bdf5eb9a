//! Threads for calls that may block: reading files, resolving names, looking at processes.
//!
//! The daemon answers and validates on one thread, and the kernel can block a call for ever: on a network file system whose
//! server is gone, on a name server that does not answer. Each kind of call has a [`Pool`] of its own, so that one kind
//! that hangs takes no thread from another. tokio's own blocking pool was rejected: it is shared by all kinds, and 512
//! calls that hang fill it.
//!
//! A call that has run for longer than `queue::OVERDUE` no longer counts against the limit of calls at a time: the next one
//! starts on another thread. The number of threads is limited all the same, and so is the share of one user.
//!
//! | file | concept |
//! |---|---|
//! | `queue` | pure: which call runs next |
//! | `pool` | the threads, and waiting for an answer |

#![forbid(unsafe_code)]

mod pool;
mod queue;

pub use pool::{Lost, Pool};
pub use queue::{Bounds, CallOwner};
