//! Fixtures around the real binaries. Each ends the processes it started, and no other.

pub(crate) mod authority;
pub(crate) mod browser;
pub(crate) mod events;
pub(crate) mod fake_authority;
pub(crate) mod fault;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod never;
pub(crate) mod official_client;
pub(crate) mod place;
pub(crate) mod pooler;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod pty;
pub(crate) mod scripted_daemon;
pub(crate) mod sidecar;
pub(crate) mod wait;
pub(crate) mod wrapper;

pub(crate) use wait::{PATIENCE, eventually, let_time_pass};
