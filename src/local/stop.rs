//! `POST /v1/stop`: ends agents on this host, without the authority.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::local::{StopAnswer, StopRequest};
use machineid_protocol::{Code, Denial};
use tracing::info;

use super::openapi::NO;
use super::peer::Peer;
use super::rights::AgentScope;
use super::{Context, read_whole, reply};
use crate::registry::Run;

pub(super) const STOP: Operation = Operation {
    path: "/v1/stop",
    method: "post",
    summary: "Stops agents now, without the authority: the caller's own, in its PID namespace or below; for root, the \
              daemon's user and local.admin_group those of all users",
    parameters: &[],
    body: Some("StopRequest"),
    answers: &[
        AnswerDoc(200, JSON, Some("StopAnswer"), "requested; /v1/status and /v1/events show the result"),
        AnswerDoc(400, JSON, NO, "the request is malformed"),
        AnswerDoc(404, JSON, NO, "it names no agent that the caller may stop"),
    ],
};

pub(super) async fn stop(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    let body = match read_whole(body).await {
        Ok(body) => body,
        Err((status, reason)) => return reply::refusal(status, Code::BadRequest, reason),
    };
    let request: StopRequest = match serde_json::from_slice(&body) {
        Ok(StopRequest::All(false)) => return bad("\"all\" is true or is left out"),
        Ok(request) => request,
        Err(error) => {
            return bad(&format!(
                "the request cannot be read: {error}; it is one of {{\"run_id\":…}}, {{\"pid\":…}}, {{\"name\":…}}, \
                 {{\"device\":…}} and {{\"all\":true}}"
            ));
        }
    };
    let scope = AgentScope::of(&peer, &context.settings());
    let denial = Denial::local(Code::LocalStop, format!("uid {} stopped it on this host", peer.uid()));
    let chosen = |run: &Run| match &request {
        StopRequest::RunId(id) => scope.covers_named(run, *id),
        StopRequest::Pid(_) | StopRequest::Name(_) | StopRequest::Device(_) | StopRequest::All(_) => {
            scope.covers_run(run) && picks(&request, run)
        }
    };
    let (run_ids, found) = context.runs.stop_chosen(&denial, &peer.caller(), chosen);
    if !found {
        let whose = match scope {
            AgentScope::All => "no agent that runs here matches",
            AgentScope::Own { .. } => "no agent of yours that runs here matches",
            AgentScope::Unplaced { .. } => {
                "the daemon cannot tell in which PID namespace this client is; name an agent of the same container by its \
                 run id, or stop it from the host"
            }
            AgentScope::Nothing => "a client in another user namespace may not stop agents",
        };
        return reply::refusal(StatusCode::NOT_FOUND, Code::BadRequest, format!("nothing to stop: {whose}"));
    }
    info!(uid = peer.uid(), runs = run_ids.len(), "stopping agents as a local client requested");
    (StatusCode::OK, Json(StopAnswer { run_ids })).into_response()
}

fn picks(request: &StopRequest, run: &Run) -> bool {
    let opened = &run.opened;
    match request {
        StopRequest::RunId(id) => opened.id == *id,
        StopRequest::Pid(pid) => run.leader().is_some_and(|leader| leader.pid.as_raw() == *pid),
        StopRequest::Name(name) => opened.name.as_ref() == Some(name),
        StopRequest::Device(device) => opened.device == *device,
        StopRequest::All(all) => *all,
    }
}

fn bad(reason: &str) -> Response {
    reply::refusal(StatusCode::BAD_REQUEST, Code::BadRequest, reason)
}
