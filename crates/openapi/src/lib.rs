//! Descriptions of HTTP APIs, `OpenAPI` 3.1. The schemas are made from the types that are sent, and each operation is
//! described beside its handler. A route takes both, so that none lacks a description.

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

/// One operation: a method of a path.
#[derive(Debug)]
pub struct Operation {
    /// The path.
    pub path: &'static str,
    /// The method, in lower case.
    pub method: &'static str,
    /// A summary of one line.
    pub summary: &'static str,
    /// The parameters in path, query and headers.
    pub parameters: &'static [Parameter],
    /// The schema of its body.
    pub body: Option<&'static str>,
    /// The possible answers.
    pub answers: &'static [AnswerDoc],
}

/// A parameter: its place, its name, and its description. Its schema is that of text, unless the dialect has another.
#[derive(Debug)]
pub struct Parameter(pub &'static str, pub &'static str, pub &'static str);

/// An answer: its status, its media type, its schema if it has one, and its description.
#[derive(Debug)]
pub struct AnswerDoc(pub u16, pub &'static str, pub Option<&'static str>, pub &'static str);

/// The schemas of an API's parameters and answers.
#[derive(Debug)]
pub struct Dialect {
    /// The schema of a parameter.
    pub parameter: fn(&Parameter) -> RefOr<Schema>,
    /// The parameters that are required, besides those of the path.
    pub required: &'static [&'static str],
    /// The schema of an answer, by its name.
    pub answer: fn(&str) -> RefOr<Schema>,
}

/// Makes a route of operations on one path, for a router that collects descriptions.
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

/// The schema of any text.
#[must_use]
pub fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// The document of an API.
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
