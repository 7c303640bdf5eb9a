//! Descriptions of HTTP surfaces, `OpenAPI` 3.1: the schemas are made from the types that are sent, and what is asked how
//! stands beside the handler. A route is made of both, so that none goes without.

use axum::routing::MethodRouter;
use serde_json::{Value, json};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, ResponseBuilder, Schema};
use utoipa_axum::router::UtoipaMethodRouter;

/// Types that are text on the wire, with what is to be said of them and what they look like.
macro_rules! texts {
    ($($type:ident: $about:literal, $pattern:expr;)*) => {
        $(
            impl utoipa::PartialSchema for $type {
                fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                    utoipa::openapi::ObjectBuilder::new()
                        .schema_type(utoipa::openapi::Type::String)
                        .description(Some($about))
                        .pattern(Some($pattern))
                        .into()
                }
            }

            impl utoipa::ToSchema for $type {}
        )*
    };
}
pub(crate) use texts;

pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain";
pub(crate) const EVENTS: &str = "text/event-stream";

/// One way to ask.
pub(crate) struct Operation {
    pub(crate) path: &'static str,
    pub(crate) method: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) parameters: &'static [Parameter],
    /// The schema of its body.
    pub(crate) body: Option<&'static str>,
    pub(crate) answers: &'static [AnswerDoc],
}

/// Where it stands, its name, and what it means. Text, unless a schema is put beside it.
pub(crate) struct Parameter(pub(crate) &'static str, pub(crate) &'static str, pub(crate) &'static str);

/// The status, the media type, the schema if it has one, and when it comes.
pub(crate) struct AnswerDoc(
    pub(crate) u16,
    pub(crate) &'static str,
    pub(crate) Option<&'static str>,
    pub(crate) &'static str,
);

/// What the parameters and the answers of a surface look like.
pub(crate) struct Dialect {
    pub(crate) parameter: fn(&Parameter) -> RefOr<Schema>,
    /// The parameters that no request goes without, beside those of the path.
    pub(crate) required: &'static [&'static str],
    /// The schema of an answer, by its name.
    pub(crate) answer: fn(&str) -> RefOr<Schema>,
}

/// A route of these operations, which have one path, as a router with a description takes it.
pub(crate) fn described<S>(
    dialect: &Dialect,
    operations: &[&Operation],
    router: MethodRouter<S>,
) -> UtoipaMethodRouter<S> {
    (Vec::new(), paths(dialect, operations), router)
}

pub(crate) fn paths(dialect: &Dialect, operations: &[&Operation]) -> Paths {
    let mut paths = Paths::new();
    for operation in operations {
        let method = if operation.method == "get" { HttpMethod::Get } else { HttpMethod::Post };
        paths.add_path_operation(operation.path, vec![method], describe(dialect, operation));
    }
    paths
}

/// Any text.
pub(crate) fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// The document of a surface.
pub(crate) fn document(title: &str, about: &str, surface: &OpenApi) -> Value {
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

/// What tests hold of every document: it is the one that is kept, and whatever it refers to is in it.
#[cfg(test)]
pub(crate) mod documents {
    use serde_json::Value;

    /// `file` in `docs/openapi`, written anew when it is asked for.
    pub(crate) fn is_the_one_that_is_kept(file: &str, whole: &Value) {
        let text = serde_json::to_string_pretty(whole).unwrap() + "\n";
        let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi").join(file);
        #[expect(clippy::disallowed_methods, reason = "how the one who runs this test asks for a new file")]
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(&place, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&place).unwrap_or_default();
        assert!(kept == text, "write it anew with BLESS=1 cargo test --lib documents, and look at what changed");
    }

    /// Says how many references there are.
    pub(crate) fn references(whole: &Value) -> usize {
        let text = whole.to_string();
        let mut rest = text.as_str();
        let mut found = 0;
        while let Some(at) = rest.find("#/components/schemas/") {
            rest = &rest[at + "#/components/schemas/".len()..];
            let name = &rest[..rest.find('"').unwrap()];
            assert!(whole["components"]["schemas"][name].is_object(), "{name}");
            found += 1;
        }
        found
    }
}
