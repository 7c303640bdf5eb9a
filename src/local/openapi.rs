//! `GET /v1/openapi.json`: the socket, described. The schemas are made from the very types that are sent; what is asked how
//! stands here in a table. The whole is kept in `docs/openapi/sidecar.json`, so that a change of the surface is one under
//! review.

use std::sync::OnceLock;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use machineid_openapi::{self as openapi, Answer, EVENTS, JSON, Operation, Parameter, TEXT};
use machineid_protocol::event::Event;
use machineid_protocol::local::{
    CheckAnswer, HoldAnswer, HoldRequest, ReleaseAnswer, StopAnswer, StopRequest, SuperviseEvent, SuperviseRequest,
    ThawAnswer,
};
use machineid_protocol::status::Status;
use serde_json::Value;
use utoipa::OpenApi;

/// `GET /v1/openapi.json`
pub(super) async fn document() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| whole().to_string()).as_str();
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[derive(OpenApi)]
#[openapi(components(schemas(
    CheckAnswer,
    SuperviseRequest,
    SuperviseEvent,
    StopRequest,
    StopAnswer,
    HoldRequest,
    HoldAnswer,
    ReleaseAnswer,
    ThawAnswer,
    Status,
    Event,
)))]
struct Schemas;

const LINES: &str = "application/x-ndjson";
const NO: Option<&str> = Some("CheckAnswer");

