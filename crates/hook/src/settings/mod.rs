//! The hook in a file of an agent's settings: put in, taken out, found. Text in, text out.
//!
//! Comments, order and spacing of all that is not ours stay as they are. What is not understood is refused, and nothing of it
//! is changed.

mod json;
#[cfg(test)]
mod tests;
mod toml;

use serde_json::Value;

use super::agents::Agent;
use super::command::{self, HookCommand};

/// The mark of a file that is ours as a whole.
pub const MARK: &str =
    "Written by `machineid hook install`, which may write it again; `machineid hook uninstall` removes it.";

/// The largest file of settings that is read, in bytes.
pub const LONGEST: usize = 4 * 1024 * 1024;

/// A file that names or is the hook.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Where it is.
    pub place: Place,
    /// What belongs into it.
    pub content: Content,
}

/// Where a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a directory of the user's home, unless this variable names another directory.
    Home {
        /// The variable.
        variable: Option<&'static str>,
        /// The directory below the home directory.
        directory: &'static str,
        /// The file below that.
        file: &'static str,
    },
    /// Below `$XDG_CONFIG_HOME`, else `~/.config`.
    Config {
        /// The directory.
        directory: &'static str,
        /// The file below that.
        file: &'static str,
    },
    /// Below the working directory.
    Project(&'static str),
    /// An absolute path.
    System(&'static str),
}

/// What belongs into a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Some settings among others.
    Edits(Format, Vec<Edit>),
    /// The whole file is ours.
    Whole {
        /// Its text, which contains [`MARK`].
        text: String,
        /// Whether it is started as a program.
        executable: bool,
    },
}

/// The language of a file of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON; comments and trailing commas are kept.
    Json,
    /// TOML.
    Toml,
}

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// An element of the list at this path; ours is known by its command.
    Entry {
        /// The path of the list.
        path: Vec<&'static str>,
        /// The element.
        value: Value,
    },
    /// A value that must stand at this path.
    Switch {
        /// The path of the value.
        path: Vec<&'static str>,
        /// The value.
        value: Value,
    },
}

/// Why a file of settings is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The text does not parse.
    #[error("it is not {language}: {why}")]
    Syntax {
        /// JSON or TOML.
        language: &'static str,
        /// The parser's words.
        why: String,
    },
    /// A setting on the way has another type.
    #[error("{path} is not {expected}")]
    Shape {
        /// The path of the setting.
        path: String,
        /// What it had to be.
        expected: &'static str,
    },
    /// A name stands twice in one object, and the agent might read the other one.
    #[error("{path} stands there twice")]
    Twice {
        /// The path of the setting.
        path: String,
    },
    /// A file at a place of ours that we did not write.
    #[error("machineid did not write it")]
    Foreign,
    /// Nested so deep that no person wrote it.
    #[error("it is nested too deep")]
    TooDeep,
}

/// How the hook stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is not there.
    Missing,
    /// It is there, but not as it would be installed now. The text says what differs.
    Differs(String),
    /// It is there as it would be installed now.
    Armed,
}

impl Content {
    /// The text with the hook. Without a file before, `old` is empty. The same text means that nothing is to be done.
    pub fn install(&self, old: &str, agent: Agent) -> Result<String, SettingsError> {
        match self {
            Self::Edits(Format::Json, edits) => json::install(old, edits, agent),
            Self::Edits(Format::Toml, edits) => toml::install(old, edits, agent),
            Self::Whole { .. } if !old.trim().is_empty() && !old.contains(MARK) => Err(SettingsError::Foreign),
            Self::Whole { text, .. } => Ok(text.clone()),
        }
    }

    /// The text without the hook; `None` when nothing but ours was in the file, which can then go.
    pub fn uninstall(&self, old: &str, agent: Agent) -> Result<Option<String>, SettingsError> {
        match self {
            Self::Edits(Format::Json, edits) => json::uninstall(old, edits, agent),
            Self::Edits(Format::Toml, edits) => toml::uninstall(old, edits, agent),
            Self::Whole { .. } if old.contains(MARK) => Ok(None),
            Self::Whole { .. } => Err(SettingsError::Foreign),
        }
    }

    /// The text without the hook, in the words of the copy from before, when nothing else was changed since.
    pub fn restore(&self, current: &str, copy: Option<&str>, agent: Agent) -> Result<Option<String>, SettingsError> {
        let without = self.uninstall(current, agent)?;
        let Some(copy) = copy.filter(|copy| !copy.contains(MARK)) else { return Ok(without) };
        let again = self.install(copy, agent).and_then(|with| self.uninstall(&with, agent));
        let had_ours = self.find(copy, agent).is_ok_and(|found| found != Found::Missing);
        let as_before = !had_ours && without.as_deref() != Some(current) && again.as_ref() == Ok(&without);
        Ok(if as_before { Some(copy.to_owned()) } else { without })
    }

