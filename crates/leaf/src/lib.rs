//! The leaf helper: a small program, run by root, that makes the control group of one agent for a daemon that may not make it.
//!
//! Where root or a service manager made the group that an agent starts in, only a process that may write there can make a
//! group below it. The alternative, `CAP_DAC_OVERRIDE` for the daemon, opens every file of the host to it. The helper has two
//! verbs, for one user: put the process of this pidfd into a group named after this run, and remove such a group when it is
//! empty.
//!
//! | file | concept |
//! |---|---|
//! | `message` | pure: request and answer as bytes |
//! | `client` | the daemon's side |
//! | `serve` | the helper's loop: which peer it answers, and how long it waits |
//! | `work` | what the helper does for one request |

#![forbid(unsafe_code)]

mod client;
mod message;
mod serve;
mod work;

pub use client::{HelperError, LeafHelper};
pub use message::{LeafRefusal, LeafRequest, LeafVerb, fuzz as fuzz_message};
pub use serve::{ServeError, serve};
