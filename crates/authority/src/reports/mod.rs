//! What sidecars tell about their devices, so that a person can see that a stop is done, and not only asked for.
//!
//! | file | concept |
//! |---|---|
//! | `heard` | a report as it is taken in and kept: bounded, made printable |
//! | `judge` | how far a sidecar is with the stop that a revoke asks for |
//! | `intake` | many reports in one transaction |
//!
//! Nothing here decides anything about execution.

mod heard;
mod intake;
mod judge;

pub(super) use heard::{HeardDevice, HeardReport, KnownEvent, KnownStop, Unreadable};
pub(super) use intake::{Intake, forget_old};
pub(super) use judge::{Known, Notes, judge};
