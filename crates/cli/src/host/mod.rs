//! The commands about this host: they ask its daemon over the socket, or examine the host.

pub(super) mod adopt;
pub(super) mod audit;
pub(super) mod check;
pub(super) mod completion;
pub(super) mod doctor;
pub(super) mod drill;
pub(super) mod events;
pub(super) mod hook;
pub(super) mod init;
mod interrupt;
pub(super) mod release;
mod socket;
pub(super) mod status;
pub(super) mod stop;
mod stop_words;
pub(super) mod watch;
mod wrapper;
