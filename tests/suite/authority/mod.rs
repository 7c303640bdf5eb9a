//! The self-hosted authority, through its binary.

mod audit;
mod backup;
mod billing;
mod decisions;
pub(crate) mod disk;
mod embedded;
mod failover;
mod fleet;
pub(crate) mod health;
mod hostile;
mod limits;
mod official_client;
mod operation;
mod pooler;
mod registration;
mod replicas;
mod reports;
mod watch;
mod wire;
