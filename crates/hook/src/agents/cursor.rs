//! Cursor, by its documentation, <https://cursor.com/docs/hooks>. A no is JSON and exit code 0: at exit code 2 the JSON is not
//! read, and stands in the reason as it is. `failClosed` makes each fault of the hook a no, and an empty answer as well.

use serde_json::json;

use super::group::PATIENCE;
use super::{Form, Guard, Kind, Scope, object};
use crate::command::HookCommand;
use crate::reply::Reply;
use crate::settings::{Content, Edit, Format, Place, Target};
use crate::verdict::Verdict;

pub(super) const FORM: Form = Form {
    name: "cursor",
    title: "Cursor",
    tried: None,
    program: "cursor-agent",
    oldest: None,
    guard: Guard::Output,
    kind: Kind::Files(files),
    layers: &[],
    switches: &[],
    variables: &[],
    trust: None,
    try_plugin: None,
    event: "preToolUse",
    note: |scope| match scope {
        Scope::Project => {
            "this form is by Cursor's documentation and was not tried; Cursor reads a project's hooks in a trusted workspace alone"
        }
        Scope::User | Scope::Managed => {
            "this form is by Cursor's documentation and was not tried: revoke a device once, and see that Cursor's next call is blocked"
        }
    },
    answer,
    is_no: |reply| reply.exit == 0 && object(reply)["permission"] == "deny",
};

/// `preToolUse` is asked before every tool; versions without it have the two others.
const EVENTS: [&str; 3] = ["preToolUse", "beforeShellExecution", "beforeMCPExecution"];

fn answer(verdict: &Verdict) -> Reply {
    match verdict {
        // An object that decides nothing leaves the user's own questions.
        Verdict::Allowed => Reply::yes(&json!({})),
        Verdict::Denied(reason) | Verdict::Undecided(reason) => {
            let why = reason.as_str();
            Reply::by_json(&json!({ "permission": "deny", "user_message": why, "agent_message": why }), reason)
        }
    }
}

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    let place = match scope {
        Scope::Project => Place::Project(".cursor/hooks.json"),
        Scope::User => Place::Home { variable: None, directory: ".cursor", file: "hooks.json" },
        Scope::Managed => Place::System("/etc/cursor/hooks.json"),
    };
    let hook = json!({ "command": command.line(), "timeout": PATIENCE, "failClosed": true });
    let mut edits = vec![Edit::Switch { path: vec!["version"], value: json!(1) }];
    edits.extend(EVENTS.map(|event| Edit::Entry { path: vec!["hooks", event], value: hook.clone() }));
    vec![Target { place, content: Content::Edits(Format::Json, edits) }]
}
