//! The hook in settings that are TOML.

use serde_json::Value;
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, value as toml_value};

use super::{Edit, SettingsError, is_own, is_own_alone, is_too_deep, switches_alone};
use crate::agents::Agent;

pub(super) fn install(old: &str, edits: &[Edit], agent: Agent) -> Result<String, SettingsError> {
    let mut document = parse(old)?;
    for edit in edits {
        match edit {
            Edit::Entry { path, value } => {
                let list = list(document.as_table_mut(), path)?;
                let ours: Vec<Value> = list.iter().map(table_value).filter(|element| is_own(element, agent)).collect();
                if let [element] = ours.as_slice()
                    && element == value
                {
                    continue;
                }
                take_out(list, agent);
                list.push(table(value));
            }
            Edit::Switch { path, value } => {
                let (name, above) = path.split_last().ok_or_else(|| shape(path, "a path"))?;
                let table = descend(document.as_table_mut(), above, false)?;
                match table.get_mut(name) {
                    Some(found) if item_value(found) == *value => {}
                    // The comment behind the old value stays.
                    Some(Item::Value(found)) => {
                        let decor = found.decor().clone();
                        if let Item::Value(mut new) = item(value) {
                            *new.decor_mut() = decor;
                            *found = new;
                        }
                    }
                    Some(_) => return Err(shape(path, "a value")),
                    None => {
                        table.insert(name, item(value));
                    }
                }
            }
        }
    }
    Ok(document.to_string())
}

pub(super) fn uninstall(old: &str, edits: &[Edit], agent: Agent) -> Result<Option<String>, SettingsError> {
    let mut document = parse(old)?;
    let mut removed = false;
    for edit in edits {
        let Edit::Entry { path, .. } = edit else { continue };
        let Some((name, above)) = path.split_last() else { continue };
        let mut table = Some(document.as_table_mut());
        for part in above {
            table = table.and_then(|table| table.get_mut(part)).and_then(Item::as_table_mut);
        }
        let Some(table) = table else { continue };
        let Some(list) = table.get_mut(name).and_then(Item::as_array_of_tables_mut) else { continue };
        if !take_out(list, agent) {
            continue;
        }
        removed = true;
        if list.is_empty() {
            table.remove(name);
        }
        for (at, part) in above.iter().enumerate().rev() {
            let mut table = Some(document.as_table_mut());
            for part in &above[..at] {
                table = table.and_then(|table| table.get_mut(part)).and_then(Item::as_table_mut);
            }
            if let Some(table) = table
                && table.get(part).and_then(Item::as_table).is_some_and(|inner| inner.is_empty() && inner.is_implicit())
            {
                table.remove(part);
            }
        }
    }
    if !removed {
        return Ok(Some(old.to_owned()));
    }
    let text = document.to_string();
    let rest = table_value(document.as_table());
    let ours = rest == switches_alone(edits) || rest.as_object().is_some_and(serde_json::Map::is_empty);
    Ok((!ours || text.contains('#')).then_some(text))
}

pub(super) fn value(text: &str) -> Result<Value, SettingsError> {
    Ok(table_value(parse(text)?.as_table()))
}

fn parse(text: &str) -> Result<DocumentMut, SettingsError> {
    if is_too_deep(text) {
        return Err(SettingsError::TooDeep);
    }
    text.parse().map_err(|error: toml_edit::TomlError| SettingsError::Syntax {
        language: "TOML",
        why: error.to_string().lines().next().unwrap_or_default().to_owned(),
    })
}

/// The table at this path, made where it is missing.
fn descend<'a>(top: &'a mut Table, path: &[&'static str], implicit: bool) -> Result<&'a mut Table, SettingsError> {
    let mut table = top;
    for (at, name) in path.iter().enumerate() {
        let next = table.entry(name).or_insert_with(|| {
            let mut fresh = Table::new();
            fresh.set_implicit(implicit);
            Item::Table(fresh)
        });
        table = next.as_table_mut().ok_or_else(|| shape(&path[..=at], "a table"))?;
    }
    Ok(table)
}

/// The list of tables at this path, made where it is missing.
fn list<'a>(top: &'a mut Table, path: &[&'static str]) -> Result<&'a mut ArrayOfTables, SettingsError> {
    let (name, above) = path.split_last().ok_or_else(|| shape(path, "a path"))?;
    let table = descend(top, above, true)?;
    let entry = table.entry(name).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if entry.as_array().is_some_and(toml_edit::Array::is_empty) {
        *entry = Item::ArrayOfTables(ArrayOfTables::new());
    }
    entry.as_array_of_tables_mut().ok_or_else(|| shape(path, "a list of tables ([[…]])"))
}

/// Removes our hooks from the list. Returns whether there were any.
fn take_out(list: &mut ArrayOfTables, agent: Agent) -> bool {
    let mut removed = false;
    for at in (0..list.len()).rev() {
        let Some(element) = list.get_mut(at) else { continue };
        let value = table_value(element);
        if !is_own(&value, agent) {
            continue;
        }
        removed = true;
        if is_own_alone(&value, agent) {
            list.remove(at);
        } else if let Some(hooks) = element.get_mut("hooks").and_then(Item::as_array_of_tables_mut) {
            // Hooks of others share the group.
            take_out(hooks, agent);
        }
    }
    removed
}

fn shape(path: &[&str], expected: &'static str) -> SettingsError {
    SettingsError::Shape { path: path.join("."), expected }
}

/// An object as a table, its lists of objects as lists of tables.
fn table(value: &Value) -> Table {
    let mut table = Table::new();
    // Values go before the tables below them, or they would become theirs.
    let (below, own): (Vec<_>, Vec<_>) = value
        .as_object()
        .into_iter()
        .flatten()
        .partition(|(_, value)| value.as_array().is_some_and(|list| list.iter().any(Value::is_object)));
    for (name, value) in own {
        table.insert(name, item(value));
    }
    for (name, value) in below {
        let tables: ArrayOfTables = value.as_array().into_iter().flatten().map(self::table).collect();
        table.insert(name, Item::ArrayOfTables(tables));
    }
    // A group that has nothing but the tables below it still needs its own head.
    table.set_implicit(false);
    table
}

fn item(value: &Value) -> Item {
    match value {
        Value::Bool(value) => toml_value(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => toml_value(whole),
            None => toml_value(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => toml_value(text.as_str()),
        Value::Null | Value::Array(_) | Value::Object(_) => toml_value(InlineTable::new()),
    }
}

fn table_value(table: &Table) -> Value {
    table.iter().map(|(name, item)| (name.to_owned(), item_value(item))).collect::<serde_json::Map<_, _>>().into()
}

fn item_value(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(value) => plain(value),
        Item::Table(table) => table_value(table),
        Item::ArrayOfTables(tables) => tables.iter().map(table_value).collect::<Vec<_>>().into(),
    }
}

fn plain(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => text.value().as_str().into(),
        Toml::Integer(number) => (*number.value()).into(),
        Toml::Float(number) => (*number.value()).into(),
        Toml::Boolean(value) => (*value.value()).into(),
        Toml::Datetime(time) => time.value().to_string().into(),
        Toml::Array(list) => list.iter().map(plain).collect::<Vec<_>>().into(),
        Toml::InlineTable(table) => {
            table.iter().map(|(name, value)| (name.to_owned(), plain(value))).collect::<serde_json::Map<_, _>>().into()
        }
    }
}
