//! The sidecars' reports about their devices, so that an operator can see that a stop is done, and not only requested.
//!
//! | file | concept |
//! |---|---|
//! | `heard` | a report as it is received and stored: bounded, printable |
//! | `judge` | how far a sidecar is with the stop that a revoke asks for |
//! | `doubt` | the sidecars of a device together: whose confirmation counts |
//!
//! Nothing here affects a decision about execution.

mod doubt;
mod heard;
mod judge;

pub(super) use doubt::{FULL, Judged, RevokedDevice, judge_all};
pub(super) use heard::{HeardDevice, HeardReport, KnownEvent, KnownStop, Unreadable};
pub(super) use judge::Notes;
