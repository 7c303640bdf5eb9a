//! This host: what its daemon says over the socket, and what the host itself is fit for.

pub(super) mod check;
pub(super) mod doctor;
pub(super) mod drill;
mod socket;
pub(super) mod status;
pub(super) mod stop;
mod wrapper;
