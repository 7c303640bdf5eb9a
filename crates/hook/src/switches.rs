//! What keeps an agent from calling a hook that stands in its settings: switches in all the files that it merges, variables of
//! its environment, and a folder that it does not trust.

use std::path::Path;

use serde_json::Value;

use super::agents::{Form, Scope};
use super::settings::{Format, Place, at};

/// A file that the agent reads settings from. An agent's layers stand in their order, the strongest first.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// Where it is.
    pub place: Place,
    /// Its language.
    pub format: Format,
    /// Whether its settings are an administrator's.
    pub managed: bool,
    /// Whether the place is a directory whose files `*.json` are all read; the last of them is the strongest.
    pub directory: bool,
}

/// A layer as it was read.
#[derive(Clone, Debug)]
pub struct Layered {
    /// Its path, for people.
    pub path: String,
    /// As in [`Layer`].
    pub managed: bool,
    /// Its settings.
    pub value: Value,
}

/// A setting with which hooks are off.
#[derive(Clone, Copy, Debug)]
pub struct HookSwitch {
    /// Its path.
    pub path: &'static [&'static str],
    /// Its values with which they are off.
    pub off: Off,
    /// Which of the files decides, and about which hooks.
    pub reach: SwitchReach,
}

/// Values with which hooks are off.
#[derive(Clone, Copy, Debug)]
pub enum Off {
    /// This one.
    Is(bool),
    /// A list that contains this name.
    Lists(&'static str),
    /// `true`, or a list that contains this name.
    IsTrueOrLists(&'static str),
}

/// Which of several files with the same setting decides, and about which hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchReach {
    /// The strongest file decides about all hooks.
    Strongest,
    /// Each file adds to the others.
    Each,
    /// The strongest file decides, but managed hooks obey managed files alone.
    SparesManaged,
    /// It counts in managed files alone, and turns off all hooks but the managed ones.
    ManagedHooksOnly,
}

/// A variable of the agent's environment with which hooks are off.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name. It counts unless it is empty, 0 or false.
    pub name: &'static str,
    /// The hooks that it turns off.
    pub hits: Hits,
}

/// Which hooks a variable turns off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hits {
    /// All.
    All,
    /// All but the managed ones.
    Unmanaged,
    /// The managed ones: the variable names another file of managed settings.
    Managed,
}

/// Where an agent keeps which folders it trusts. It reads the hooks of a project in a trusted folder alone.
#[derive(Clone, Copy, Debug)]
pub struct FolderTrust {
    /// The file.
    pub place: Place,
    /// Its language.
    pub format: Format,
    /// The folders that it names, each with whether it is trusted.
    pub folders: fn(&Value) -> Vec<(String, bool)>,
    /// The setting that turns the question on or off, and what holds without it. `None`: it is always on.
    pub switch: Option<(&'static [&'static str], bool)>,
}

/// The setting, if there is one, that turns off a hook of this scope. `files` are the agent's layers, the strongest first.
#[must_use]
pub fn turned_off(form: &Form, scope: Scope, files: &[Layered]) -> Option<String> {
    form.switches.iter().find_map(|switch| {
        let is_managed = scope == Scope::Managed;
        let mut values = files
            .iter()
            .filter(|file| match switch.reach {
                SwitchReach::Strongest | SwitchReach::Each => true,
                SwitchReach::SparesManaged => file.managed || !is_managed,
                SwitchReach::ManagedHooksOnly => file.managed && !is_managed,
            })
            .filter_map(|file| Some((file, at(&file.value, switch.path)?)));
        let (file, value) = match switch.reach {
            SwitchReach::Each => values.find(|(_, value)| switch.off.holds(value)),
            SwitchReach::Strongest | SwitchReach::SparesManaged | SwitchReach::ManagedHooksOnly => {
                values.next().filter(|(_, value)| switch.off.holds(value))
            }
        }?;
        let what = if value.is_array() { "names our hook".to_owned() } else { format!("is {value}") };
        Some(format!("{} {what} in {}", switch.path.join("."), file.path))
    })
}

