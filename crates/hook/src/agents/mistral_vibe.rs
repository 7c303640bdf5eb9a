//! Mistral Vibe. A no is JSON and exit code 0; with `strict` each fault of the hook is a no as well.

use serde_json::json;

use super::group::PATIENCE;
use super::{Form, Guard, Kind, Scope, object};
use crate::command::HookCommand;
use crate::reply::Reply;
use crate::settings::{Content, Edit, Format, Place, Target};
use crate::switches::{FolderTrust, listed};
use crate::verdict::Verdict;

pub(super) const FORM: Form = Form {
    name: "mistral-vibe",
    title: "Mistral Vibe",
    tried: Some("3.0.2"),
    program: "vibe",
    oldest: None,
    guard: Guard::Output,
    kind: Kind::Files(files),
    layers: &[],
    switches: &[],
    variables: &[],
    trust: Some(FolderTrust {
        place: Place::Home { variable: Some("VIBE_HOME"), directory: ".vibe", file: "trusted_folders.toml" },
        format: Format::Toml,
        folders: |folders| [listed(folders, "trusted", true), listed(folders, "untrusted", false)].concat(),
        switch: None,
    }),
    try_plugin: None,
    event: "pre_tool",
    note: |scope| match scope {
        Scope::Project => "Mistral Vibe reads a project's hooks in a trusted folder alone",
        Scope::User | Scope::Managed => "",
    },
    answer,
    is_no: |reply| reply.exit == 0 && object(reply)["decision"] == "deny",
};

fn answer(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Allowed => Reply::silent(),
        Verdict::Denied(reason) | Verdict::Undecided(reason) => {
            Reply::by_json(&json!({ "decision": "deny", "reason": reason.as_str() }), reason)
        }
    }
}

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    let place = match scope {
        Scope::Project => Place::Project(".vibe/hooks.toml"),
        Scope::User => Place::Home { variable: Some("VIBE_HOME"), directory: ".vibe", file: "hooks.toml" },
        Scope::Managed => return Vec::new(),
    };
    let hook = json!({
        "name": "machineid", "type": "pre_tool", "command": command.line(), "strict": true, "timeout": f64::from(PATIENCE),
    });
    let edits = vec![Edit::Entry { path: vec!["hooks"], value: hook }];
    vec![Target { place, content: Content::Edits(Format::Toml, edits) }]
}