const CHECK: &[Answer] = &[
    Answer(200, JSON, NO, "allowed: the only yes"),
    Answer(400, JSON, NO, "the question is malformed"),
    Answer(403, JSON, NO, "denied"),
    Answer(503, JSON, NO, "it could not be found out; Retry-After says when to ask again"),
];
const RUN_ID: Parameter = Parameter("query", "run_id", "The run: 32 hex digits.");
const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/v1/check",
        method: "get",
        summary: "May it run? Answered by a validation that begins after the question, unless max_age allows an older one",
        parameters: &[
            Parameter("query", "device", "The device; without it the calling agent's own, else the host's."),
            Parameter("query", "max_age", "The oldest answer that will do, as 2s; capped by local.max_age_cap."),
            Parameter("query", "timeout", "How long to wait, as 1s; at most local.check_timeout."),
        ],
        body: None,
        answers: CHECK,
    },
    Operation {
        path: "/v1/authz/{device}",
        method: "get",
        summary: "A strict check of this device by any method, also below this path: for nginx auth_request, Envoy ext_authz and \
                  Traefik forwardAuth",
        parameters: &[Parameter("path", "device", "The device, percent-encoded, a / as %2F.")],
        body: None,
        answers: CHECK,
    },
    Operation {
        path: "/v1/supervise",
        method: "post",
        summary: "May this process run? If so it is supervised as long as the connection lives, and told of every lease and stop",
        parameters: &[],
        body: Some("SuperviseRequest"),
        answers: &[
            Answer(200, LINES, Some("SuperviseEvent"), "allowed; a line for each event from here on"),
            Answer(400, LINES, Some("SuperviseEvent"), "the request is malformed, or its run id is in use"),
            Answer(403, LINES, Some("SuperviseEvent"), "denied"),
            Answer(503, LINES, Some("SuperviseEvent"), "it could not be found out"),
        ],
    },
    Operation {
        path: "/v1/supervise",
        method: "get",
        summary: "The newest event of a run of one's own",
        parameters: &[RUN_ID],
        body: None,
        answers: &[
            Answer(200, LINES, Some("SuperviseEvent"), "its lease, or its stop"),
            Answer(400, JSON, NO, "no run is named"),
            Answer(404, JSON, NO, "there is no such run of the caller's"),
        ],
    },
    Operation {
        path: "/v1/thaw",
        method: "post",
        summary: "Lets a frozen run go on while its device is undecided",
        parameters: &[RUN_ID],
        body: None,
        answers: &[
            Answer(200, JSON, Some("ThawAnswer"), "it goes on"),
            Answer(400, JSON, NO, "no run is named"),
            Answer(404, JSON, NO, "there is no such run of the caller's"),
        ],
    },
    Operation {
        path: "/v1/stop",
        method: "post",
        summary: "Ends agents now, without the authority: one's own, or as root, the daemon's user or local.admin_group everybody's",
        parameters: &[],
        body: Some("StopRequest"),
        answers: &[
            Answer(200, JSON, Some("StopAnswer"), "requested; /v1/status and /v1/events say what came of it"),
            Answer(400, JSON, NO, "the request is malformed"),
            Answer(404, JSON, NO, "it means no agent that the caller may stop"),
        ],
    },
    Operation {
        path: "/v1/hold",
        method: "post",
        summary: "Denies a device on this host until it is released, and ends its agents; for root, the daemon's user and \
                  local.admin_group",
        parameters: &[],
        body: Some("HoldRequest"),
        answers: &[
            Answer(200, JSON, Some("HoldAnswer"), "held"),
            Answer(400, JSON, NO, "the request is malformed"),
            Answer(403, JSON, NO, "the caller may not"),
        ],
    },
    Operation {
        path: "/v1/release",
        method: "post",
        summary: "Takes a hold back; for those who may hold",
        parameters: &[],
        body: Some("HoldRequest"),
        answers: &[
            Answer(200, JSON, Some("ReleaseAnswer"), "the authority decides again"),
            Answer(400, JSON, NO, "the request is malformed"),
            Answer(403, JSON, NO, "the caller may not"),
            Answer(404, JSON, NO, "it is not held"),
            Answer(503, JSON, NO, "it cannot be written down: it stays held"),
        ],
    },
    Operation {
        path: "/v1/status",
        method: "get",
        summary: "What the daemon holds, knows and promises; of agents those that the caller may see",
        parameters: &[],
        body: None,
        answers: &[Answer(200, JSON, Some("Status"), "as of now")],
    },
    Operation {
        path: "/v1/events",
        method: "get",
        summary: "What happens, as server-sent events whose data is an Event; an event `gap` says that some can no longer be told",
        parameters: &[
            Parameter("query", "from", "now (the default) or oldest: what is still kept comes first."),
            Parameter("query", "follow", "true (the default), or false: end when everything has been told."),
            Parameter("header", "Last-Event-ID", "Go on behind the event with this id."),
        ],
        body: None,
        answers: &[Answer(200, EVENTS, Some("Event"), "a stream"), Answer(400, JSON, NO, "a parameter is unknown")],
    },
    Operation {
        path: "/metrics",
        method: "get",
        summary: "Metrics in Prometheus' text format",
        parameters: &[],
        body: None,
        answers: &[Answer(200, TEXT, None, "as of now")],
    },
    Operation {
        path: "/healthz",
        method: "get",
        summary: "Whether the daemon is alive",
        parameters: &[],
        body: None,
        answers: &[Answer(200, TEXT, None, "it is")],
    },
    Operation {
        path: "/readyz",
        method: "get",
        summary: "Whether there is a decision no older than the lease. Ready is not allowed: a revoked host is ready and denying",
        parameters: &[],
        body: None,
        answers: &[Answer(200, TEXT, None, "there is"), Answer(503, TEXT, None, "there is none")],
    },
    Operation {
        path: "/v1/openapi.json",
        method: "get",
        summary: "This document",
        parameters: &[],
        body: None,
        answers: &[Answer(200, JSON, None, "an OpenAPI document")],
    },
];

fn whole() -> Value {
    let about = "The local socket: HTTP/1.1 on a unix socket. Every refusal, whatever its status, is JSON with \
                 \"allowed\": false. The paths of the authority's own API, /api/v1/devices/register and \
                 /api/v1/devices/validate, are answered as well, through the daemon's gates.";
    openapi::document("machineid-sidecar", about, OPERATIONS.iter(), openapi::describe, &Schemas::openapi())
}

#[cfg(test)]
mod documents {
    use super::*;

    #[test]
    fn the_description_of_the_socket_is_the_one_that_is_kept() {
        machineid_testing::openapi::is_the_one_that_is_kept("sidecar.json", &whole());
    }

    #[test]
    fn whatever_it_refers_to_is_in_it() {
        let found = machineid_testing::openapi::references(&whole());
        assert!(found > 30, "{found}");
    }
}
