//! `GET /api/v1/openapi.json`: the API, described. The schemas are made from the types in [`super::wire`]; what is asked how
//! stands here in a table. The whole is kept in `docs/openapi/authority.json`, so that a change of the API is one under
//! review, and `tests/api/run` holds a running server to it.

use std::sync::OnceLock;

use axum::response::{IntoResponse, Response};
use machineid_openapi::{self as openapi, Answer, EVENTS, JSON, Operation, Parameter};
use machineid_protocol::api::{KEY_HEADER, UNDECIDED_HEADER, path};
use machineid_protocol::report::{FleetPage, Report, StopList, Timeline};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::answer;
use super::wire::{
    AuditPage, BatchRevoked, BatchUnrevoked, Checkout, Decision, DeviceDone, DeviceList, DeviceManaged, DeviceNamed,
    DevicesNamed, Health, Nothing, Numbered, OrgCreated, PlanWanted, Refusal, RevokeBatch, UnrevokeBatch, Usage,
};

#[derive(OpenApi)]
#[openapi(components(schemas(
    AuditPage,
    BatchRevoked,
    BatchUnrevoked,
    Checkout,
    Decision,
    DeviceDone,
    DeviceList,
    DeviceManaged,
    DeviceNamed,
    DevicesNamed,
    Health,
    Nothing,
    Numbered,
    OrgCreated,
    PlanWanted,
    Refusal,
    RevokeBatch,
    UnrevokeBatch,
    Usage,
    Report,
    FleetPage,
    StopList,
    Timeline,
)))]
struct Schemas;

const HTML: &str = "text/html; charset=utf-8";
const NO: Option<&str> = Some("Refusal");

const MALFORMED: Answer = Answer(400, JSON, NO, "the request is malformed, or names something invalid");
const BAD_KEY: Answer = Answer(401, JSON, NO, "the key is missing or nobody's");
const NO_ORG: Answer = Answer(404, JSON, NO, "the key is that of a deleted organisation");
const LATE: Answer = Answer(408, JSON, NO, "the body did not arrive in time");
const LIMITED: Answer = Answer(429, JSON, NO, "too many; Retry-After says when to come again");
const UNAVAILABLE: Answer =
    Answer(503, JSON, NO, "the store cannot say; nothing was changed, or it was and asking again is safe");
const FULL: Answer = Answer(403, JSON, Some("DeviceDone"), "the plan has no place for it");
const NOT_FOUND: Answer = Answer(404, JSON, NO, "there is no such device, or no such organisation any more");
const DONE: Answer = Answer(200, JSON, Some("DeviceDone"), "done, or nothing was left to do");

/// `{"scope": …}` and the like are bodies; these are queries and parts of paths.
const DEVICE_STATUS: Parameter = Parameter("query", "status", "Only these.");
const CONTAINING: Parameter = Parameter("query", "q", "Only ids that contain this.");
const LIMIT: Parameter = Parameter("query", "limit", "At most so many.");
const CURSOR: Parameter = Parameter("query", "cursor", "Go on behind the page that gave this as nextCursor.");
const BEFORE: Parameter = Parameter("query", "cursor", "Go on behind the page that gave this number as nextCursor.");
const ABOUT: Parameter =
    Parameter("query", "device", "Only what is about this device, alone or in a batch that changed it.");
const WATCHED: Parameter = Parameter("query", "deviceId", "A device; given once for each.");
const AMONG: Parameter = Parameter("query", "deviceId", "Only these; given once for each.");
const ONE_DEVICE: Parameter = Parameter("query", "deviceId", "The device.");
const TOKEN: Parameter = Parameter("path", "token", "The secret in the address.");

/// The schemas of parameters that are more than any text.
fn schema_of(Parameter(_, name, about): &Parameter) -> Value {
    match *name {
        "status" => json!({ "$ref": "#/components/schemas/DeviceStatus" }),
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 1_000 }),
        "cursor" if *about == BEFORE.2 => json!({ "type": "integer", "format": "int64" }),
        "deviceId" if *about == ONE_DEVICE.2 => json!({ "$ref": "#/components/schemas/DeviceText" }),
        "cursor" => json!({ "$ref": "#/components/schemas/DeviceText" }),
        "deviceId" => json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/components/schemas/DeviceText" } }),
        _ => json!({ "type": "string" }),
    }
}

