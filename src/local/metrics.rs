//! `GET /metrics`, on the socket and, when `metrics.listen` is set, on a TCP port that serves nothing else.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use machineid_clock as clock;
use machineid_metrics::CONTENT_TYPE;
use machineid_openapi::{AnswerDoc, Operation, TEXT};
use machineid_protocol::Decision;
use machineid_protocol::status::{AgentState, StandingKind};

use super::{Context, foreign_name};
use crate::gate::Standing;
use crate::registry::run::Phase;
use crate::telemetry::metrics::Now;

/// Connections served at once: several scrapers, and an occasional person.
pub(crate) const MOST: usize = 16;

/// The routes of the TCP port. The page contains no secret.
///
/// On loopback, pages of foreign sites must not read it through a browser of this host. Beyond it, scrapers use any name.
pub(crate) fn routes(context: Arc<Context>) -> Router {
    let listen = context.settings().metrics_listen.as_ref().map(|(address, _)| *address);
    let router = Router::new().route("/metrics", get(page)).with_state(context);
    if listen.is_some_and(|address| address.ip().is_loopback()) { foreign_name::refusing(router) } else { router }
}

pub(super) const METRICS: Operation = Operation {
    path: "/metrics",
    method: "get",
    summary: "Metrics in Prometheus' text format",
    parameters: &[],
    body: None,
    answers: &[AnswerDoc(200, TEXT, None, "as of now")],
};

/// `GET /metrics`
pub(super) async fn page(State(context): State<Arc<Context>>) -> Response {
    let page = context.journal.metrics.page(&now(&context));
    ([(header::CONTENT_TYPE, CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")], page).into_response()
}

fn now(context: &Context) -> Now {
    let host = context.gates.host().view();
    let confirmed = match (&host.standing, &host.last_decision) {
        (Standing::Allowed { grant, .. }, _) => Some(grant.confirmed_at),
        (Standing::Unavailable { last_allowed: Some(at), .. }, _) | (_, Some((at, Decision::Allow { .. }))) => {
            Some(*at)
        }
        (Standing::Unknown | Standing::Denied { .. } | Standing::Unavailable { .. }, _) => None,
    };
    let runs = context.runs.all();
    let bound = context.settings().stop_bound().with(runs.len());
    let agents = runs.into_iter().filter_map(|run| {
        let state = match &*run.phase() {
            Phase::Asking => return None,
            Phase::Running { .. } => AgentState::Running,
            Phase::Stopping { .. } => AgentState::Stopping,
        };
        Some((state, run.killer()))
    });
    Now {
        last_allow: confirmed.map(|at| clock::wall_at(at).as_duration().as_secs_f64()),
        standing: match host.standing {
            Standing::Unknown => StandingKind::Unknown,
            Standing::Allowed { .. } => StandingKind::Allowed,
            Standing::Denied { .. } => StandingKind::Denied,
            Standing::Unavailable { .. } => StandingKind::Unavailable,
        },
        agents: agents.collect(),
        stop_bound_connected: bound.connected,
        stop_bound_cut_off: bound.cut_off,
        ports: context.ports.all().map(|port| (port.setting(), port.address().is_some())).collect(),
        runtime_problem: context.files_status().problem.is_some(),
        panics: machineid_log::panics(),
        key: context.gates.authority().key_facts(),
    }
}
