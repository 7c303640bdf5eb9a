//! The HTTP API. Handlers parse requests, call the store and return the result; they decide nothing.
//!
//! A handler returns an [`answer::Answer`]; [`finish`] wraps all handlers: it assigns the request id, limits the time,
//! and writes the access log.

pub(super) mod answer;
mod approvals;
pub(super) mod ask;
mod audit;
pub(super) mod billing;
mod devices;
mod execution;
mod fuzzed;
mod keys;
mod lane;
pub(super) mod large;
pub(super) mod openapi;
mod organisation;
mod reports;
mod validate;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use jiff::{SignedDuration, Timestamp};
use machineid_clock::{BootTime, wall_now};
use machineid_protocol::Code;
use machineid_protocol::api::{EXTENSIONS, EXTENSIONS_HEADER, path};
use serde_json::json;
use tracing::{Instrument, debug, error_span, info};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use machineid_openapi::{AnswerDoc, JSON, Operation};
use openapi::{HEALTHY, NO, Route, described};

use self::answer::Answer;
pub(super) use self::fuzzed::{body as fuzz_body, report as fuzz_report};
use super::access::Permission;
use super::app::App;
use super::forwarded::ClientAddress;
use super::repeated::rarely;
use super::reports::{RevokedDevice, judge_all};
use super::store::{LatelyRevoked, StoreError};

/// The id of a request in its answer, the log and the audit.
#[derive(Clone, Debug)]
struct HttpRequestId(String);

/// The address that a connection came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) ClientAddress);

/// The client's address, which a proxy may have forwarded.
#[derive(Clone, Copy, Debug)]
struct Client(ClientAddress);

/// How long a request may take from its head to its answer, if nothing inside it times out first.
const WHOLE_REQUEST: Duration = Duration::from_secs(15);

/// For a year. Not for subdomains, which may be of other services.
const HTTPS_ONLY: &str = "max-age=31536000";

/// How long metrics wait for the database.
const METRICS_PATIENCE: Duration = Duration::from_secs(1);

/// For how long after a revoke the metrics say whether its confirmations count.
const DOUBTFUL: SignedDuration = SignedDuration::from_hours(1);

/// How long the proof of a confirmation may be on its way to the database, and a report of another sidecar to this server.
const PROOF: SignedDuration = SignedDuration::from_secs(10);

/// Finishes a router of the whole surface: every request, also one to an unknown path, passes [`finish`].
pub(super) fn finished(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), finish))
        .with_state(app)
}

/// The routes of the API with their descriptions.
pub(super) fn api() -> OpenApiRouter<Arc<App>> {
    openapi::surface()
        .routes(described(&[&billing::CREATE_ORG], post(billing::create_org)))
        .routes(described(&[&devices::REGISTER], post(devices::register)))
        .routes(described(&[&validate::VALIDATE], post(validate::validate).fallback(validate::wrong_method)))
        .routes(described(&[&organisation::LIST], get(organisation::list)))
        .routes(described(&[&devices::REVOKE], post(devices::revoke)))
        .routes(described(&[&devices::UNREVOKE], post(devices::unrevoke)))
        .routes(described(&[&organisation::REVOKE_BATCH], post(organisation::revoke_batch)))
        .routes(described(&[&organisation::UNREVOKE_BATCH], post(organisation::unrevoke_batch)))
        .routes(described(&[&devices::REMOVE], post(devices::remove)))
        .routes(described(&[&organisation::USAGE], get(organisation::usage)))
        .routes(described(&[&keys::KEYS], get(keys::list)))
        .routes(described(&[&keys::CREATE], post(keys::create)))
        .routes(described(&[&keys::REVOKE], post(keys::revoke)))
        .routes(described(&[&keys::ROTATE], post(keys::rotate)))
        .routes(described(&[&audit::AUDIT], get(audit::audit)))
        .routes(described(
            &[&watch::DEVICES_OF_QUERY, &watch::DEVICES_OF_BODY],
            get(watch::devices_of_query).post(watch::devices_of_body),
        ))
        .routes(described(&[&watch::ORG_EVENTS], get(watch::events)))
        .routes(described(&[&reports::REPORT], post(reports::report)))
        .routes(described(&[&reports::FLEET], get(reports::fleet)))
        .routes(described(&[&reports::STOPS], get(reports::stops)))
        .routes(described(&[&reports::TIMELINE], get(reports::timeline)))
        .routes(described(&[&approvals::APPROVALS], get(approvals::list)))
        .routes(described(&[&approvals::APPROVE], post(approvals::approve)))
        .routes(described(&[&approvals::REJECT], post(approvals::reject)))
        .routes(described(&[&execution::DISABLE], post(execution::disable)))
        .routes(described(&[&execution::ENABLE], post(execution::enable)))
        .routes(described(&[&billing::CHECKOUT], post(billing::checkout)))
        .routes(described(&[&HEALTHZ], get(healthz)))
        .routes(described(&[&READYZ], get(readyz)))
}

