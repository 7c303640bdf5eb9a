//! The state shared by the handlers of the API and of the console.

use std::sync::Arc;

use super::connections::Connections;
use super::console::session::Console;
use super::forwarded::Trusted;
use super::health::Health;
use super::host_names::HostNames;
use super::intake::Intake;
use super::limits::Limits;
use super::metrics::Metrics;
use super::proofs::Proofs;
use super::routes::large::LargeAnswers;
use super::seen::SeenDevices;
use super::store::Store;
use super::threads::Threads;
use super::watch::Hints;

/// The state shared by all handlers.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) seen: Arc<SeenDevices>,
    /// Which sidecars validated devices, of what the store does not have yet.
    pub(crate) proofs: Arc<Proofs>,
    /// The watchers that are told of changes.
    pub(crate) hints: Arc<Hints>,
    /// The queue for reports of sidecars.
    pub(crate) reports: Arc<Intake>,
    /// Whether clients may create organisations over the API.
    pub(crate) sign_up: bool,
    /// The URL of this authority for browsers, without a slash at the end.
    pub(crate) public_url: String,
    pub(crate) console: Arc<Console>,
    pub(crate) limits: Limits,
    pub(crate) trusted: Trusted,
    /// The names under which browsers may reach the console and the metrics.
    pub(crate) host_names: HostNames,
    pub(crate) threads: Threads,
    /// The large answers under way.
    pub(crate) large: Arc<LargeAnswers>,
    pub(crate) metrics: Arc<Metrics>,
    /// The connections of clients, for the metrics.
    pub(crate) connections: Arc<Connections>,
    /// The known problems of the server.
    pub(crate) health: Arc<Health>,
    /// Whether the access log also has the frequent requests, a line for each.
    pub(crate) log_validations: bool,
}
