//! The whole HTTP surface: the API and the pages of the console, and `GET /api/v1/openapi.json`, which describes it.
//!
//! The schemas are made from the wire types of [`super::routes`]; each operation is described beside its handler, and a
//! route is made of both. The document is stored in `docs/openapi/authority.json`, so that a change of the API is
//! reviewed, and `tests/api/run` tests a running server against it.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use machineid_openapi::{self as openapi, AnswerDoc, JSON, Operation};
use machineid_protocol::api::{KEY_HEADER, UNDECIDED_HEADER, path};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;

use super::app::App;
use super::routes::answer::Answer;
use super::routes::openapi::described;
use super::{console, routes};

/// All routes.
pub(super) fn router(app: Arc<App>) -> Router {
    let (api, _) = api().split_for_parts();
    routes::finished(api.merge(console::router(&app)), app)
}

/// The routes of the API, with the one of its description.
fn api() -> OpenApiRouter<Arc<App>> {
    routes::api().routes(described(&[&DOCUMENT], get(document)))
}

const DOCUMENT: Operation = Operation {
    path: path::OPENAPI,
    method: "get",
    summary: "This document",
    parameters: &[],
    body: None,
    answers: &[AnswerDoc(200, JSON, None, "an OpenAPI document")],
};

async fn document() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| whole().to_string()).as_str();
    Answer::document(text).into_response()
}

/// The description of the surface.
fn whole() -> Value {
    let about = "Decides what may execute: the service's API as this authority implements it, with its extensions. Every refusal, \
                 whatever its status, reads as no. An answer in JSON always has a `request_id`. A method that a path does \
                 not have is answered 405 with Allow.";
    let (_, surface) = api().merge(console::public()).split_for_parts();
    let mut whole = openapi::document("machineid-authority", about, &surface);
    whole["components"]["securitySchemes"] =
        json!({ "orgKey": { "type": "apiKey", "in": "header", "name": KEY_HEADER } });
    let paths = whole["paths"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut);
    for operation in paths.filter_map(Value::as_object_mut).flat_map(serde_json::Map::values_mut) {
        if operation["responses"]["401"].is_object() {
            operation["security"] = json!([{ "orgKey": [] }]);
        }
    }
    whole["paths"][path::VALIDATE]["post"]["responses"]["503"]["headers"] = json!({ UNDECIDED_HEADER: {
        "description": "There is no decision, so this is not a deny either: the lease of an earlier ALLOW continues.",
        "required": true,
        "schema": { "const": "1" }
    }});
    whole
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