const HEALTHZ: Route = Route::needing(
    Permission::Public,
    Operation {
        path: "/healthz",
        method: "get",
        summary: "Whether the server is alive",
        parameters: &[],
        body: None,
        answers: &[HEALTHY],
    },
);

async fn healthz() -> Answer {
    Answer::ok("ok", "healthz")
}

const READYZ: Route = Route::needing(
    Permission::Public,
    Operation {
        path: "/readyz",
        method: "get",
        summary: "Whether the server's store answers",
        parameters: &[],
        body: None,
        answers: &[HEALTHY, AnswerDoc(503, JSON, NO, "it does not; `reason` says why, if known")],
    },
);

async fn readyz(State(app): State<Arc<App>>) -> Result<Answer, Answer> {
    app.store.ping().await.map_err(|error| Answer::not_ready(&error))?;
    let problems = app.health.problems();
    let answer = match (app.health.is_ready(), problems.is_empty()) {
        (true, true) => return Ok(Answer::ok("ok", "readyz")),
        (true, false) => Answer::ok("degraded", "readyz"),
        (false, _) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, "not_ready").with("handler", "readyz"),
    };
    Ok(answer.with("problems", json!(problems)))
}

/// Metrics and health, for a separate listener.
pub(super) fn observed(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), finish))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Answer {
    // Slightly old numbers are better than none: metrics are read during an outage of the database, too.
    match tokio::time::timeout(METRICS_PATIENCE, counted(&app, now())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "cannot count what the metrics say of the database"),
        Err(_) => debug!("counting what the metrics say of the database takes too long"),
    }
    Answer::text(app.metrics.text(&app.health, app.connections.counts(), app.store.unwritten_stops()))
}

/// Sets the metrics that are counted in the database.
async fn counted(app: &App, now: Timestamp) -> Result<(), StoreError> {
    app.metrics.old_keys(&app.store.old_keys(now).await?);
    app.metrics.approvals_waiting(app.store.approvals_waiting(now).await?);
    let since = now.saturating_sub(DOUBTFUL).unwrap_or(Timestamp::MIN);
    let until = now.saturating_sub(PROOF).unwrap_or(Timestamp::MAX);
    let stopped = app.store.lately_revoked(since, until).await?;
    let notes = app.seen.notes(now);
    let doubt = |one: LatelyRevoked| {
        let device = RevokedDevice { revoked_at: one.revoked_at, last_seen_at: one.last_seen_at, notes };
        let heard: Vec<_> = one.heard.iter().collect();
        judge_all(&device, &heard, now).into_iter().filter_map(|judged| judged.doubt).max()
    };
    app.metrics.doubtful_stops(&stopped.into_iter().filter_map(doubt).collect::<Vec<_>>());
    Ok(())
}

async fn unknown_path() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "unknown_path")
}

async fn wrong_method() -> Answer {
    Answer::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
}

