//! The local socket: checks, supervised runs, status and events, over HTTP/1.1.
//!
//! | file | concept |
//! |---|---|
//! | `socket` | the socket file: created with its mode, never taken from a living daemon |
//! | `activation` | sockets that a service manager passes |
//! | `server` | accepts, limits and ends connections |
//! | `wire` | the bytes of a connection: time limits, and bodies for errors that hyper sends without one |
//! | `places` | limits of the connections served at once |
//! | `shares` | pure: how users share the places |
//! | `closing` | the signal to end a connection |
//! | `peer` | the client at the other end |
//! | `compat` | the authority's own API, for programs that use the official clients |
//! | `check` | `GET /v1/check`, `/v1/authz/<device>` |
//! | `rights` | the agents that a client may see and command |
//! | `supervise` | `POST /v1/supervise` and its event stream; `GET`, the newest event of a run; `POST /v1/thaw`, `/v1/outside` |
//! | `stop` | `POST /v1/stop` |
//! | `hold` | `POST /v1/hold`, `/v1/release` |
//! | `events` | `GET /v1/events` |
//! | `metrics` | `GET /metrics` |
//! | `openapi` | `GET /v1/openapi.json` |
//! | `status` | `GET /v1/status`, `/healthz`, `/readyz` |
//! | `port` | a TCP port that serves a few paths |
//! | `refuse` | one refusal for every request, while the daemon cannot decide |
//! | `reply` | answers other than streams and reports |

pub(crate) mod activation;
mod check;
mod closing;
pub(crate) mod compat;
mod events;
mod foreign_name;
mod hold;
pub(crate) mod metrics;
mod openapi;
mod peer;
mod places;
pub(crate) mod port;
pub(crate) mod refuse;
mod reply;
mod rights;
pub(crate) mod server;
mod shares;
pub(crate) mod socket;
mod status;
mod stop;
mod supervise;
mod wire;

pub(crate) use check::fuzz_query;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, any, get, post};
use machineid_blocking::{Bounds, Pool};
use machineid_clock::BootTime;
use machineid_openapi::Operation;
use machineid_protocol::api::path;
use machineid_protocol::status::FilesStatus;
use machineid_protocol::{Code, Denial, DeviceId, span};
use utoipa_axum::router::OpenApiRouter;

use self::port::Ports;
use crate::config::{Live, Settings};
use crate::gate::{AskPurpose, Gates};
use crate::registry::RunRegistry;
use crate::telemetry::Journal;
use crate::telemetry::metrics::CheckResult;
use peer::Peer;
use rights::AgentScope;
use supervise::Refusals;

/// The longest request body, in bytes.
const LARGEST_REQUEST: usize = 64 * 1024;

/// Bounds of [`Context::looks`]. As many at a time as may wait for the kernel to move a process into a control group: more
/// threads would compete with the thread that answers.
const LOOKS: Bounds = Bounds { at_a_time: 16, most: 64 };

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) live: Live,
    pub(crate) gates: Arc<Gates>,
    pub(crate) runs: Arc<RunRegistry>,
    pub(crate) started: BootTime,
    pub(crate) journal: Arc<Journal>,
    /// How the org key is protected from agents on this host, in a sentence.
    pub(crate) key_protection: String,
    /// The ports of `compat.listen` and `metrics.listen`.
    pub(crate) ports: Ports,
    /// The state of the daemon's own files, as of the last look.
    files: Mutex<FilesStatus>,
    refusals: Refusals,
    /// Threads that look at the processes of starts. Users take turns.
    looks: Pool,
    /// Threads that write to the state and runtime directories.
    pub(crate) writes: Pool,
}

impl Context {
    pub(crate) fn new(
        live: Live,
        gates: Arc<Gates>,
        runs: Arc<RunRegistry>,
        journal: Arc<Journal>,
        writes: Pool,
        key_protection: String,
        ports: Ports,
    ) -> Self {
        let (started, refusals, looks) = (BootTime::now(), Refusals::default(), Pool::new("processes", LOOKS));
        let files = Mutex::default();
        Self { live, gates, runs, started, journal, key_protection, ports, files, refusals, looks, writes }
    }

    /// The state of the daemon's own files.
    pub(crate) fn files_status(&self) -> FilesStatus {
        let mut status = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.problem = status.problem.or_else(|| self.runs.record_problem());
        status
    }

