//! This host: what its daemon says over the socket, and what the host itself is fit for.

pub(super) mod audit;
pub(super) mod check;
pub(super) mod doctor;
pub(super) mod drill;
pub(super) mod events;
mod interrupt;
pub(super) mod release;
mod socket;
pub(super) mod status;
pub(super) mod stop;
mod watch;
mod wrapper;
