//! `GET /v1/openapi.json`: the description of the socket. The schemas are generated from the types that are sent; each
//! operation is described beside its handler, and a route consists of both. The document is kept in
//! `docs/openapi/sidecar.json`, so that every change of the interface is reviewed.

use std::sync::{Arc, OnceLock};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::Ref;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use machineid_openapi::{self as openapi, AnswerDoc, Dialect, JSON, Operation, Parameter, TEXT};
use machineid_protocol::event::Event;
use machineid_protocol::local::{
    AdoptAnswer, AdoptRequest, CheckAnswer, HoldAnswer, HoldRequest, OutsideReport, ReleaseAnswer, StopAnswer,
    StopRequest, SuperviseEvent, SuperviseRequest, ThawAnswer,
};
use machineid_protocol::status::Status;

use super::{Context, check};

pub(super) const DOCUMENT: Operation = Operation {
    path: "/v1/openapi.json",
    method: "get",
    summary: "This document",
    parameters: &[],
    body: None,
    answers: &[AnswerDoc(200, JSON, None, "an OpenAPI document")],
};

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
    AdoptRequest,
    AdoptAnswer,
    StopRequest,
    StopAnswer,
    HoldRequest,
    HoldAnswer,
    OutsideReport,
    ReleaseAnswer,
    ThawAnswer,
    Status,
    Event,
)))]
struct Schemas;

pub(super) const LINES: &str = "application/x-ndjson";
pub(super) const NO: Option<&str> = Some("CheckAnswer");

pub(super) const CHECK: &[AnswerDoc] = &[
    AnswerDoc(200, JSON, NO, "allowed; no other status means allowed"),
    AnswerDoc(400, JSON, NO, "the question is malformed"),
    AnswerDoc(403, JSON, NO, "denied"),
    AnswerDoc(503, JSON, NO, "there is no decision; Retry-After says when to ask again"),
];
pub(super) const RUN_ID: Parameter = Parameter("query", "run_id", "The run: 32 hex digits.");

pub(super) const HEALTHZ: Operation = Operation {
    path: "/healthz",
    method: "get",
    summary: "Whether the daemon is alive",
    parameters: &[],
    body: None,
    answers: &[AnswerDoc(200, TEXT, None, "the daemon is alive")],
};

const DIALECT: Dialect =
    Dialect { parameter: |_| openapi::text(), required: &[], answer: |name| Ref::from_schema_name(name).into() };

/// A route with its description.
pub(super) fn described(
    operations: &[&Operation],
    router: MethodRouter<Arc<Context>>,
) -> UtoipaMethodRouter<Arc<Context>> {
    openapi::described(&DIALECT, operations, router)
}

/// A surface without routes. One description is added here: its route also matches everything below its path, which a
/// described route cannot express.
pub(super) fn surface() -> OpenApiRouter<Arc<Context>> {
    let mut surface = Schemas::openapi();
    surface.paths.merge(openapi::paths(&DIALECT, &[&check::AUTHORIZE]));
    OpenApiRouter::with_openapi(surface)
}

fn whole() -> Value {
    let about = "The local socket: HTTP/1.1 on a unix socket. Every refusal, whatever its status, is JSON with \
                 \"allowed\": false. The paths of the authority's own API, /api/v1/devices/register and \
                 /api/v1/devices/validate, are answered as well, through the daemon's gates.";
    openapi::document("machineid-sidecar", about, super::surface().get_openapi())
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
