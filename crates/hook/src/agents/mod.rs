//! The agents, one file each.

mod claude_agent_sdk;
mod claude_code;
mod cline;
mod codex;
mod continue_dev;
mod copilot;
mod cursor;
mod gemini_cli;
mod group;
mod mistral_vibe;
mod openai_agents;
mod opencode;
mod pi;
mod plugin;
mod qwen_code;
#[cfg(test)]
mod tests;

pub use codex::codex_skips;

use std::fmt;
use std::str::FromStr;

use super::command::HookCommand;
use super::reply::Reply;
use super::settings::Target;
use super::switches::{FolderTrust, HookSwitch, Layer, Variable};
use super::verdict::Verdict;

/// An agent whose hooks are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agent {
    /// Claude Code.
    ClaudeCode,
    /// `OpenAI`'s codex.
    Codex,
    /// Google's Gemini CLI.
    GeminiCli,
    /// Qwen Code.
    QwenCode,
    /// GitHub's Copilot CLI.
    Copilot,
    /// Mistral's Vibe.
    MistralVibe,
    /// Cline.
    Cline,
    /// opencode.
    Opencode,
    /// pi.
    Pi,
    /// Cursor.
    Cursor,
    /// The Claude Agent SDK, for programs.
    ClaudeAgentSdk,
    /// The `OpenAI` Agents SDK, for programs.
    OpenaiAgents,
    /// Continue's command line.
    Cn,
}

/// Whose settings the hook is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The working directory's.
    Project,
    /// The user's.
    User,
    /// The host's, where an administrator's settings rule the user's.
    Managed,
}

/// What blocks the call when the hook's program is missing or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The shell line exits with 2.
    ExitCode,
    /// The shell line prints a no in the agent's form.
    Output,
    /// Our plugin, which starts the hook without a shell.
    Caller,
}

/// How an agent is given its hook.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// By files that name the command. None of them for a scope that the agent does not have.
    Files(fn(Scope, &HookCommand) -> Vec<Target>),
    /// The agent is a library: the hook is a piece of the program, which is shown.
    InProgram(fn(&HookCommand) -> String),
    /// It calls no hook; the text says what is known.
    Unsupported(&'static str),
}

/// All that is known about an agent's hooks.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// The name of the agent on the command line.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// The version that was tried; `None` when only its documentation was read.
    pub tried: Option<&'static str>,
    /// The agent's program, as it is found on the search path.
    pub program: &'static str,
    /// The oldest version whose hooks can fail closed, if older ones ignore that setting.
    pub oldest: Option<(u32, u32, u32)>,
    /// What blocks when the hook's program is missing.
    pub guard: Guard,
    /// How the agent is given its hook.
    pub kind: Kind,
    /// All files that it reads settings from, the strongest first.
    pub layers: &'static [Layer],
    /// Settings in these files with which hooks are off.
    pub switches: &'static [HookSwitch],
    /// Variables with which hooks are off.
    pub variables: &'static [Variable],
    /// How it is found out whether it trusts a folder; `None` where it is not known or it asks for none.
    pub trust: Option<FolderTrust>,
    /// For a hook that is a plugin in JavaScript: what follows its text in a module that tries it, and prints `{"no": REASON}` or
    /// `{"no": null}`.
    pub try_plugin: Option<&'static str>,
    /// The event's name in a test of the hook.
    pub(crate) event: &'static str,
    /// What a person still has to do or to know, for each scope; empty when there is nothing.
    pub(crate) note: fn(Scope) -> &'static str,
    pub(crate) answer: fn(&Verdict) -> Reply,
    pub(crate) is_no: fn(&Reply) -> bool,
}

impl Form {
    /// The answer in the agent's form.
    #[must_use]
    pub fn answer(&self, verdict: &Verdict) -> Reply {
        (self.answer)(verdict)
    }

    /// Whether the agent takes this output for a no.
    #[must_use]
    pub fn is_no(&self, reply: &Reply) -> bool {
        (self.is_no)(reply)
    }

    /// What a person still has to do or to know after the hook was installed there.
    #[must_use]
    pub fn note(&self, scope: Scope) -> Option<&'static str> {
        Some((self.note)(scope)).filter(|note| !note.is_empty())
    }

    /// An event as the agent would send it, to try the hook with.
    #[must_use]
    pub fn sample(&self) -> String {
        let event = serde_json::json!({
            "hook_event_name": self.event, "session_id": "machineid-doctor", "cwd": "/", "tool_name": "machineid-doctor",
            "tool_input": {},
        });
        event.to_string()
    }
}

impl Agent {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 13] = [
        Self::ClaudeCode,
        Self::Codex,
        Self::GeminiCli,
        Self::QwenCode,
        Self::Copilot,
        Self::MistralVibe,
        Self::Cline,
        Self::Opencode,
        Self::Pi,
        Self::Cursor,
        Self::ClaudeAgentSdk,
        Self::OpenaiAgents,
        Self::Cn,
    ];

    /// What is known about its hooks.
    #[must_use]
    pub const fn form(self) -> &'static Form {
        match self {
            Self::ClaudeCode => &claude_code::FORM,
            Self::Codex => &codex::FORM,
            Self::GeminiCli => &gemini_cli::FORM,
            Self::QwenCode => &qwen_code::FORM,
            Self::Copilot => &copilot::FORM,
            Self::MistralVibe => &mistral_vibe::FORM,
            Self::Cline => &cline::FORM,
            Self::Opencode => &opencode::FORM,
            Self::Pi => &pi::FORM,
            Self::Cursor => &cursor::FORM,
            Self::ClaudeAgentSdk => &claude_agent_sdk::FORM,
            Self::OpenaiAgents => &openai_agents::FORM,
            Self::Cn => &continue_dev::FORM,
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.form().name
    }
}

/// The agent is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such agent is known")]
pub struct UnknownAgent;

impl FromStr for Agent {
    type Err = UnknownAgent;

    fn from_str(text: &str) -> Result<Self, UnknownAgent> {
        Self::ALL.into_iter().find(|agent| agent.name() == text).ok_or(UnknownAgent)
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The object in this output, if it is one.
fn object(reply: &Reply) -> serde_json::Value {
    serde_json::from_str(&reply.stdout).unwrap_or_default()
}

fn no_by_exit_code(reply: &Reply) -> bool {
    reply.exit == super::reply::BLOCK && !reply.stderr.trim().is_empty()
}
