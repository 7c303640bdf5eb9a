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

use super::access::Permission;
use super::app::App;
use super::routes::answer::Answer;
use super::routes::openapi::{Route, described};
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

const DOCUMENT: Route = Route::needing(
    Permission::Public,
    Operation {
        path: path::OPENAPI,
        method: "get",
        summary: "This document",
        parameters: &[],
        body: None,
        answers: &[AnswerDoc(200, JSON, None, "an OpenAPI document")],
    },
);

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
            refuse_wrong_role(&mut operation["responses"]["403"]);
        }
    }
    whole["paths"][path::VALIDATE]["post"]["responses"]["503"]["headers"] = json!({ UNDECIDED_HEADER: {
        "description": "There is no decision, so this is not a deny either: the lease of an earlier ALLOW continues.",
        "required": true,
        "schema": { "const": "1" }
    }});
    whole
}

/// Every route with a key can be asked with one of the wrong role.
fn refuse_wrong_role(answer: &mut Value) {
    const WHEN: &str = "the key's role may not do this: `not_permitted`";
    let refusal =
        json!({ "allOf": [{ "$ref": "#/components/schemas/Refusal" }, { "$ref": "#/components/schemas/Numbered" }] });
    if !answer.is_object() {
        *answer = json!({ "description": WHEN, "content": { JSON: { "schema": refusal } } });
        return;
    }
    let when = answer["description"].as_str().unwrap_or_default();
    if !when.contains("not_permitted") {
        answer["description"] = format!("{when}, or {WHEN}").into();
        let schema = &mut answer["content"][JSON]["schema"];
        *schema = json!({ "anyOf": [schema.take(), refusal] });
    }
}

#[cfg(test)]
mod documents {
    use super::*;
    use crate::access::Grant;
    use crate::routes::openapi::{PERMISSION, STOPS};

    #[test]
    fn the_description_of_the_authority_is_the_one_that_is_kept() {
        machineid_testing::openapi::is_the_one_that_is_kept("authority.json", &whole());
    }

    /// The table of `docs/authority.md`: which role may use which route, and which agents that stops.
    fn table() -> String {
        use std::fmt::Write;

        use machineid_protocol::KeyRole;
        let mut rows = String::from(
            "| route | permission | host | stop | read | operate | admin | stops agents |\n|---|---|---|---|---|---|---|---|\n",
        );
        let whole = whole();
        for (path, item) in whole["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation[PERMISSION].as_str().unwrap();
                let needs = Permission::ALL.into_iter().find(|needs| needs.as_str() == name).unwrap();
                let roles = KeyRole::ALL.map(|role| match needs.of(role) {
                    Grant::Whole => "yes",
                    Grant::OwnDevices if needs == Permission::Remove => "own, active",
                    Grant::OwnDevices => "own",
                    Grant::No => "",
                });
                let (method, stops) = (method.to_uppercase(), operation[STOPS].as_str().unwrap());
                let roles = roles.join(" | ");
                writeln!(rows, "| `{method} {path}` | {name} | {roles} | {stops} |").unwrap();
            }
        }
        rows
    }

    #[test]
    fn the_table_of_routes_and_roles_in_the_manual_is_the_one_that_is_checked() {
        let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/authority.md");
        let page = std::fs::read_to_string(&place).unwrap();
        let (begin, end) = ("<!-- routes and roles -->\n", "<!-- end of routes and roles -->");
        let (head, rest) = page.split_once(begin).unwrap();
        let (kept, tail) = rest.split_once(end).unwrap();
        let table = table();
        #[expect(clippy::disallowed_methods, reason = "how the one who runs this test asks for a new table")]
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&place, format!("{head}{begin}{table}{end}{tail}")).unwrap();
            return;
        }
        assert!(kept == table, "write it anew with BLESS=1 cargo test --lib documents, and look at what changed");
    }

    #[test]
    fn the_ways_to_ask_at_one_path_need_the_same_permission() {
        let whole = whole();
        for (path, item) in whole["paths"].as_object().unwrap() {
            let needs: std::collections::BTreeSet<_> =
                item.as_object().unwrap().values().map(|operation| operation[PERMISSION].to_string()).collect();
            assert_eq!(needs.len(), 1, "{path}");
        }
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
