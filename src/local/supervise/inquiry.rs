//! Requests about one run: its newest event, and thawing it while its device is undecided.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use machineid_clock::BootTime;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::local::{OutsideReport, SuperviseEvent, ThawAnswer};
use machineid_protocol::outside::{MOST_HELPERS, OutsideHelper};
use machineid_protocol::{Code, RunId};
use tracing::info;

use super::super::openapi::{LINES, NO, RUN_ID};
use super::ndjson;
use super::stream::line;
use crate::local::peer::Peer;
use crate::local::rights::AgentScope;
use crate::local::{Context, check, millis, read_whole, reply};
use crate::registry::Run;

pub(in crate::local) const INQUIRE: Operation = Operation {
    path: "/v1/supervise",
    method: "get",
    summary: "The newest event of a run of the caller",
    parameters: &[RUN_ID],
    body: None,
    answers: &[
        AnswerDoc(200, LINES, Some("SuperviseEvent"), "its lease, or its stop"),
        AnswerDoc(400, JSON, NO, "the request names no run"),
        AnswerDoc(404, JSON, NO, "the caller has no such run"),
    ],
};

/// `GET /v1/supervise?run_id=ID`: the newest event of a run, for its wrapper. An agent that ends on the first signal of a
/// stop may be gone before the `stop` line has reached the wrapper; since the stop is recorded before any signal, this answer
/// includes it.
pub(in crate::local) async fn inquire(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Response {
    let id = match run_id(query.as_deref()) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    // The id is known to the run's own tree and to those who may see it. A wrapper in a container may be in a place that the
    // daemon does not know.
    let may_know = |run: &Arc<Run>| peer.uid() == run.opened.uid || AgentScope::of(&peer, &context.settings()).is_all();
    let Some(run) = context.runs.get(id).filter(may_know) else { return no_such_run() };
    let event = match run.stop() {
        Some(stop) => SuperviseEvent::Stop {
            code: stop.denial.code,
            request_id: stop.denial.request_id,
            reason: stop.denial.reason,
            signalled: true,
            grace_ms: millis(stop.kill_at.saturating_since(BootTime::now())),
        },
        None => SuperviseEvent::Lease {
            boot_ms: BootTime::now().as_millis(),
            until_boot_ms: run.deadline().unwrap_or_default().as_millis(),
        },
    };
    ndjson(StatusCode::OK, Body::from(line(&event)))
}

pub(in crate::local) const THAW: Operation = Operation {
    path: "/v1/thaw",
    method: "post",
    summary: "Thaws a frozen run while its device is undecided",
    parameters: &[RUN_ID],
    body: None,
    answers: &[
        AnswerDoc(200, JSON, Some("ThawAnswer"), "the run continues"),
        AnswerDoc(400, JSON, NO, "the request names no run"),
        AnswerDoc(404, JSON, NO, "the caller has no such run"),
    ],
};

/// `POST /v1/thaw?run_id=ID`: lets a frozen run continue until its device becomes unavailable again. Allowed for the run's
/// own wrapper, recognised by pid and start time (a Ctrl-C must reach the agent), and for clients that may command every
/// agent. Not for every process of the wrapper's uid: another agent may have the same uid.
pub(in crate::local) async fn thaw(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Response {
    let id = match run_id(query.as_deref()) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let Some(run) = context.runs.get(id) else { return no_such_run() };
    let caller = match peer.identity() {
        Ok(caller) => caller,
        Err(error) => return check::overloaded(&error).map(Body::from),
    };
    let is_wrapper = caller.is_some() && caller == run.wrapper();
    if !is_wrapper && !AgentScope::of(&peer, &context.settings()).is_all() {
        return no_such_run();
    }
    let was_frozen = context.runs.thaw(&run);
    if was_frozen {
        info!(run_id = %id, uid = peer.uid(), "thawed although its device is undecided");
    }
    (StatusCode::OK, Json(ThawAnswer { run_id: id, was_frozen })).into_response()
}

pub(in crate::local) const OUTSIDE: Operation = Operation {
    path: "/v1/outside",
    method: "post",
    summary: "What the caller sees its agent use outside its tree; for the run's wrapper. It informs, and changes nothing else",
    parameters: &[RUN_ID],
    body: Some("OutsideReport"),
    answers: &[
        AnswerDoc(204, JSON, None, "taken"),
        AnswerDoc(400, JSON, NO, "the request names no run, or its body is malformed"),
        AnswerDoc(404, JSON, NO, "the caller has no such run"),
    ],
};

/// `POST /v1/outside?run_id=ID`: for the run's own wrapper, where the daemon may not read the descriptors of its agent. A wrapper
/// that the daemon cannot see is known by its user and the run's id, as for [`inquire`].
pub(in crate::local) async fn outside(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    let id = match run_id(query.as_deref()) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let body = match read_whole(body).await {
        Ok(body) => body,
        Err((status, reason)) => return reply::refusal(status, Code::BadRequest, reason),
    };
    let Some(run) = context.runs.get(id) else { return no_such_run() };
    let is_wrapper = match run.wrapper() {
        Some(wrapper) => peer.identity().is_ok_and(|caller| caller == Some(wrapper)),
        // Of an adopted run there is none.
        None => run.opened.reach.is_none() && peer.uid() == run.opened.uid,
    };
    if !is_wrapper {
        return no_such_run();
    }
    match serde_json::from_slice::<OutsideReport>(&body) {
        Ok(report) if report.helpers.len() <= MOST_HELPERS => {
            context.runs.told_outside(&run, report.helpers.into_iter().map(OutsideHelper::bounded).collect());
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(_) => reply::refusal(StatusCode::BAD_REQUEST, Code::BadRequest, "the report names too many helpers"),
        Err(error) => {
            reply::refusal(StatusCode::BAD_REQUEST, Code::BadRequest, format!("the request cannot be read: {error}"))
        }
    }
}

fn run_id(query: Option<&str>) -> Result<RunId, Box<Response>> {
    let id = query.and_then(|query| query.strip_prefix("run_id=")).and_then(|id| id.parse().ok());
    id.ok_or_else(|| {
        Box::new(reply::refusal(StatusCode::BAD_REQUEST, Code::BadRequest, "name the run: ?run_id=, 32 hex digits"))
    })
}

fn no_such_run() -> Response {
    reply::refusal(StatusCode::NOT_FOUND, Code::BadRequest, "there is no such run of yours")
}
