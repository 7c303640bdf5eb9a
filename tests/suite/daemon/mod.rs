//! `machineid-sidecar` as its users meet it.

mod adoption;
mod agents;
mod compat;
mod configuration;
mod containment;
mod exhaustion;
mod freezing;
mod key_rotation;
mod kill_file;
mod local_stop;
mod push;
mod reload;
mod socket;
