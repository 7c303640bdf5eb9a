//! `machineid-sidecar` as its users meet it.

mod configuration;
mod socket;
