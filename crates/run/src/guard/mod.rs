//! The guardian: a process between wrapper and agent, so that the sudden death of either side does not let the agent escape.
//!
//! ```text
//!  wrapper ──fork──► guardian ──fork──► leader ──► the agent's other processes
//!     ▲  │ asks the      ▲  reaps, watches     (waits for the wrapper's permit,
//!     │  │ daemon,       │  the lease          then executes the command)
//!     │  └───stops       └─orphans
//!     └─orphans of a guardian that was killed
//! ```
//!
//! Both are child subreapers. When the wrapper is killed, the guardian ends the tree; when the guardian is killed, the
//! leader is killed with it, and the wrapper inherits and ends the rest. The guardian is in a process group of its own, has
//! every signal blocked, is not stopped with the agent and holds none of the command's descriptors. It ends when no process
//! is left, which is how the wrapper learns of that.
//!
//! With `--containment pidns` the guardian is also the first process of a PID namespace of its own ([`namespace`]): when it
//! ends, the kernel ends everything in the namespace, and it ends with the wrapper.
//!
//! | file | concept |
//! |---|---|
//! | `message` | pure: the messages between the two |
//! | `core` | pure: what the guardian decides |
//! | `serve` | the guardian's process |
//! | `namespace` | making a namespace, and preparing it for the agent |
//! | `isolation` | the leader's own mount namespace, for `--isolate` |
//! | `handle` | the wrapper's side |
//! | `error` | why there is no guardian, or no leader |

mod core;
mod error;
mod handle;
mod isolation;
mod message;
mod namespace;
mod serve;

pub(super) use error::{GuardianStartError, LeaderError};
pub(super) use handle::{GuardianEnd, GuardianHandle, GuardianStart, LeaderStart};
pub(super) use message::{GuardianReport, GuardianTerms};
pub(super) use namespace::{NamespaceUser, explain_numbers};

/// The two kinds of guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuardianKind {
    /// A child subreaper, which inherits the tree's orphans.
    Sweeper,
    /// The first process of a PID namespace.
    Init(NamespaceUser),
}

pub(super) fn fuzz_message(data: &[u8]) {
    message::fuzz(data);
}
