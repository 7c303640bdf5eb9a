//! The guardian: a process between wrapper and agent, so that neither's sudden death lets the agent get away.
//!
//! ```text
//!  wrapper ──fork──► guardian ──fork──► leader ──► whatever it starts
//!     ▲  │ asks the      ▲  reaps, watches     (waits for the wrapper's word,
//!     │  │ daemon,       │  the lease          then executes the command)
//!     │  └───stops       └─orphans
//!     └─orphans of a guardian that was killed
//! ```
//!
//! Both are child subreapers. When the wrapper is killed, the guardian ends the tree; when the guardian is, the leader goes
//! with it and the wrapper inherits and ends the rest. The guardian is in a process group of its own, has every signal
//! blocked, takes no part in stops and holds none of the command's descriptors. It ends when nobody is left, which is how
//! the wrapper knows.
//!
//! With `--containment pidns` it is the first process of a PID namespace of its own as well ([`namespace`]): when that one
//! ends, the kernel ends everything in the namespace, and it ends with the wrapper.
//!
//! | file | concept |
//! |---|---|
//! | `message` | pure: what the two tell each other |
//! | `core` | pure: what the guardian decides |
//! | `serve` | the guardian's process |
//! | `namespace` | making a namespace, and a home in it |
//! | `handle` | the wrapper's side |
//! | `error` | why there is no guardian, or no leader |

mod core;
mod error;
mod handle;
mod message;
mod namespace;
mod serve;

pub(super) use error::{GuardianStartError, LeaderError};
pub(super) use handle::{GuardianEnd, GuardianHandle, GuardianStart};
pub(super) use message::{GuardianReport, StopTerms};
pub(super) use namespace::NamespaceUser;

/// Which kind of guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuardianKind {
    /// Inherits the tree's orphans.
    Sweeper,
    /// The first process of a PID namespace.
    Init(NamespaceUser),
}

pub(super) fn fuzz_message(data: &[u8]) {
    message::fuzz(data);
}
