//! Qwen Code. Claude Code's form of a no, which here blocks and does not end the session.

use serde_json::json;

use super::group::{PATIENCE, entry};
use super::{Form, Guard, Kind, Scope, claude_code};
use crate::command::HookCommand;
use crate::settings::{Content, Edit, Format, Place, Target};
use crate::switches::{FolderTrust, Hits, HookSwitch, Layer, Off, SwitchReach, Variable, levels};

pub(super) const FORM: Form = Form {
    name: "qwen-code",
    title: "Qwen Code",
    tried: Some("0.24.4"),
    program: "qwen",
    oldest: None,
    guard: Guard::ExitCode,
    kind: Kind::Files(files),
    layers: &[
        layer(Place::System("/etc/qwen-code/settings.json"), true),
        layer(Place::Project(".qwen/settings.json"), false),
        layer(USER, false),
        layer(Place::System("/etc/qwen-code/system-defaults.json"), false),
    ],
    switches: &[HookSwitch { path: &["disableAllHooks"], off: Off::Is(true), reach: SwitchReach::Strongest }],
    variables: &[Variable { name: "QWEN_CODE_SYSTEM_SETTINGS_PATH", hits: Hits::Managed }],
    trust: Some(FolderTrust {
        place: Place::Home { variable: None, directory: ".qwen", file: "trustedFolders.json" },
        format: Format::Json,
        folders: levels,
        switch: Some((&["security", "folderTrust", "enabled"], false)),
    }),
    try_plugin: None,
    event: "PreToolUse",
    note: |scope| match scope {
        Scope::Project => "Qwen Code reads a project's hooks in a trusted folder alone",
        Scope::User | Scope::Managed => "",
    },
    answer: claude_code::answer,
    is_no: claude_code::FORM.is_no,
};

const USER: Place = Place::Home { variable: None, directory: ".qwen", file: "settings.json" };

const fn layer(place: Place, managed: bool) -> Layer {
    Layer { place, format: Format::Json, managed, directory: false }
}

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    // Older versions read milliseconds, newer ones seconds below 1000 and milliseconds from there on.
    let hook =
        json!({ "type": "command", "name": "machineid", "command": command.line(), "timeout": PATIENCE * 1_000 });
    let mut edits = vec![entry("PreToolUse", &hook)];
    let place = match scope {
        Scope::Project => Place::Project(".qwen/settings.json"),
        Scope::User => USER,
        Scope::Managed => {
            edits.push(Edit::Switch { path: vec!["disableAllHooks"], value: json!(false) });
            Place::System("/etc/qwen-code/settings.json")
        }
    };
    vec![Target { place, content: Content::Edits(Format::Json, edits) }]
}
