//! Descriptions of HTTP surfaces, `OpenAPI` 3.1: the schemas are made from the types that are sent, and what is asked how
//! stands in a table.

use serde_json::{Map, Value, json};

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
    pub(crate) answers: &'static [Answer],
}

/// Where it stands, its name, and what it means. Text, unless a schema is put beside it.
pub(crate) struct Parameter(pub(crate) &'static str, pub(crate) &'static str, pub(crate) &'static str);

/// The status, the media type, the schema if it has one, and when it comes.
pub(crate) struct Answer(
    pub(crate) u16,
    pub(crate) &'static str,
    pub(crate) Option<&'static str>,
    pub(crate) &'static str,
);

/// A document of these operations; `describe` makes one of each.
pub(crate) fn document<'a>(
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
pub(crate) fn describe(operation: &Operation) -> Value {
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
