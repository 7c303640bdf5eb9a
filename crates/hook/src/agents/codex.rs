//! codex. A no is the reason on stderr and exit code 2; `continue` in JSON is not supported. A no does not end the turn, so
//! the hook is also asked before each of the user's prompts.

use serde_json::json;

use super::group::{PATIENCE, entry, group};
use super::{Form, Guard, Kind, Scope, no_by_exit_code};
use crate::command::HookCommand;
use crate::reply::Reply;
use crate::settings::{Content, Edit, Format, Place, Target};
use crate::verdict::Verdict;

pub(super) const FORM: Form = Form {
    name: "codex",
    title: "codex",
    tried: Some("0.171.0"),
    program: "codex",
    oldest: None,
    guard: Guard::ExitCode,
    kind: Kind::Files(files),
    off: &[],
    event: "PreToolUse",
    note: |scope| match scope {
        Scope::User => {
            "codex skips a hook that is not trusted, without a word: start codex, enter /hooks and trust both"
        }
        Scope::Project => {
            "codex reads it in a trusted project alone, and skips a hook that is not trusted: start codex, enter /hooks and trust both"
        }
        Scope::Managed => "",
    },
    answer,
    // Output that is not its own would be a broken hook.
    is_no: |reply| no_by_exit_code(reply) && reply.stdout.is_empty(),
};

const EVENTS: [&str; 2] = ["PreToolUse", "UserPromptSubmit"];

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
