//! `machineid-sidecar` as its users meet it.

mod adoption;
mod agents;
mod compat;
mod configuration;
mod containment;
mod exhaustion;
mod freezing;
mod local_stop;
mod push;
mod socket;
