//! The Claude Agent SDK. The hook is a callback of the program, which must never raise; it starts `machineid hook`.

use super::{Form, Guard, Kind, claude_code};
use crate::command::HookCommand;

pub(super) const FORM: Form = Form {
    name: "claude-agent-sdk",
    title: "Claude Agent SDK",
    tried: Some("0.2.189"),
    program: "",
    oldest: None,
    guard: Guard::Caller,
    kind: Kind::InProgram(snippet),
    layers: &[],
    switches: &[],
    variables: &[],
    trust: None,
    try_plugin: None,
    event: "PreToolUse",
    note: |_| "",
    answer: claude_code::answer,
    is_no: claude_code::FORM.is_no,
};

fn snippet(command: &HookCommand) -> String {
    let words = serde_json::json!(command.words());
    format!(
        r#"# A hook that asks machineid before each tool call. It never raises: an exception would let the call through.
# The program must not empty the settings sources of other hooks (setting_sources=[]), and starts under machineid-run.
import asyncio
import json

from claude_agent_sdk import ClaudeAgentOptions, HookMatcher

HOOK = {words}


async def machineid_hook(event, tool_use_id, context):
    reason, end = "machineid: the hook could not run, so the call is blocked", False
    process = None
    try:
        process = await asyncio.create_subprocess_exec(
            *HOOK, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        data = json.dumps({{"hook_event_name": "PreToolUse"}}).encode()
        out, err = await asyncio.wait_for(process.communicate(data), 15)
        if process.returncode == 0:
            return {{}}
        reason = err.decode(errors="replace").strip() or reason
        end = json.loads(out).get("continue") is False
    except Exception:
        if process is not None and process.returncode is None:
            process.kill()
    answer = {{
        "hookSpecificOutput": {{
            "hookEventName": "PreToolUse",
            "permissionDecision": "deny",
            "permissionDecisionReason": reason,
        }}
    }}
    if end:
        answer.update({{"continue_": False, "stopReason": reason}})
    return answer


options = ClaudeAgentOptions(hooks={{"PreToolUse": [HookMatcher(hooks=[machineid_hook], timeout=20)]}})
"#
    )
}
