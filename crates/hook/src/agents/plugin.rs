//! What our plugins in JavaScript share: they start the hook without a shell, and read its answer.

use serde_json::json;

use super::no_by_exit_code;
use crate::command::{HookCommand, PLUGIN_WORDS};
use crate::reply::Reply;
use crate::verdict::Verdict;

/// The answer to our own plugin, which ends the session when `end` says so.
pub(super) fn answer(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Allowed => Reply::silent(),
        Verdict::Denied(reason) => Reply::by_both(&json!({ "end": true }), reason),
        Verdict::Undecided(reason) => Reply::by_both(&json!({ "end": false }), reason),
    }
}

pub(super) fn is_no(reply: &Reply) -> bool {
    no_by_exit_code(reply)
}

/// The function `ask(name)`: `null` for a yes, otherwise the reason and whether the session ends. It never throws and takes
/// nothing but exit code 0 for a yes.
pub(super) fn ask(command: &HookCommand) -> String {
    let words = json!(command.words());
    format!(
        r#"import {{ spawn }} from "node:child_process"

{PLUGIN_WORDS}{words}
// Far above the deadline of the hook itself.
const PATIENCE_MS = 15000

// The answer of `machineid hook`: null for a yes, otherwise the reason. Every fault is a no.
function ask(event) {{
  return new Promise((resolve) => {{
    const no = (reason, end = false) => resolve({{ reason, end }})
    try {{
      const child = spawn(PROGRAM, ARGUMENTS, {{ stdio: ["pipe", "pipe", "pipe"] }})
      let out = ""
      let err = ""
      const timer = setTimeout(() => {{
        child.kill("SIGKILL")
        no("machineid: the hook did not answer, so the call is blocked")
      }}, PATIENCE_MS)
      child.on("error", (error) => {{
        clearTimeout(timer)
        no(`machineid: the hook could not run, so the call is blocked: ${{error.message}}`)
      }})
      child.stdin.on("error", () => {{}})
      child.stdout.on("data", (data) => {{ out += data }})
      child.stderr.on("data", (data) => {{ err += data }})
      child.on("close", (code) => {{
        clearTimeout(timer)
        if (code === 0) return resolve(null)
        let end = false
        try {{ end = JSON.parse(out).end === true }} catch {{}}
        no(err.trim() || `machineid: the hook failed with ${{code}}, so the call is blocked`, end)
      }})
      child.stdin.end(JSON.stringify(event))
    }} catch (error) {{
      no(`machineid: the hook could not run, so the call is blocked: ${{error}}`)
    }}
  }})
}}
"#
    )
}
