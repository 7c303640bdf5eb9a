//! The gate: one device's answer to "may it execute?", kept fresh.
//!
//! ```text
//!   checks, starts ──Asked──▶ ┌────────┐ ──Begin──▶ attempt (register?, validate) ──▶ authority
//!   hints ──────────Hinted──▶ │  core  │ ◀─Finished─┘
//!   boot clock ──────(now)──▶ │ (pure) │ ──Answer──▶ the asker
//!                             └────────┘ ──LeaseMoved / StopAgents──▶ the supervised runs
//! ```
//!
//! [`core`] decides and does no I/O; [`driver`] is the task around it that reads the clock, sends requests and carries
//! actions out, and decides nothing. [`gates`] holds one driver for each device in use.

mod backoff;
pub(crate) mod core;
pub(crate) mod standing;

pub(crate) use standing::{Standing, Verdict};
