//! A self-hosted authority that speaks the service's API.
//!
//! ```text
//!   clients ──HTTP──▶ routes ─────▶ decide, plan, batch   pure rules: told what the store found, and the time
//!   operator ─socket▶ admin  ──┐          ▲
//!                              └──▶ store ┘               one transaction for each operation, with the rules inside
//!   serve: the listener, the admin socket, the database, and how they end · command: the command line
//!   connections: how many clients are served at once, and which of them go first · threads: stops, apart from what is read
//!   surface: the API and the console as one router, and its description · console: the sessions and pages
//!   health: known problems of the server and its database · examination: the task that finds them in the store
//!   unwritten: stops that are in force although the store did not take them
//!   ageing: ephemeral devices that were never removed · seen: when devices last validated
//!   reports: reports of sidecars, pure · intake: the queue that stores them · retention: how much is kept
//!   watch: watchers of changes · embedded: an authority inside another program
//! ```
//!
//! Three guarantees: a failure of the store is a deny (`SYSTEM_UNAVAILABLE`), never an old answer; a change is in the
//! database before it is answered, unless the answer to a stop says that it is not; and every validation reads the database. So no validation that begins after the
//! answer sees the old state, on any server of that database.

#![forbid(unsafe_code)]

mod access;
mod admin;
mod ageing;
mod app;
mod approvals;
mod audit;
mod batch;
mod changes;
pub mod command;
mod connections;
mod console;
mod database;
mod decide;
mod embedded;
mod examination;
mod forwarded;
pub mod fuzzing;
mod health;
mod host_names;
mod intake;
mod keys;
mod limits;
mod metrics;
mod org;
mod plan;
mod proofs;
mod repeated;
mod reports;
mod retention;
mod role_keys;
mod routes;
mod seen;
mod serve;
mod store;
mod surface;
mod threads;
mod tls;
mod unwritten;
mod watch;

pub use embedded::{Embedded, EmbeddedError};
pub use org::{OrgId, OrgIdError, PlanTier, PlanTierError};

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The default admin socket of a database.
fn admin_socket_of(database: &Path) -> PathBuf {
    beside(database, ".admin.sock")
}

/// The default reserve file of a database.
fn reserve_file_of(database: &Path) -> PathBuf {
    beside(database, ".reserve")
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(suffix);
    path.into()
}
