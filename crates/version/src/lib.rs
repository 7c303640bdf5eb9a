//! The version of the programs.

#![forbid(unsafe_code)]

/// The version with the commit it was built from, as far as `build.rs` can tell: `0.1.0 (1a2b3c4d5e6f 2026-11-24)`.
pub const VERSION: &str = env!("MACHINEID_VERSION");
