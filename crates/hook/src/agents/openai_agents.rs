//! The `OpenAI` Agents SDK. The hook is a class of the program that raises before a tool; that ends the run.

use super::{Form, Guard, Kind, plugin};
use crate::command::HookCommand;

pub(super) const FORM: Form = Form {
    name: "openai-agents",
    title: "OpenAI Agents SDK",
    tried: Some("0.24.0"),
    program: "",
    oldest: None,
    guard: Guard::Caller,
    kind: Kind::InProgram(snippet),
    layers: &[],
    switches: &[],
    variables: &[],
    trust: None,
    try_plugin: None,
    event: "on_tool_start",
    note: |_| "",
    answer: plugin::answer,
    is_no: plugin::is_no,
};

fn snippet(command: &HookCommand) -> String {
    let words = serde_json::json!(command.words());
    format!(
        r#"# Hooks that ask machineid before each tool call. What they raise ends the run before the tool begins.
import asyncio

from agents import RunHooks

HOOK = {words}


class MachineidDenied(Exception):
    """The call was not allowed, or it could not be found out whether it is."""


class MachineidHooks(RunHooks):
    async def on_tool_start(self, context, agent, tool):
        process = await asyncio.create_subprocess_exec(
            *HOOK, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, err = await asyncio.wait_for(process.communicate(b'{{"hook_event_name":"on_tool_start"}}'), 15)
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode != 0:
            raise MachineidDenied(err.decode(errors="replace").strip() or "machineid: the hook could not run")


# await Runner.run(agent, prompt, hooks=MachineidHooks())
"#
    )
}
