//! Cursor, by its documentation. A no is JSON and exit code 2; `failClosed` makes each fault of the hook a no.

use serde_json::json;

use super::group::PATIENCE;
use super::{Form, Guard, Kind, Scope, no_by_exit_code, object};
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
    guard: Guard::ExitCode,
    kind: Kind::Files(files),
    off: &[],
    event: "preToolUse",
    note: |_| "this form is by Cursor's documentation; it was not tried with the program",
    answer,
    is_no: |reply| no_by_exit_code(reply) && object(reply)["permission"] == "deny",
};

/// `preToolUse` is asked before every tool; versions without it have the two others.
const EVENTS: [&str; 3] = ["preToolUse", "beforeShellExecution", "beforeMCPExecution"];

fn answer(verdict: &Verdict) -> Reply {
    match verdict {
        // With `failClosed` output that is no JSON is a no. An object that decides nothing leaves the user's own questions.
        Verdict::Allowed => Reply::yes(&json!({})),
        Verdict::Denied(reason) | Verdict::Undecided(reason) => {
            let why = reason.as_str();
            Reply::by_both(&json!({ "permission": "deny", "user_message": why, "agent_message": why }), reason)
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
