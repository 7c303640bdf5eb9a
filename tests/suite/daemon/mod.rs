//! `machineid-sidecar` as its users meet it.

mod adoption;
mod agents;
mod audit;
mod compat;
mod configuration;
mod containment;
mod devices;
mod events;
mod exhaustion;
mod fleet_timeline;
mod fleet_wait;
mod freezing;
mod hold;
mod key_rotation;
mod kill_file;
mod local_stop;
mod manager;
mod metrics;
mod push;
mod question;
mod reload;
mod reload_settings;
mod restarts;
mod siblings;
mod socket;
mod stop_bound;