/// The variable, if there is one, that turns off a hook of this scope.
#[must_use]
pub fn turned_off_by_variable(form: &Form, scope: Scope, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let hit = form.variables.iter().find(|one| {
        let counts = match one.hits {
            Hits::All => true,
            Hits::Unmanaged => scope != Scope::Managed,
            Hits::Managed => scope == Scope::Managed,
        };
        counts && variable(one.name).is_some_and(|value| !["", "0", "false"].contains(&value.as_str()))
    })?;
    Some(format!("${} is set in this environment; an agent that has it as well does not call this hook", hit.name))
}

impl Off {
    fn holds(self, value: &Value) -> bool {
        let lists = |name| value.as_array().is_some_and(|names| names.iter().any(|one| one == name));
        match self {
            Self::Is(off) => *value == off,
            Self::Lists(name) => lists(name),
            Self::IsTrueOrLists(name) => *value == true || lists(name),
        }
    }
}

impl FolderTrust {
    /// Whether the agent trusts this folder: the closest folder above it that the file names decides. `files` are the agent's
    /// layers, for the switch.
    #[must_use]
    pub fn trusts(&self, trusted: &Value, folder: &Path, files: &[Layered]) -> bool {
        if let Some((path, default)) = self.switch {
            let asks = files.iter().find_map(|file| at(&file.value, path)?.as_bool()).unwrap_or(default);
            if !asks {
                return true;
            }
        }
        let folders = (self.folders)(trusted);
        folder
            .ancestors()
            .find_map(|above| folders.iter().find(|(name, _)| Path::new(name) == above))
            .is_some_and(|(_, trusted)| *trusted)
    }
}

/// The folders of Gemini CLI and Qwen Code: an object of paths with their levels.
pub(crate) fn levels(value: &Value) -> Vec<(String, bool)> {
    let levels = value.as_object().into_iter().flatten();
    levels
        .filter_map(|(path, level)| match level.as_str()? {
            "TRUST_FOLDER" => Some((path.clone(), true)),
            "TRUST_PARENT" => Some((Path::new(path).parent()?.to_str()?.to_owned(), true)),
            "DO_NOT_TRUST" => Some((path.clone(), false)),
            _ => None,
        })
        .collect()
}

