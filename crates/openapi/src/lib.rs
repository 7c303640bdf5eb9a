//! Descriptions of HTTP surfaces, `OpenAPI` 3.1: the schemas are made from the types that are sent, and what is asked how
//! stands in a table.

#![forbid(unsafe_code)]

use serde_json::{Map, Value, json};
/// For [`texts`].
pub use utoipa;

/// Types that are text on the wire, with what is to be said of them and what they look like.
#[macro_export]
macro_rules! texts {
    ($($type:ident: $about:literal, $pattern:expr;)*) => {
        $(
            impl $crate::utoipa::PartialSchema for $type {
                fn schema() -> $crate::utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                    $crate::utoipa::openapi::ObjectBuilder::new()
                        .schema_type($crate::utoipa::openapi::Type::String)
                        .description(Some($about))
                        .pattern(Some($pattern))
                        .into()
                }
            }

            impl $crate::utoipa::ToSchema for $type {}
        )*
    };
}

/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of plain text.
pub const TEXT: &str = "text/plain";
/// The media type of an event stream.
pub const EVENTS: &str = "text/event-stream";

/// One way to ask.
#[derive(Debug)]
pub struct Operation {
    /// The path.
    pub path: &'static str,
    /// The method, in small letters.
    pub method: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What stands in path, query and headers.
    pub parameters: &'static [Parameter],
    /// The schema of its body.
    pub body: Option<&'static str>,
    /// What may be answered.
    pub answers: &'static [Answer],
}

/// Where it stands, its name, and what it means. Text, unless a schema is put beside it.
#[derive(Debug)]
pub struct Parameter(pub &'static str, pub &'static str, pub &'static str);

/// The status, the media type, the schema if it has one, and when it comes.
#[derive(Debug)]
pub struct Answer(pub u16, pub &'static str, pub Option<&'static str>, pub &'static str);

/// A document of these operations; `describe` makes one of each.
pub fn document<'a>(
    title: &str,
    about: &str,
    operations: impl Iterator<Item = &'a Operation>,
    describe: impl Fn(&Operation) -> Value,
    schemas: &utoipa::openapi::OpenApi,
) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": "1",
            "description": about,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "paths": paths,
        "components": serde_json::to_value(&schemas.components).unwrap_or_default()
    })
}

/// One operation, its parameters all text.
#[must_use]
pub fn describe(operation: &Operation) -> Value {
    let parameters: Vec<Value> = operation
        .parameters
        .iter()
        .map(|Parameter(place, name, about)| {
            json!({
                "in": place, "name": name, "description": about, "required": *place == "path",
                "schema": { "type": "string" }
            })
        })
        .collect();
    let mut answers: Map<String, Value> = Map::new();
    for Answer(status, kind, schema, when) in operation.answers {
        answers.insert(status.to_string(), json!({ "description": when, "content": content(kind, *schema) }));
    }
    let mut described = json!({ "summary": operation.summary, "responses": answers });
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(schema) = operation.body {
        described["requestBody"] = json!({ "required": true, "content": content(JSON, Some(schema)) });
    }
    described
}

/// What is sent or answered: a media type, with a schema where there is one.
fn content(kind: &str, schema: Option<&str>) -> Value {
    let schema = schema.map_or(json!({}), |name| json!({ "$ref": format!("#/components/schemas/{name}") }));
    json!({ kind: { "schema": schema } })
}
