//! The only unsafe code: system calls for which neither std nor nix nor rustix has a safe form, and calls that belong
//! with them.
//!
//! Each function here is safe to call as documented; the reasons why stand beside each unsafe block.

mod clone;
mod descriptor_limit;
mod descriptors;
mod environment;
mod inherited;
mod name_services;
mod namespace;
mod peer;
mod permission;
mod pidfd_signal;
mod precedence;
mod proc;
mod process;
mod queue;
mod sandbox;
mod shortage;
mod signal;
mod signal_fd;
mod threads;
mod timer;
mod wait;
#[cfg(feature = "runtime")]
mod watched;

pub use clone::{ForkOptions, Namespaces, fork_with};
pub use descriptor_limit::raise_descriptor_limit;
pub use descriptors::close_others;
pub use environment::{ScrubError, scrub_environment};
pub use inherited::{Inherited, let_children_vanish, restore_inherited};
pub use name_services::keep_name_services_inside;
pub use namespace::{map_own_ids, mount_own_proc, parent_namespace};
pub use peer::{Credentials, peer_credentials, peer_groups, peer_pidfd};
pub use permission::may_signal;
pub use precedence::{TimeSlice, Uninterrupted, set_time_slice, use_batch_scheduling};
pub use proc::{ProcError, check_proc};
pub use process::{Fork, ForkError, exec, exit_now, fork, from_nix, own_group};
pub use queue::queue_signal;
pub use sandbox::why_unreachable;
pub use shortage::{in_words, io_in_words, shortage};
pub use signal::{SignalNameError, parse_signal, signal_name};
pub use signal_fd::{Arrived, SignalFd, die_by, send_to_child, send_to_group, stop_by};
pub use timer::Timer;
pub use wait::ended_child;
#[cfg(feature = "runtime")]
pub use watched::{watch, watch_timer};
