//! `machineid-run` against a scripted daemon.

mod asking;
mod ending;
mod supervising;
mod terminal;
mod transparency;
