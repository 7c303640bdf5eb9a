//! Copilot CLI. A no is JSON and exit code 0. A time-out lets the call through after 30 s, so the hook's own deadline counts.

use serde_json::json;

use super::group::PATIENCE;
use super::{Form, Guard, Kind, Scope, object};
use crate::command::HookCommand;
use crate::reply::Reply;
use crate::settings::{Content, Edit, Format, Place, Target};
use crate::verdict::Verdict;

pub(super) const FORM: Form = Form {
    name: "copilot",
    title: "Copilot CLI",
    tried: None,
    program: "copilot",
    oldest: None,
    guard: Guard::Output,
    kind: Kind::Files(files),
    off: &[],
    event: "preToolUse",
    note: |_| "Copilot CLI lets a call through when a hook takes 30s; this one answers within its own deadline",
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
        Edit::Entry { path: vec!["hooks", "preToolUse"], value: hook },
    ];
    vec![Target { place, content: Content::Edits(Format::Json, edits) }]
}
