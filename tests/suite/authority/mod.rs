//! The self-hosted authority, through its binary.

mod audit;
mod billing;
mod decisions;
mod embedded;
mod fleet;
mod official_client;
mod operation;
mod registration;
mod reports;
mod watch;
mod wire;
