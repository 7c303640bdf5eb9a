//! pi. Our extension blocks the call, and aborts the run on a deny. A broken extension stops pi.

use super::{Form, Guard, Kind, Scope, plugin};
use crate::command::HookCommand;
use crate::settings::{Content, MARK, Place, Target};

pub(super) const FORM: Form = Form {
    name: "pi",
    title: "pi",
    tried: Some("1.6.0"),
    program: "pi",
    oldest: None,
    guard: Guard::Caller,
    kind: Kind::Files(files),
    layers: &[],
    switches: &[],
    variables: &[],
    trust: None,
    try_plugin: Some(TRY),
    event: "tool_call",
    note: |scope| match scope {
        Scope::Project => "pi reads a project's extensions in a trusted project alone",
        Scope::User | Scope::Managed => "",
    },
    answer: plugin::answer,
    is_no: plugin::is_no,
};

/// Calls the extension as pi would before a tool.
const TRY: &str = r#"
let call
machineid({ on: (event, handler) => { if (event === "tool_call") call = handler } })
const answer = await call({ toolName: "machineid-doctor" }, { abort() {} })
console.log(JSON.stringify({ no: answer?.block === true ? String(answer.reason) : null }))
"#;

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    let place = match scope {
        Scope::Project => Place::Project(".pi/extensions/machineid.js"),
        Scope::User => Place::Home {
            variable: Some("PI_CODING_AGENT_DIR"),
            directory: ".pi/agent",
            file: "extensions/machineid.js",
        },
        Scope::Managed => return Vec::new(),
    };
    let ask = plugin::ask(command);
    let text = format!(
        r#"// {MARK}
{ask}
export default function machineid(pi) {{
  pi.on("tool_call", async (event, ctx) => {{
    const no = await ask({{ hook_event_name: "tool_call", tool_name: String(event?.toolName) }})
    if (no === null) return undefined
    if (no.end) {{
      try {{ ctx.abort() }} catch {{}}
    }}
    return {{ block: true, reason: no.reason, terminate: no.end }}
  }})
}}
"#
    );
    vec![Target { place, content: Content::Whole { text, executable: false } }]
}
