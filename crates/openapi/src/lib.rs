//! Descriptions of HTTP surfaces, `OpenAPI` 3.1: the schemas are made from the types that are sent, and what is asked how
//! stands beside the handler. A route is made of both, so that none goes without.

#![forbid(unsafe_code)]

use axum::routing::MethodRouter;
use serde_json::{Value, json};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, ResponseBuilder, Schema};
use utoipa_axum::router::UtoipaMethodRouter;

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
    pub answers: &'static [AnswerDoc],
}

/// Where it stands, its name, and what it means. Text, unless a schema is put beside it.
#[derive(Debug)]
pub struct Parameter(pub &'static str, pub &'static str, pub &'static str);

/// The status, the media type, the schema if it has one, and when it comes.
#[derive(Debug)]
pub struct AnswerDoc(pub u16, pub &'static str, pub Option<&'static str>, pub &'static str);

/// What the parameters and the answers of a surface look like.
#[derive(Debug)]
pub struct Dialect {
    /// The schema of a parameter.
    pub parameter: fn(&Parameter) -> RefOr<Schema>,
    /// The parameters that no request goes without, beside those of the path.
    pub required: &'static [&'static str],
    /// The schema of an answer, by its name.
    pub answer: fn(&str) -> RefOr<Schema>,
}

/// A route of these operations, which have one path, as a router with a description takes it.
pub fn described<S>(dialect: &Dialect, operations: &[&Operation], router: MethodRouter<S>) -> UtoipaMethodRouter<S> {
    (Vec::new(), paths(dialect, operations), router)
}

/// The paths of these operations.
#[must_use]
pub fn paths(dialect: &Dialect, operations: &[&Operation]) -> Paths {
    let mut paths = Paths::new();
    for operation in operations {
        let method = if operation.method == "get" { HttpMethod::Get } else { HttpMethod::Post };
        paths.add_path_operation(operation.path, vec![method], describe(dialect, operation));
    }
    paths
}

/// Any text.
#[must_use]
pub fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// The document of a surface.
#[must_use]
pub fn document(title: &str, about: &str, surface: &OpenApi) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": "1",
            "description": about,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "paths": serde_json::to_value(&surface.paths).unwrap_or_default(),
        "components": serde_json::to_value(&surface.components).unwrap_or_default()
    })
}

fn describe(dialect: &Dialect, operation: &Operation) -> OperationBuilder {
    let mut described = OperationBuilder::new().summary(Some(operation.summary));
    for parameter in operation.parameters {
        let Parameter(place, name, about) = parameter;
        let place = match *place {
            "path" => ParameterIn::Path,
            "header" => ParameterIn::Header,
            _ => ParameterIn::Query,
        };
        let is_required = place == ParameterIn::Path || dialect.required.contains(name);
        let required = if is_required { Required::True } else { Required::False };
        described = described.parameter(
            ParameterBuilder::new()
                .name(*name)
                .parameter_in(place)
                .description(Some(*about))
                .required(required)
                .schema(Some((dialect.parameter)(parameter))),
        );
    }
    for AnswerDoc(status, kind, schema, when) in operation.answers {
        let schema = schema.map_or_else(anything, dialect.answer);
        let response = ResponseBuilder::new().description(*when).content(*kind, Content::new(Some(schema)));
        described = described.response(status.to_string(), response);
    }
    if let Some(schema) = operation.body {
        let content = Content::new(Some(Ref::from_schema_name(schema)));
        let body = RequestBodyBuilder::new().required(Some(Required::True)).content(JSON, content).build();
        described = described.request_body(Some(body));
    }
    described
}

fn anything() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).into()
}
