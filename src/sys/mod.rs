//! The only unsafe code: system calls for which neither std nor rustix has a safe form.
//!
//! Each function here is safe to call as documented; what it must uphold is argued beside each unsafe block.

mod environment;
mod inherited;
mod peer;
mod permission;
mod proc;
mod process;
mod signal;
mod signal_fd;
mod threads;
#[cfg(feature = "services")]
mod watched;

pub use environment::{ScrubError, scrub_environment};
pub use inherited::{Inherited, restore_inherited};
pub use peer::{Credentials, peer_credentials, peer_pidfd};
pub use permission::may_signal;
pub use proc::check_proc;
pub use process::{Fork, ForkError, exec, exit_now, fork, own_group};
pub use signal::{SignalNameError, parse_signal, signal_name};
pub use signal_fd::{Arrived, SignalFd, die_by, send_to_group, stop_by};
#[cfg(feature = "services")]
pub(crate) use watched::watch;
