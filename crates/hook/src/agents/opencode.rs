//! opencode. Our plugin throws before the tool, and aborts the session on a deny. A plugin that fails to load is skipped without
//! a word.

use super::{Form, Guard, Kind, Scope, plugin};
use crate::command::HookCommand;
use crate::settings::{Content, MARK, Place, Target};
use crate::switches::{Hits, Variable};

pub(super) const FORM: Form = Form {
    name: "opencode",
    title: "opencode",
    tried: Some("1.18.33"),
    program: "opencode",
    oldest: None,
    guard: Guard::Caller,
    kind: Kind::Files(files),
    layers: &[],
    switches: &[],
    variables: &[Variable { name: "OPENCODE_PURE", hits: Hits::All }],
    trust: None,
    try_plugin: Some(TRY),
    event: "tool.execute.before",
    note: |_| "",
    answer: plugin::answer,
    is_no: plugin::is_no,
};

/// Calls the plugin as opencode would before a tool.
const TRY: &str = r#"
const tried = await Machineid({ client: { session: { abort: async () => {} } } })
let no = null
try {
  await tried["tool.execute.before"]({ tool: "machineid-doctor", sessionID: "machineid-doctor" }, { args: {} })
} catch (error) { no = String(error?.message ?? error) }
console.log(JSON.stringify({ no }))
"#;

fn files(scope: Scope, command: &HookCommand) -> Vec<Target> {
    let place = match scope {
        Scope::Project => Place::Project(".opencode/plugin/machineid.js"),
        Scope::User => Place::Config { directory: "opencode", file: "plugin/machineid.js" },
        Scope::Managed => return Vec::new(),
    };
    let ask = plugin::ask(command);
    let text = format!(
        r#"// {MARK}
{ask}
export const Machineid = async ({{ client }}) => ({{
  "tool.execute.before": async (input) => {{
    const no = await ask({{ hook_event_name: "tool.execute.before", tool_name: String(input?.tool) }})
    if (no === null) return
    if (no.end) {{
      // The session ends; the call is blocked in any case, by what is thrown.
      try {{ client.session.abort({{ path: {{ id: input.sessionID }} }}).catch(() => {{}}) }} catch {{}}
    }}
    throw new Error(no.reason)
  }},
}})
"#
    );
    vec![Target { place, content: Content::Whole { text, executable: false } }]
}
