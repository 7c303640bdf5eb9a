//! This host: what its daemon says over the socket.

pub(super) mod check;
mod socket;
pub(super) mod status;
