//! What the handlers of the API and those of the console share.

use std::sync::Arc;

use super::console::Console;
use super::forwarded::Trusted;
use super::health::Health;
use super::limits::Limits;
use super::metrics::Metrics;
use super::reports::Intake;
use super::seen::Seen;
use super::store::Store;
use super::watch::Hints;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) seen: Arc<Seen>,
    /// Who is told of changes.
    pub(crate) hints: Arc<Hints>,
    /// Where reports of sidecars go.
    pub(crate) reports: Arc<Intake>,
    /// Whether anyone may create an organisation.
    pub(crate) signup: bool,
    /// Where browsers reach this authority, without a slash at the end.
    pub(crate) public_url: String,
    pub(crate) console: Arc<Console>,
    pub(crate) limits: Limits,
    pub(crate) trusted: Trusted,
    pub(crate) metrics: Arc<Metrics>,
    /// What is wrong with the server.
    pub(crate) health: Arc<Health>,
    /// Whether the access log has what asks all the time, too: a line for each.
    pub(crate) log_validations: bool,
}