    /// Whether the hook is in this text, as it would be installed now.
    pub fn find(&self, text: &str, agent: Agent) -> Result<Found, SettingsError> {
        match self {
            Self::Edits(format, edits) => Ok(compare(&value(*format, text)?, edits, agent)),
            Self::Whole { text: ours, .. } if text == ours => Ok(Found::Armed),
            Self::Whole { .. } if text.contains(MARK) => {
                Ok(Found::Differs("the file is of another version or for another path".to_owned()))
            }
            Self::Whole { .. } => Ok(Found::Missing),
        }
    }

    /// The command of our hook in this text, as the agent would start it. `None` when it is not there, or not one that we wrote.
    #[must_use]
    pub fn installed(&self, text: &str, agent: Agent) -> Option<HookCommand> {
        match self {
            Self::Edits(format, edits) => {
                let value = value(*format, text).ok()?;
                let lists = edits.iter().filter_map(|edit| match edit {
                    Edit::Entry { path, .. } => at(&value, path).and_then(Value::as_array),
                    Edit::Switch { .. } => None,
                });
                let mut hooks = lists.flatten().flat_map(|element| own_hooks(element, agent));
                hooks.find_map(|hook| HookCommand::parse(&command_of(hook)?, agent))
            }
            Self::Whole { .. } if text.contains(MARK) => text.lines().find_map(|line| HookCommand::parse(line, agent)),
            Self::Whole { .. } => None,
        }
    }

    /// The settings as they would be in a file of their own, to show them.
    #[must_use]
    pub fn fragment(&self, agent: Agent) -> String {
        self.install("", agent).unwrap_or_default()
    }
}

/// The settings as a value.
pub fn value(format: Format, text: &str) -> Result<Value, SettingsError> {
    match format {
        Format::Json => json::value(text),
        Format::Toml => toml::value(text),
    }
}

fn compare(value: &Value, edits: &[Edit], agent: Agent) -> Found {
    let mut differences = Vec::new();
    let mut present = false;
    for edit in edits {
        match edit {
            Edit::Entry { path, value: wanted } => {
                let list = at(value, path).and_then(Value::as_array);
                let ours: Vec<&Value> = list.into_iter().flatten().filter(|element| is_own(element, agent)).collect();
                present |= !ours.is_empty();
                match ours.as_slice() {
                    [] => differences.push(format!("{} does not name it", path.join("."))),
                    [element] if *element == wanted => {}
                    [element] => differences.push(format!("{}: {}", path.join("."), difference(element, wanted))),
                    [..] => differences.push(format!("{} names it more than once", path.join("."))),
                }
            }
            Edit::Switch { path, value: wanted } => {
                if at(value, path) != Some(wanted) {
                    differences.push(format!("{} is not {wanted}", path.join(".")));
                }
            }
        }
    }
    match (present, differences.is_empty()) {
        (false, _) => Found::Missing,
        (true, true) => Found::Armed,
        (true, false) => Found::Differs(differences.join("; ")),
    }
}

/// The first setting of ours that is another one, by its name.
fn difference(found: &Value, wanted: &Value) -> String {
    let inner = |value: &Value| value.get("hooks").and_then(|hooks| hooks.get(0)).unwrap_or(value).clone();
    let (found, wanted) = (inner(found), inner(wanted));
    let names = wanted.as_object().into_iter().flatten();
    let differing = names.filter(|(name, value)| found.get(name.as_str()) != Some(value));
    let other = differing.map(|(name, value)| {
        let long = value.as_str().is_some_and(|text| text.len() > 40);
        if long { format!("{name} is another one") } else { format!("{name} is not {value}") }
    });
    let other: Vec<String> = other.collect();
    if other.is_empty() { "it has further settings".to_owned() } else { other.join(", ") }
}

pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

/// The hooks of ours in an element of a list: the element itself, or those of its group.
fn own_hooks(element: &Value, agent: Agent) -> impl Iterator<Item = &Value> {
    let group = element.get("hooks").and_then(Value::as_array).into_iter().flatten();
    std::iter::once(element)
        .chain(group)
        .filter(move |hook| command_of(hook).is_some_and(|line| command::is_ours(&line, agent)))
}

fn is_own(element: &Value, agent: Agent) -> bool {
    own_hooks(element, agent).next().is_some()
}

/// Whether nothing in this element belongs to another program.
fn is_own_alone(element: &Value, agent: Agent) -> bool {
    let all = element.get("hooks").and_then(Value::as_array).map_or(1, Vec::len);
    own_hooks(element, agent).count() == all
}

fn command_of(hook: &Value) -> Option<String> {
    ["command", "bash"].iter().find_map(|name| hook.get(name)?.as_str()).map(str::to_owned)
}

/// What the switches alone would make of an empty file.
fn switches_alone(edits: &[Edit]) -> Value {
    let mut root = Value::Object(serde_json::Map::new());
    for edit in edits {
        let Edit::Switch { path, value } = edit else { continue };
        let mut place = &mut root;
        for name in path {
            place = &mut place[*name];
        }
        *place = value.clone();
    }
    root
}

/// Whether brackets are nested deeper than a person would write. Brackets in strings count as well.
fn is_too_deep(text: &str) -> bool {
    let mut depth = 0_i64;
    text.bytes().any(|byte| {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        depth > 200
    })
}
