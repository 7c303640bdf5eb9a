//! The gate: one device's answer to "may it run?", kept fresh.
//!
//! ```text
//!   checks, starts ──Asked──▶ ┌────────┐ ──Begin──▶ attempt (register?, validate) ──▶ authority
//!   hints ──────────Hinted──▶ │  core  │ ◀─Finished─┘
//!   boot clock ──────(now)──▶ │ (pure) │ ──Answer──▶ the asker
//!                             └────────┘ ──LeaseMoved / StopAgents──▶ the supervised runs
//! ```
//!
//! [`core`] decides and does no I/O. [`driver`] is the task around it: it reads the clock, makes [`attempt`]s, carries out
//! actions, and decides nothing. Other code uses a [`handle`]. [`gates`] owns one driver for each device in use.

pub(crate) mod attempt;
mod backoff;
mod boot_timer;
pub(crate) mod core;
pub(crate) mod driver;
pub(crate) mod gates;
pub(crate) mod handle;
pub(crate) mod holds;
pub(crate) mod keyed_client;
pub(crate) mod kill_file;
#[cfg(test)]
mod many_gates_tests;
pub(crate) mod markers;
mod registering;
mod registration_budget;
pub(crate) mod standing;

pub(crate) use self::core::AskPurpose;
pub(crate) use driver::Agents;
pub(crate) use gates::{Deciding, EndedDevice, Gates};
pub(crate) use standing::{GateVerdict, Standing};
