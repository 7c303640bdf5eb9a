//! Gemini CLI. A no is JSON and exit code 2; `continue: false` ends the session.

use serde_json::json;

use super::group::{PATIENCE, entry};
use super::{Form, Guard, Kind, Scope, no_by_exit_code, object};
use crate::command::HookCommand;
use crate::reply::Reply;
use crate::settings::{Content, Edit, Format, Place, Target};
use crate::switches::{FolderTrust, Hits, HookSwitch, Layer, Off, SwitchReach, Variable, levels};
use crate::verdict::Verdict;

pub(super) const FORM: Form = Form {
    name: "gemini-cli",
    title: "Gemini CLI",
    tried: Some("0.61.0"),
    program: "gemini",
    oldest: None,
    guard: Guard::ExitCode,
    kind: Kind::Files(files),
    layers: &[
        layer(Place::System("/etc/gemini-cli/settings.json"), true),
        layer(Place::Project(".gemini/settings.json"), false),
        layer(USER, false),
        layer(Place::System("/etc/gemini-cli/system-defaults.json"), false),
    ],
    switches: &[
        HookSwitch { path: &["hooksConfig", "enabled"], off: Off::Is(false), reach: SwitchReach::Strongest },
        HookSwitch { path: &["hooksConfig", "disabled"], off: Off::Lists("machineid"), reach: SwitchReach::Each },
    ],
    variables: &[Variable { name: "GEMINI_CLI_SYSTEM_SETTINGS_PATH", hits: Hits::Managed }],
    trust: Some(FolderTrust {
        place: Place::Home { variable: None, directory: ".gemini", file: "trustedFolders.json" },
        format: Format::Json,
        folders: levels,
        switch: Some((&["security", "folderTrust", "enabled"], true)),
    }),
    try_plugin: None,
    event: "BeforeTool",
    note: |scope| match scope {
        Scope::Project => "Gemini CLI reads a project's hooks in a trusted folder alone",
        Scope::User | Scope::Managed => "",
    },
    answer,
    is_no: |reply| no_by_exit_code(reply) && object(reply)["decision"] == "deny",
};

const USER: Place = Place::Home { variable: None, directory: ".gemini", file: "settings.json" };

const fn layer(place: Place, managed: bool) -> Layer {
    Layer { place, format: Format::Json, managed, directory: false }
}

fn answer(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Allowed => Reply::silent(),
        Verdict::Denied(reason) => {
            let why = reason.as_str();
            Reply::by_both(&json!({ "decision": "deny", "reason": why, "continue": false, "stopReason": why }), reason)
        }
        Verdict::Undecided(reason) => Reply::by_both(&json!({ "decision": "deny", "reason": reason.as_str() }), reason),
    }
}

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    // In milliseconds.
    let hook =
        json!({ "type": "command", "name": "machineid", "command": command.line(), "timeout": PATIENCE * 1_000 });
    let mut edits = vec![entry("BeforeTool", &hook)];
    let place = match scope {
        Scope::Project => Place::Project(".gemini/settings.json"),
        Scope::User => USER,
        Scope::Managed => {
            // A user's settings could switch hooks off, where the managed ones do not say that they are on.
            edits.push(Edit::Switch { path: vec!["hooksConfig", "enabled"], value: json!(true) });
            Place::System("/etc/gemini-cli/settings.json")
        }
    };
    vec![Target { place, content: Content::Edits(Format::Json, edits) }]
}
