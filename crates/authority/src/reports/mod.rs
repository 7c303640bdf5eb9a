//! The sidecars' reports about their devices, so that an operator can see that a stop is done, and not only requested.
//!
//! | file | concept |
//! |---|---|
//! | `heard` | a report as it is received and stored: bounded, printable |
//! | `judge` | how far a sidecar is with the stop that a revoke asks for |
//!
//! Nothing here affects a decision about execution.

mod heard;
mod judge;

pub(super) use heard::{HeardDevice, HeardReport, KnownEvent, KnownStop, Unreadable};
pub(super) use judge::{Known, Notes, judge};
