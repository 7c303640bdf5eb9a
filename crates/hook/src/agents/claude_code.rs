//! Claude Code. A no is JSON and exit code 2; `continue: false` ends the session. A time-out or a broken hook lets the call
//! through, unless `onFailure` says otherwise, which versions before 2.1.295 ignore.

use serde_json::{Value, json};

use super::group::{PATIENCE, entry};
use super::{Form, Guard, Kind, Scope, no_by_exit_code, object};
use crate::command::HookCommand;
use crate::reply::Reply;
use crate::settings::{Content, Format, Place, Target};
use crate::switches::{Hits, HookSwitch, Layer, Off, SwitchReach, Variable};
use crate::verdict::Verdict;

pub(super) const FORM: Form = Form {
    name: "claude-code",
    title: "Claude Code",
    tried: Some("2.1.332"),
    program: "claude",
    oldest: Some((2, 1, 295)),
    guard: Guard::ExitCode,
    kind: Kind::Files(files),
    layers: &[
        Layer { directory: true, ..layer(Place::System("/etc/claude-code/managed-settings.d"), true) },
        layer(Place::System("/etc/claude-code/managed-settings.json"), true),
        layer(Place::Project(".claude/settings.local.json"), false),
        layer(Place::Project(".claude/settings.json"), false),
        layer(USER, false),
    ],
    switches: &[
        HookSwitch { path: &["disableAllHooks"], off: Off::Is(true), reach: SwitchReach::SparesManaged },
        HookSwitch { path: &["allowManagedHooksOnly"], off: Off::Is(true), reach: SwitchReach::ManagedHooksOnly },
        HookSwitch {
            path: &["strictPluginOnlyCustomization"],
            off: Off::IsTrueOrLists("hooks"),
            reach: SwitchReach::ManagedHooksOnly,
        },
    ],
    variables: &[
        Variable { name: "CLAUDE_CODE_SIMPLE", hits: Hits::Unmanaged },
        Variable { name: "CLAUDE_CODE_SAFE_MODE", hits: Hits::Unmanaged },
    ],
    trust: None,
    try_plugin: None,
    event: "PreToolUse",
    note: |_| "",
    answer,
    is_no: |reply| no_by_exit_code(reply) && object(reply)["hookSpecificOutput"]["permissionDecision"] == "deny",
};

const USER: Place = Place::Home { variable: Some("CLAUDE_CONFIG_DIR"), directory: ".claude", file: "settings.json" };

const fn layer(place: Place, managed: bool) -> Layer {
    Layer { place, format: Format::Json, managed, directory: false }
}

pub(super) fn answer(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Allowed => Reply::silent(),
        Verdict::Denied(reason) => {
            let mut json = deny(reason.as_str());
            json["continue"] = false.into();
            json["stopReason"] = reason.as_str().into();
            Reply::by_both(&json, reason)
        }
        Verdict::Undecided(reason) => Reply::by_both(&deny(reason.as_str()), reason),
    }
}

fn deny(reason: &str) -> Value {
    json!({ "hookSpecificOutput": {
        "hookEventName": "PreToolUse", "permissionDecision": "deny", "permissionDecisionReason": reason,
    } })
}

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    let place = match scope {
        Scope::Project => Place::Project(".claude/settings.json"),
        Scope::User => USER,
        // A drop-in: other managed settings stay as they are. It holds also where the user switches hooks off.
        Scope::Managed => Place::System("/etc/claude-code/managed-settings.d/50-machineid.json"),
    };
    let hook = json!({ "type": "command", "command": command.line(), "timeout": PATIENCE, "onFailure": "block" });
    vec![Target { place, content: Content::Edits(Format::Json, vec![entry("PreToolUse", &hook)]) }]
}