const OPERATIONS: &[Operation] = &[
    Operation {
        path: path::ORG_CREATE,
        method: "post",
        summary: "A new free organisation, for anybody, unless the operator says otherwise",
        parameters: &[],
        body: Some("Nothing"),
        answers: &[
            Answer(200, JSON, Some("OrgCreated"), "made"),
            MALFORMED,
            Answer(403, JSON, NO, "only the operator makes organisations here"),
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
    Operation {
        path: path::REGISTER,
        method: "post",
        summary: "Makes a device known; safe on every boot",
        parameters: &[],
        body: Some("DeviceNamed"),
        answers: &[
            Answer(200, JSON, Some("DeviceDone"), "`ok` when it is new, `exists` when it was known"),
            MALFORMED,
            BAD_KEY,
            Answer(403, JSON, Some("DeviceDone"), "the plan has no place for it, or it is revoked"),
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
    Operation {
        path: path::VALIDATE,
        method: "post",
        summary: "May this device execute? Whatever the status, the answer is a decision, and only `allowed` counts",
        parameters: &[],
        body: Some("DeviceNamed"),
        answers: &[
            Answer(200, JSON, DECISION, "a whole decision: ALLOW, or why not"),
            Answer(400, JSON, DECISION, "INVALID_DEVICE_ID"),
            Answer(401, JSON, DECISION, "INVALID_ORG_KEY"),
            Answer(404, JSON, DECISION, "ORG_NOT_FOUND: the key is that of a deleted organisation"),
            Answer(429, JSON, DECISION, "INVALID_ORG_KEY, and too often; Retry-After says when to come again"),
            Answer(503, JSON, DECISION, "SYSTEM_UNAVAILABLE: no decision could be completed"),
        ],
    },
    Operation {
        path: path::LIST,
        method: "get",
        summary: "The devices; all of them, unless a limit is given",
        parameters: &[DEVICE_STATUS, CONTAINING, LIMIT, CURSOR],
        body: None,
        answers: &[
            Answer(200, JSON, Some("DeviceList"), "as of one moment"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LIMITED,
            UNAVAILABLE,
        ],
    },
    Operation {
        path: path::REVOKE,
        method: "post",
        summary: "Denies a device from its next validation on",
        parameters: &[],
        body: Some("DeviceManaged"),
        answers: &[DONE, MALFORMED, BAD_KEY, NOT_FOUND, LATE, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::UNREVOKE,
        method: "post",
        summary: "Takes a revoke back; starts nothing again",
        parameters: &[],
        body: Some("DeviceManaged"),
        answers: &[DONE, MALFORMED, BAD_KEY, FULL, NOT_FOUND, LATE, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::REVOKE_BATCH,
        method: "post",
        summary: "Revokes up to 500 devices, or all active ones; all of it or nothing",
        parameters: &[],
        body: Some("RevokeBatch"),
        answers: &[
            Answer(200, JSON, Some("BatchRevoked"), "what became of each distinct id, or how many there were"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
    Operation {
        path: path::UNREVOKE_BATCH,
        method: "post",
        summary: "Unrevokes up to 500 devices, or all revoked ones, while the plan has places",
        parameters: &[],
        body: Some("UnrevokeBatch"),
        answers: &[
            Answer(200, JSON, Some("BatchUnrevoked"), "what became of each distinct id, or how many were restored"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
    Operation {
        path: path::REMOVE,
        method: "post",
        summary: "Forgets a device. To stop one, revoke it",
        parameters: &[],
        body: Some("DeviceManaged"),
        answers: &[DONE, MALFORMED, BAD_KEY, NOT_FOUND, LATE, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::USAGE,
        method: "get",
        summary: "The plan, and how much of it is used",
        parameters: &[],
        body: None,
        answers: &[Answer(200, JSON, Some("Usage"), "as of now"), BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::CHECKOUT,
        method: "post",
        summary: "Asks for a larger plan: where an operator confirms it",
        parameters: &[],
        body: Some("PlanWanted"),
        answers: &[
            Answer(200, JSON, Some("Checkout"), "an address for an hour"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
    Operation {
        path: path::AUDIT,
        method: "get",
        summary: "Who changed what, when and why, the newest first; 100 unless a limit is given. An extension",
        parameters: &[ABOUT, LIMIT, BEFORE],
        body: None,
        answers: &[Answer(200, JSON, Some("AuditPage"), "a page"), MALFORMED, BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::WATCH,
        method: "get",
        summary: "Events `validate` when something about these devices changes. A hint to validate, never a decision. An extension",
        parameters: &[WATCHED],
        body: None,
        answers: WATCH,
    },
    Operation {
        path: path::WATCH,
        method: "post",
        summary: "The same for more devices than an address has room for",
        parameters: &[],
        body: Some("DevicesNamed"),
        answers: WATCH,
    },
    Operation {
        path: path::EVENTS,
        method: "get",
        summary: "Events `changed` when anything in the organisation does. An extension",
        parameters: &[],
        body: None,
        answers: &[STREAM, BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::REPORT,
        method: "post",
        summary: "What a sidecar holds and what it stopped. Decides nothing. An extension",
        parameters: &[],
        body: Some("Report"),
        answers: &[HEALTHY, MALFORMED, BAD_KEY, NO_ORG, LATE, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::FLEET,
        method: "get",
        summary: "The devices with what their sidecars reported. An extension",
        parameters: &[DEVICE_STATUS, CONTAINING, AMONG, LIMIT, CURSOR],
        body: None,
        answers: &[Answer(200, JSON, Some("FleetPage"), "a page"), MALFORMED, BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::STOPS,
        method: "get",
        summary: "The newest stops of a device. An extension",
        parameters: &[ONE_DEVICE],
        body: None,
        answers: &[Answer(200, JSON, Some("StopList"), "the stops"), MALFORMED, BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::TIMELINE,
        method: "get",
        summary: "What happened on a device, the newest first. An extension",
        parameters: &[ONE_DEVICE],
        body: None,
        answers: &[Answer(200, JSON, Some("Timeline"), "the events"), MALFORMED, BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
    Operation {
        path: path::OPENAPI,
        method: "get",
        summary: "This document",
        parameters: &[],
        body: None,
        answers: &[Answer(200, JSON, None, "an OpenAPI document")],
    },
    Operation {
        path: "/checkout/{token}",
        method: "get",
        summary: "The page of a checkout, for a browser",
        parameters: &[TOKEN],
        body: None,
        answers: PAGE,
    },
    Operation {
        path: "/checkout/{token}",
        method: "post",
        summary: "Confirms it, where the address is one that an operator printed",
        parameters: &[TOKEN],
        body: None,
        answers: PAGE,
    },
    Operation {
        path: "/healthz",
        method: "get",
        summary: "Whether the server is alive",
        parameters: &[],
        body: None,
        answers: &[HEALTHY],
    },
    Operation {
        path: "/readyz",
        method: "get",
        summary: "Whether its store answers",
        parameters: &[],
        body: None,
        answers: &[HEALTHY, Answer(503, JSON, NO, "it does not; `reason` says why where that is known")],
    },
];

const DECISION: Option<&str> = Some("Decision");
const STREAM: Answer =
    Answer(200, EVENTS, None, "server-sent events; `ready` is the first, and a comment is a heartbeat");
const WATCH: &[Answer] = &[STREAM, MALFORMED, BAD_KEY, NO_ORG, LATE, LIMITED, UNAVAILABLE];
const PAGE: &[Answer] = &[
    Answer(200, HTML, None, "a page"),
    Answer(400, JSON, NO, "the token is no text"),
    Answer(410, HTML, None, "used, too old, or never given out"),
    Answer(503, JSON, NO, "the store cannot say"),
];
const HEALTHY: Answer = Answer(200, JSON, Some("Health"), "it is");

pub(super) async fn document() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| whole().to_string()).as_str();
    answer::Answer::document(text).into_response()
}

fn whole() -> Value {
    let about = "What may execute: the API of the service, as this authority answers it, and its extensions. Every refusal, \
                 whatever its status, reads as no. An answer in JSON always has a `request_id`. A method that a path does \
                 not have is answered 405 with Allow.";
    let mut whole = openapi::document("machineid-authority", about, OPERATIONS.iter(), described, &Schemas::openapi());
    whole["components"]["securitySchemes"] =
        json!({ "orgKey": { "type": "apiKey", "in": "header", "name": KEY_HEADER } });
    whole
}

/// The operation with what is peculiar to this API.
fn described(operation: &Operation) -> Value {
    let mut described = openapi::describe(operation);
    let parameters = described.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
    for (parameter, named) in operation.parameters.iter().zip(parameters) {
        named["schema"] = schema_of(parameter);
        if parameter.1 == WATCHED.1 {
            named["required"] = true.into();
        }
    }
    for Answer(status, kind, schema, _) in operation.answers {
        let Some(schema) = schema else { continue };
        let schema = [schema, "Numbered"].map(|name| json!({ "$ref": format!("#/components/schemas/{name}") }));
        described["responses"][status.to_string()]["content"][kind]["schema"] = json!({ "allOf": schema });
    }
    if operation.path == path::VALIDATE {
        described["responses"]["503"]["headers"] = json!({ UNDECIDED_HEADER: {
            "description": "There is no decision, so that this is no deny either: the lease of an earlier ALLOW goes on.",
            "required": true,
            "schema": { "const": "1" }
        }});
    }
    if operation.answers.iter().any(|Answer(status, ..)| *status == 401) {
        described["security"] = json!([{ "orgKey": [] }]);
    }
    described
}

#[cfg(test)]
mod documents {
    use super::*;

    #[test]
    fn the_description_of_the_authority_is_the_one_that_is_kept() {
        machineid_testing::openapi::is_the_one_that_is_kept("authority.json", &whole());
    }

    #[test]
    fn whatever_it_refers_to_is_in_it() {
        let found = machineid_testing::openapi::references(&whole());
        assert!(found > 100, "{found}");
    }

    #[test]
    fn every_path_that_is_served_is_in_it() {
        let whole = whole();
        for path in path::SERVED {
            assert!(whole["paths"][path].is_object(), "{path}");
        }
    }
}