/// The folders that a list of paths at this place names.
pub(crate) fn listed(value: &Value, name: &str, trusted: bool) -> Vec<(String, bool)> {
    let paths = value.get(name).and_then(Value::as_array).into_iter().flatten();
    paths.filter_map(|path| Some((path.as_str()?.to_owned(), trusted))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::agents::Agent;
    use super::*;

    fn files(values: &[(bool, Value)]) -> Vec<Layered> {
        let layered = |(number, (managed, value)): (usize, &(bool, Value))| Layered {
            path: format!("/{number}"),
            managed: *managed,
            value: value.clone(),
        };
        values.iter().enumerate().map(layered).collect()
    }

    fn off(agent: Agent, scope: Scope, values: &[(bool, Value)]) -> Option<String> {
        turned_off(agent.form(), scope, &files(values))
    }

    #[test]
    fn claude_s_managed_hooks_obey_managed_settings_alone() {
        let disabled = json!({ "disableAllHooks": true });
        let users = [(false, disabled.clone())];
        assert_eq!(off(Agent::ClaudeCode, Scope::User, &users).unwrap(), "disableAllHooks is true in /0");
        assert_eq!(off(Agent::ClaudeCode, Scope::Managed, &users), None);
        assert!(off(Agent::ClaudeCode, Scope::Managed, &[(true, disabled)]).is_some());
        let only = json!({ "allowManagedHooksOnly": true });
        assert!(
            off(Agent::ClaudeCode, Scope::Project, &[(true, only.clone())]).unwrap().contains("allowManagedHooksOnly")
        );
        assert_eq!(off(Agent::ClaudeCode, Scope::Managed, &[(true, only.clone())]), None);
        // In a user's own file it does nothing.
        assert_eq!(off(Agent::ClaudeCode, Scope::User, &[(false, only)]), None);
    }

    #[test]
    fn the_strongest_file_that_has_the_setting_decides() {
        let (on, off_) = (json!({ "disableAllHooks": false }), json!({ "disableAllHooks": true }));
        let none = json!({ "other": 1 });
        for agent in [Agent::ClaudeCode, Agent::QwenCode] {
            assert_eq!(
                off(agent, Scope::User, &[(false, none.clone()), (false, on.clone()), (false, off_.clone())]),
                None
            );
            let found = off(agent, Scope::User, &[(false, none.clone()), (false, off_.clone()), (false, on.clone())]);
            assert_eq!(found.unwrap(), "disableAllHooks is true in /1");
        }
        let features = json!({ "features": { "hooks": false } });
        assert!(off(Agent::Codex, Scope::User, &[(false, features.clone())]).is_some());
        let managed = json!({ "features": { "hooks": true } });
        assert_eq!(off(Agent::Codex, Scope::Managed, &[(true, managed), (false, features)]), None);
        let names = json!({ "hooksConfig": { "enabled": true, "disabled": ["other", "machineid"] } });
        let found = off(Agent::GeminiCli, Scope::User, &[(false, none), (false, names)]).unwrap();
        assert_eq!(found, "hooksConfig.disabled names our hook in /1");
    }

    #[test]
    fn a_variable_turns_hooks_off_unless_it_is_empty() {
        let found = |agent: Agent, scope, name: &str, value: &str| {
            turned_off_by_variable(agent.form(), scope, |asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(
            found(Agent::ClaudeCode, Scope::User, "CLAUDE_CODE_SIMPLE", "1").unwrap().contains("$CLAUDE_CODE_SIMPLE")
        );
        assert_eq!(found(Agent::ClaudeCode, Scope::Managed, "CLAUDE_CODE_SIMPLE", "1"), None);
        for value in ["", "0", "false"] {
            assert_eq!(found(Agent::Opencode, Scope::User, "OPENCODE_PURE", value), None);
        }
        assert!(found(Agent::GeminiCli, Scope::Managed, "GEMINI_CLI_SYSTEM_SETTINGS_PATH", "/x").is_some());
    }

    #[test]
    fn the_closest_folder_that_is_named_decides_about_trust() {
        let trusts = |agent: Agent, value: &Value, folder: &str, layers: &[(bool, Value)]| {
            agent.form().trust.unwrap().trusts(value, Path::new(folder), &files(layers))
        };
        let vibe = json!({ "trusted": ["/a"], "untrusted": ["/a/b"] });
        assert!(trusts(Agent::MistralVibe, &vibe, "/a/c", &[]) && !trusts(Agent::MistralVibe, &vibe, "/a/b/c", &[]));
        assert!(!trusts(Agent::MistralVibe, &json!({}), "/x", &[]));
        let gemini = json!({ "/a": "TRUST_FOLDER", "/b/c": "TRUST_PARENT", "/a/x": "DO_NOT_TRUST" });
        assert!(trusts(Agent::GeminiCli, &gemini, "/a", &[]) && trusts(Agent::GeminiCli, &gemini, "/b/d", &[]));
        assert!(!trusts(Agent::GeminiCli, &gemini, "/a/x/y", &[]));
        let unasked = json!({ "security": { "folderTrust": { "enabled": false } } });
        assert!(trusts(Agent::GeminiCli, &json!({}), "/a", &[(false, unasked)]));
        let codex = json!({ "projects": { "/a": { "trust_level": "trusted" }, "/b": { "trust_level": "untrusted" } } });
        assert!(trusts(Agent::Codex, &codex, "/a/sub", &[]) && !trusts(Agent::Codex, &codex, "/b", &[]));
    }
}