/// Runs the request even if its connection ends, and writes its answer.
///
/// The request runs in a separate task: a client that hangs up must neither abort a transaction half way nor keep a
/// committed one out of the log.
async fn finish(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = BootTime::now();
    let request_id = Uuid::new_v4().hyphenated().to_string();
    let client = peer.map(|Extension(Peer(peer))| {
        let lines = request.headers().get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
        app.trusted.client(peer, lines.collect::<Vec<_>>().into_iter())
    });
    request.extensions_mut().insert(Client(client.unwrap_or(ClientAddress::UNKNOWN)));
    request.extensions_mut().insert(HttpRequestId(request_id.clone()));
    let method = request.method().clone();
    let path = loggable_path(request.uri().path());
    let mut response = if let Some(refusal) = refused(&app, &request) {
        refusal.into_response()
    } else {
        let lane = lane::lane(&method, request.uri().path());
        let run = app.threads.spawn(lane, next.run(request).instrument(error_span!("request", request_id)));
        match tokio::time::timeout(WHOLE_REQUEST, run).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                rarely!(error, %error, request_id, path, "a request handler failed");
                failed(&method, &path)
            }
            Err(_) => {
                rarely!(error, request_id, path, "a request took too long");
                failed(&method, &path)
            }
        }
    };
    // Only a refusal by axum itself has none, for example for a path that is not UTF-8.
    let status = response.status();
    let answer = response.extensions_mut().remove().unwrap_or_else(|| Answer::error(status, "bad_request"));
    let (status, code, org) = (answer.status, answer.code.clone(), answer.org);
    let mut response = answer.write(response, &request_id);
    let headers = response.headers_mut();
    // Only the console's files, whose names change with their content, set their own rule.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if app.console.secure {
        // A browser that has seen it once asks by HTTPS only. Other clients ignore it.
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HTTPS_ONLY));
    }
    if path.starts_with("/api/") {
        // Clients learn of the extensions without a request of their own.
        headers.insert(EXTENSIONS_HEADER, HeaderValue::from_static(EXTENSIONS));
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert("x-request-id", value);
    }
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    let took = BootTime::now().saturating_since(began);
    app.metrics.answered(&path, status.as_u16(), code.as_ref(), took);
    if !app.log_validations && asked_all_the_time(&path) {
        return response;
    }
    info!(
        target: "access",
        request_id,
        method = %method,
        path,
        status = status.as_u16(),
        code = code.as_ref().map(Code::as_str),
        org = org.map(tracing::field::display),
        client = client.map(tracing::field::display),
        micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    );
    response
}

/// The refusal of a request that no handler sees: under a foreign name, or with a NUL, which no name or text contains and
/// `PostgreSQL` cannot store. (Bodies are checked where they are read.)
fn refused(app: &App, request: &Request) -> Option<Answer> {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    if !app.host_names.accept(request.uri().path(), host) {
        let reason = "The console and the metrics are not served under this name. Name it with --public-url or --allowed-host, or \
                      let the proxy in front send a Host header that is.";
        return Some(Answer::error(StatusCode::MISDIRECTED_REQUEST, "unknown_host").with("reason", reason));
    }
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let nul = target.contains("%00");
    nul.then(|| Answer::error(StatusCode::BAD_REQUEST, "bad_request").with("reason", "A NUL is part of no value."))
}

/// The answer when the handler failed: a deny if the request was a validation.
fn failed(method: &Method, path: &str) -> Response {
    let decision = *method == Method::POST && path == path::VALIDATE;
    if decision { Answer::unavailable_decision(None) } else { Answer::unavailable() }.into_response()
}

/// Requests that every host or a prober sends every few seconds. They are counted by the metrics: in the log they would
/// fill a disk (230 bytes each, 4 GB a day for 1,000 devices) and hide other lines.
fn asked_all_the_time(path: &str) -> bool {
    matches!(path, path::VALIDATE | path::REPORT | "/healthz" | "/readyz" | "/metrics")
}

/// The path for the log: the rest of these paths is a secret, and a path can be of any length.
fn loggable_path(path: &str) -> String {
    let secret = ["/checkout/", "/console/operator/"].into_iter().find(|before| path.starts_with(before));
    secret.map_or_else(|| path.chars().take(100).collect(), |before| format!("{before}…"))
}

/// The time of a request, used for everything that it does.
pub(super) fn now() -> jiff::Timestamp {
    wall_now()
}