    /// Updates the state of the daemon's own files.
    pub(crate) fn note_files(&self, note: impl FnOnce(&mut FilesStatus)) {
        note(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The settings in force. Take them once per request.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.live.now()
    }

    /// Counts a check that was answered with this status.
    pub(crate) fn checked(&self, status: StatusCode, asked: BootTime) {
        let result = match status.as_u16() {
            200 => CheckResult::Allowed,
            403 => CheckResult::Denied,
            400 => CheckResult::Malformed,
            _ => CheckResult::Undecided,
        };
        self.journal.metrics.checked(result, BootTime::now().saturating_since(asked));
    }

    /// Whether this client may name this device.
    fn may_name(&self, peer: &Peer, device: &DeviceId) -> bool {
        let uid = (!peer.is_unmapped_user()).then(|| peer.uid());
        let is_allowed = |settings: &Settings| settings.device.allow.iter().any(|pattern| pattern.matches(device, uid));
        device == self.gates.host().device() || self.live.look(is_allowed)
    }

    /// What an agent of this client asks for: to be registered where it is not yet, as far as its user's budget goes. If not,
    /// the refusal for a device that is not registered.
    fn purpose(&self, peer: &Peer, device: &DeviceId) -> (AskPurpose, Option<Denial>) {
        let free = || AgentScope::of(peer, &self.settings()).is_all();
        let uid = peer.uid();
        match self.gates.authority().pay_for(uid, device) {
            Ok(()) => (AskPurpose::Start, None),
            Err(_) if free() => (AskPurpose::Start, None),
            Err(wait) => {
                let reason = format!(
                    "{device} is not registered, and uid {uid} has registered as many new devices as it may for now \
                     (device.new_per_hour = {}); try again in {}, start as a device that is registered, or have it registered: \
                     machineid register {device}",
                    self.settings().device.new_per_hour,
                    span::format(Duration::from_secs(wait.as_secs() + 1)),
                );
                (AskPurpose::Check, Some(Denial::local(Code::RegistrationLimited, reason)))
            }
        }
    }
}

/// All routes of the socket, except the check itself.
pub(crate) fn routes(context: Arc<Context>) -> Router {
    let (router, _) = surface().split_for_parts();
    router
        .route("/v1/authz/{*device}", any(check::authorize))
        .route(path::REGISTER, post(compat::register).fallback(reply::wrong_method))
        .route(path::VALIDATE, post(compat::validate).fallback(reply::wrong_method))
        .fallback(async || reply::refusal(StatusCode::NOT_FOUND, Code::BadRequest, "there is nothing at this path"))
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .with_state(context)
}

/// The routes that have a description, each with it.
fn surface() -> OpenApiRouter<Arc<Context>> {
    let described = |operations: &[&Operation], router: MethodRouter<Arc<Context>>| {
        openapi::described(operations, router.fallback(reply::wrong_method))
    };
    openapi::surface()
        // Only other methods come here: `server` answers the check itself.
        .routes(openapi::described(&[&check::CHECK_ONE], any(reply::wrong_method)))
        .routes(described(
            &[&supervise::SUPERVISE, &supervise::INQUIRE],
            post(supervise::supervise).get(supervise::inquire),
        ))
        .routes(described(&[&supervise::THAW], post(supervise::thaw)))
        .routes(described(&[&supervise::ADOPT], post(supervise::adopt)))
        .routes(described(&[&supervise::OUTSIDE], post(supervise::outside)))
        .routes(described(&[&stop::STOP], post(stop::stop)))
        .routes(described(&[&hold::HOLD], post(hold::hold)))
        .routes(described(&[&hold::RELEASE], post(hold::release)))
        .routes(described(&[&events::EVENTS_OF_HOST], get(events::events)))
        .routes(described(&[&openapi::DOCUMENT], get(openapi::document)))
        .routes(described(&[&metrics::METRICS], get(metrics::page)))
        .routes(described(&[&status::STATUS], get(status::status)))
        .routes(openapi::described(&[&openapi::HEALTHZ], get(|| async { "ok\n" })))
        .routes(openapi::described(&[&status::READYZ], get(status::ready)))
}

/// Reads a whole request body, within limits of size and time: a client that never finishes must not keep its place.
async fn read_whole(body: Body) -> Result<Bytes, (StatusCode, String)> {
    match tokio::time::timeout(wire::REQUEST_TIMEOUT, to_bytes(body, LARGEST_REQUEST)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the request is incomplete or longer than {LARGEST_REQUEST} \
                                                         bytes"
            ),
        )),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time".to_owned())),
    }
}

/// The deny for a device that clients may not name.
fn not_nameable(device: &DeviceId) -> Denial {
    let reason = format!("this host's configuration (device.allow) does not let clients ask about {device}");
    Denial::local(Code::DeviceNotPermitted, reason)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn fuzz_supervise_request(data: &[u8]) {
    supervise::fuzz(data);
}
