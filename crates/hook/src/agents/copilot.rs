//! Copilot CLI. A no is JSON and exit code 0. A time-out lets the call through after 30 s, so the hook's own deadline counts.

use serde_json::json;

use super::group::PATIENCE;
use super::{Form, Guard, Kind, Scope, object};
use crate::command::HookCommand;
use crate::reply::Reply;
use crate::settings::{Content, Edit, Format, Place, Target};
use crate::switches::{FolderTrust, listed};
use crate::verdict::Verdict;

pub(super) const FORM: Form = Form {
    name: "copilot",
    title: "Copilot CLI",
    tried: Some("1.0.102"),
    program: "copilot",
    oldest: None,
    guard: Guard::Output,
    kind: Kind::Files(files),
    // `disableAllHooks` in its settings turned off no hook of a file of its own, in a session with -p.
    layers: &[],
    switches: &[],
    variables: &[],
    trust: Some(FolderTrust {
        place: Place::Home { variable: Some("COPILOT_HOME"), directory: ".copilot", file: "config.json" },
        format: Format::Json,
        folders: |config| listed(config, "trustedFolders", true),
        switch: None,
    }),
    try_plugin: None,
    event: "preToolUse",
    note: |scope| match scope {
        Scope::Project => "Copilot CLI reads a project's hooks in a trusted folder alone",
        Scope::User | Scope::Managed => "",
    },
    answer,
    is_no: |reply| reply.exit == 0 && object(reply)["permissionDecision"] == "deny",
};

fn answer(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Allowed => Reply::silent(),
        Verdict::Denied(reason) | Verdict::Undecided(reason) => {
            let json = json!({ "permissionDecision": "deny", "permissionDecisionReason": reason.as_str() });
            Reply::by_json(&json, reason)
        }
    }
}

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    let place = match scope {
        Scope::Project => Place::Project(".github/hooks/machineid.json"),
        Scope::User => {
            Place::Home { variable: Some("COPILOT_HOME"), directory: ".copilot", file: "hooks/machineid.json" }
        }
        Scope::Managed => return Vec::new(),
    };
    let hook = json!({ "type": "command", "bash": command.line(), "timeoutSec": PATIENCE });
    let edits = vec![
        Edit::Switch { path: vec!["version"], value: json!(1) },
        // `true` would turn off the hooks of this file.
        Edit::Switch { path: vec!["disableAllHooks"], value: json!(false) },
        Edit::Entry { path: vec!["hooks", "preToolUse"], value: hook },
    ];
    vec![Target { place, content: Content::Edits(Format::Json, edits) }]
}
