//! codex. A no is the reason on stderr and exit code 2; `continue` in JSON is not supported. A no does not end the turn, so
//! the hook is also asked before each of the user's prompts.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::group::{PATIENCE, entry, group};
use super::{Form, Guard, Kind, Scope, no_by_exit_code};
use crate::command::HookCommand;
use crate::reply::Reply;
use crate::settings::{Content, Edit, Format, Place, Target};
use crate::switches::{FolderTrust, HookSwitch, Layer, Off, SwitchReach};
use crate::verdict::Verdict;

pub(super) const FORM: Form = Form {
    name: "codex",
    title: "codex",
    tried: Some("0.171.0"),
    program: "codex",
    oldest: None,
    guard: Guard::ExitCode,
    kind: Kind::Files(files),
    layers: &[
        layer(Place::System("/etc/codex/requirements.toml"), true),
        layer(Place::System("/etc/codex/managed_config.toml"), true),
        layer(Place::Project(".codex/config.toml"), false),
        layer(CONFIG, false),
        layer(Place::System("/etc/codex/config.toml"), false),
    ],
    switches: &[
        HookSwitch { path: &["features", "hooks"], off: Off::Is(false), reach: SwitchReach::Strongest },
        HookSwitch { path: &["allow_managed_hooks_only"], off: Off::Is(true), reach: SwitchReach::ManagedHooksOnly },
    ],
    variables: &[],
    trust: Some(FolderTrust { place: CONFIG, format: Format::Toml, folders: projects, switch: None }),
    try_plugin: None,
    event: "PreToolUse",
    note: |scope| match scope {
        Scope::User => {
            "codex exec skips a hook that is not trusted, without a word: start codex once, and trust both hooks when it asks"
        }
        Scope::Project => {
            "codex reads it in a trusted project alone, and codex exec skips a hook that is not trusted: start codex once, and trust both hooks when it asks"
        }
        Scope::Managed => "",
    },
    answer,
    // Output that is not its own would be a broken hook.
    is_no: |reply| no_by_exit_code(reply) && reply.stdout.is_empty(),
};

const EVENTS: [&str; 2] = ["PreToolUse", "UserPromptSubmit"];

const CONFIG: Place = Place::Home { variable: Some("CODEX_HOME"), directory: ".codex", file: "config.toml" };

const fn layer(place: Place, managed: bool) -> Layer {
    Layer { place, format: Format::Toml, managed, directory: false }
}

fn projects(config: &Value) -> Vec<(String, bool)> {
    let projects = config["projects"].as_object().into_iter().flatten();
    projects.map(|(path, project)| (path.clone(), project["trust_level"] == "trusted")).collect()
}

/// Why codex skips the hook with this line in this file, by codex's own settings: it runs no hook that was not trusted as it
/// stands, and says nothing about it.
#[must_use]
pub fn codex_skips(config: &Value, hooks: &str, line: &str) -> Option<&'static str> {
    ["pre_tool_use", "user_prompt_submit"].into_iter().find_map(|event| {
        let prefix = format!("{hooks}:{event}:");
        let states = config["hooks"]["state"].as_object().into_iter().flatten();
        let states: Vec<&Value> =
            states.filter(|(name, _)| name.starts_with(&prefix)).map(|(_, state)| state).collect();
        let fingerprint = fingerprint(event, line);
        match states.iter().find(|state| state["trusted_hash"] == *fingerprint) {
            Some(state) => (state["enabled"] == false).then_some("codex has it disabled; enable it in /hooks"),
            None if states.iter().any(|state| state["trusted_hash"].is_string()) => {
                Some("codex trusts an earlier form of it and skips this one; start codex and trust it again")
            }
            None => Some("codex does not trust it; start codex and choose to trust it when asked, or in /hooks"),
        }
    })
}

/// What codex 0.171.0 writes down when a hook is trusted.
fn fingerprint(event: &str, line: &str) -> String {
    // Its names must stand in this order.
    let (event, line) = (json!(event), json!(line));
    let identity = format!(
        r#"{{"event_name":{event},"hooks":[{{"async":false,"command":{line},"timeout":{PATIENCE},"type":"command"}}]}}"#
    );
    Sha256::digest(identity).iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn answer(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Allowed => Reply::silent(),
        Verdict::Denied(reason) | Verdict::Undecided(reason) => Reply::by_exit_code(reason),
    }
}

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    let hook = json!({ "type": "command", "command": command.line(), "timeout": PATIENCE });
    let (place, content) = match scope {
        Scope::Project => (Place::Project(".codex/hooks.json"), None),
        Scope::User => (Place::Home { variable: Some("CODEX_HOME"), directory: ".codex", file: "hooks.json" }, None),
        Scope::Managed => {
            let mut edits = vec![Edit::Switch { path: vec!["features", "hooks"], value: json!(true) }];
            edits.extend(EVENTS.map(|event| Edit::Entry { path: vec!["hooks", event], value: group(&hook) }));
            (Place::System("/etc/codex/requirements.toml"), Some(Content::Edits(Format::Toml, edits)))
        }
    };
    let content =
        content.unwrap_or_else(|| Content::Edits(Format::Json, EVENTS.map(|event| entry(event, &hook)).into()));
    vec![Target { place, content }]
}
