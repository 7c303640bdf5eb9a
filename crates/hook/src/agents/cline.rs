//! Cline. The hook is a script of a given name; a no is JSON with `cancel`, which ends the session, and a yes is JSON as well.

use serde_json::json;

use super::{Form, Guard, Kind, Scope, object};
use crate::command::HookCommand;
use crate::reply::Reply;
use crate::settings::{Content, MARK, Place, Target};
use crate::verdict::Verdict;

pub(super) const FORM: Form = Form {
    name: "cline",
    title: "Cline",
    tried: Some("3.0.65"),
    program: "cline",
    oldest: None,
    guard: Guard::Output,
    kind: Kind::Files(files),
    layers: &[],
    switches: &[],
    variables: &[],
    trust: None,
    try_plugin: None,
    event: "tool_call",
    note: |_| "",
    answer,
    is_no: |reply| reply.exit == 0 && object(reply)["cancel"] == true,
};

fn answer(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Allowed => Reply::yes(&json!({ "cancel": false })),
        Verdict::Denied(reason) | Verdict::Undecided(reason) => {
            Reply::by_json(&json!({ "cancel": true, "errorMessage": reason.as_str() }), reason)
        }
    }
}

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    let place = match scope {
        Scope::Project => Place::Project(".cline/hooks/PreToolUse.sh"),
        Scope::User => Place::Home { variable: Some("CLINE_DIR"), directory: ".cline", file: "hooks/PreToolUse.sh" },
        Scope::Managed => return Vec::new(),
    };
    let text = format!("#!/bin/sh\n# {MARK}\n{}\n", command.line());
    vec![Target { place, content: Content::Whole { text, executable: true } }]
}
