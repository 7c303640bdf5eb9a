//! `machineid`, as an operator and a script meet it.

mod batches;
mod changes;
mod confirm;
mod connection;
mod doctor;
mod drill;
mod fixture;
mod fleet;
mod hooks;
mod host;
mod init;
mod output;
mod stop;
mod watching;
