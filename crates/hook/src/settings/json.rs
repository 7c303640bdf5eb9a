//! The hook in settings that are JSON, also with comments.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode};
use serde_json::Value;

use super::{Edit, SettingsError, is_own, is_own_alone, is_too_deep, switches_alone};
use crate::agents::Agent;

/// Comments and trailing commas are common in settings; the rest of JSON5 is not.
const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

pub(super) fn install(old: &str, edits: &[Edit], agent: Agent) -> Result<String, SettingsError> {
    let fresh = old.trim().is_empty();
    let root = parse(if fresh { "{}" } else { old })?;
    let top = top(&root)?;
    for edit in edits {
        match edit {
            Edit::Entry { path, value } => {
                let (list, above) = path.split_last().ok_or_else(|| shape(path, "a path"))?;
                let object = descend(&top, above)?;
                let array = match child(&object, list, path)? {
                    None => object.array_value_or_set(list),
                    Some(node) => node.as_array().ok_or_else(|| shape(path, "a list"))?,
                };
                put(&array, value, agent);
            }
            Edit::Switch { path, value } => {
                let (name, above) = path.split_last().ok_or_else(|| shape(path, "a path"))?;
                let object = descend(&top, above)?;
                match child(&object, name, path)? {
                    Some(node) if node.to_serde_value().as_ref() == Some(value) => {}
                    Some(_) => {
                        if let Some(property) = object.get(name) {
                            property.set_value(input(value));
                        }
                    }
                    None => {
                        object.append(name, input(value));
                    }
                }
            }
        }
    }
    let text = root.to_string();
    Ok(if fresh && !text.ends_with('\n') { text + "\n" } else { text })
}

pub(super) fn uninstall(old: &str, edits: &[Edit], agent: Agent) -> Result<Option<String>, SettingsError> {
    if old.trim().is_empty() {
        return Ok(Some(old.to_owned()));
    }
    let root = parse(old)?;
    let top = top(&root)?;
    let mut removed = false;
    for edit in edits {
        let Edit::Entry { path, .. } = edit else { continue };
        // A path that does not lead to a list holds no hook.
        let mut objects = vec![top.clone()];
        for name in &path[..path.len().saturating_sub(1)] {
            let Some(next) = objects.last().and_then(|object| object.object_value(name)) else { break };
            objects.push(next);
        }
        let Some(list) = path.last().filter(|_| objects.len() == path.len()) else { continue };
        let Some(array) = objects.last().and_then(|object| object.array_value(list)) else { continue };
        if !take_out(&array, agent) {
            continue;
        }
        removed = true;
        if array.elements().is_empty() {
            // What is empty now was made for the hook.
            for (object, name) in objects.iter().zip(path).rev() {
                let empty = object.get(name).and_then(|property| property.value()).is_some_and(|value| {
                    value.as_array().is_some_and(|array| array.elements().is_empty())
                        || value.as_object().is_some_and(|object| object.properties().is_empty())
                });
                if !empty {
                    break;
                }
                if let Some(property) = object.get(name) {
                    property.remove();
                }
            }
        }
    }
    if !removed {
        return Ok(Some(old.to_owned()));
    }
    let text = root.to_string();
    let commented = text.contains("//") || text.contains("/*");
    let rest = root.to_serde_value();
    let ours = rest
        .is_some_and(|rest| rest == switches_alone(edits) || rest.as_object().is_some_and(serde_json::Map::is_empty));
    Ok((!ours || commented).then_some(text))
}

pub(super) fn value(text: &str) -> Result<Value, SettingsError> {
    if text.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let root = parse(text)?;
    top(&root)?;
    Ok(root.to_serde_value().unwrap_or_default())
}

fn parse(text: &str) -> Result<CstRootNode, SettingsError> {
    if is_too_deep(text) {
        return Err(SettingsError::TooDeep);
    }
    CstRootNode::parse(text, &OPTIONS)
        .map_err(|error| SettingsError::Syntax { language: "JSON", why: error.to_string() })
}

fn top(root: &CstRootNode) -> Result<CstObject, SettingsError> {
    let value = root.value().and_then(|value| value.as_object());
    value.ok_or_else(|| SettingsError::Shape { path: "the whole".to_owned(), expected: "an object" })
}

/// The object at this path, made where it is missing.
fn descend(top: &CstObject, path: &[&'static str]) -> Result<CstObject, SettingsError> {
    let mut object = top.clone();
    for (at, name) in path.iter().enumerate() {
        let path = &path[..=at];
        object = match child(&object, name, path)? {
            None => object.object_value_or_set(name),
            Some(node) => node.as_object().ok_or_else(|| shape(path, "an object"))?,
        };
    }
    Ok(object)
}

/// The value of this name, which must not stand there twice.
fn child(object: &CstObject, name: &str, path: &[&str]) -> Result<Option<CstNode>, SettingsError> {
    let mut named = object.properties().into_iter().filter(|property| property.decoded_name().as_deref() == Some(name));
    let first = named.next();
    if named.next().is_some() {
        return Err(SettingsError::Twice { path: path.join(".") });
    }
    Ok(first.and_then(|property| property.value()))
}

/// Puts our element into the list; one of ours that is there already is replaced where it stands.
fn put(array: &CstArray, wanted: &Value, agent: Agent) {
    let elements = array.elements();
    let ours: Vec<(&CstNode, Value)> = elements
        .iter()
        .filter_map(|element| Some((element, element.to_serde_value()?)))
        .filter(|(_, value)| is_own(value, agent))
        .collect();
    if let [(_, value)] = ours.as_slice()
        && value == wanted
    {
        return;
    }
    take_out(array, agent);
    array.append(input(wanted));
}

/// Removes our hooks from the list. Returns whether there were any.
fn take_out(array: &CstArray, agent: Agent) -> bool {
    let mut removed = false;
    for element in array.elements() {
        let Some(value) = element.to_serde_value().filter(|value| is_own(value, agent)) else { continue };
        removed = true;
        if is_own_alone(&value, agent) {
            element.remove();
        } else if let Some(hooks) = element.as_object().and_then(|group| group.array_value("hooks")) {
            // Hooks of others share the group.
            take_out(&hooks, agent);
        }
    }
    removed
}

fn shape(path: &[&str], expected: &'static str) -> SettingsError {
    SettingsError::Shape { path: path.join("."), expected }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(value) => CstInputValue::Number(value.to_string()),
        Value::String(value) => CstInputValue::String(value.clone()),
        Value::Array(values) => CstInputValue::Array(values.iter().map(input).collect()),
        Value::Object(fields) => {
            CstInputValue::Object(fields.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}
