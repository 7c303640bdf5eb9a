//! `machineid-run` against a scripted daemon.

mod asking;
mod containment;
mod ending;
mod guardian;
mod outside;
mod supervising;
