//! The only unsafe code: system calls for which neither std nor rustix has a safe form.
//!
//! Each function here is safe to call as documented; what it must uphold is argued beside each unsafe block.

mod environment;
mod peer;
mod permission;
mod signal;
#[cfg(feature = "services")]
mod watched;

pub use environment::{ScrubError, scrub_environment};
pub use peer::peer_pidfd;
pub use permission::may_signal;
pub use signal::{SignalNameError, parse_signal, signal_name};
#[cfg(feature = "services")]
pub(crate) use watched::watch;
