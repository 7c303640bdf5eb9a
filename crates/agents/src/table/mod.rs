//! The table of agents: one file an agent.
//!
//! A fact stands here only if it was seen with the version that is named. Frameworks that run their tools in the process
//! itself (openai-agents, `LangChain`, smolagents) need no entry.

mod aider;
mod claude_code;
mod cline;
mod codex;
mod gemini_cli;
mod gptme;
mod mini_swe_agent;
mod mistral_vibe;
mod opencode;
mod pi;
mod qwen_code;

use super::agent::AgentProfile;

/// All agents, by name.
pub static TABLE: [&AgentProfile; 11] = [
    &aider::AGENT,
    &claude_code::AGENT,
    &cline::AGENT,
    &codex::AGENT,
    &gemini_cli::AGENT,
    &gptme::AGENT,
    &mini_swe_agent::AGENT,
    &mistral_vibe::AGENT,
    &opencode::AGENT,
    &pi::AGENT,
    &qwen_code::AGENT,
];

/// The agent with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static AgentProfile> {
    TABLE.into_iter().find(|agent| agent.name == name)
}

#[cfg(test)]
mod tests {
    use super::super::agent::{Keep, MeetingPoint};
    use super::*;
    use std::ffi::OsString;
    use std::path::PathBuf;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        let mut programs: Vec<_> = TABLE.iter().flat_map(|agent| agent.programs).collect();
        programs.sort_unstable();
        assert!(programs.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(TABLE.iter().all(|agent| by_name(agent.name) == Some(agent)));
    }

    #[test]
    fn every_daemon_can_be_recognised_avoided_and_ended() {
        for agent in TABLE {
            assert!(!agent.tried.is_empty() && !agent.source.is_empty() && !agent.programs.is_empty(), "{agent:?}");
            let Some(daemon) = &agent.daemon else { continue };
            assert!(!daemon.marks.is_empty() && !daemon.stop.is_empty() && !daemon.in_tree.is_empty(), "{agent:?}");
            // What no mount namespace covers must be avoided in another way.
            let by_port = daemon.meeting_points.iter().any(|point| matches!(point, MeetingPoint::Loopback(_)));
            assert!(!by_port || !daemon.isolated_by.is_empty(), "{agent:?}");
        }
    }

    #[test]
    fn what_keeps_work_in_the_tree_is_read_from_the_command_and_its_environment() {
        let kept = |name: &str, line: &str, set: &[(&str, &str)]| {
            let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let variables =
                |wanted: &str| set.iter().find(|(name, _)| *name == wanted).map(|(_, value)| OsString::from(value));
            by_name(name).unwrap().kept_by(&arguments, &variables)
        };
        assert_eq!(kept("codex", "--no-daemon x", &[]), Some(Keep::Argument("--no-daemon")));
        assert_eq!(kept("codex", "--yolo exec x", &[]), Some(Keep::Subcommand("exec")));
        assert_eq!(kept("codex", "do exec", &[]), None);
        assert_eq!(kept("codex", "-- --no-daemon", &[]), None);
        assert_eq!(kept("codex", "", &[]), None);
        assert_eq!(kept("claude-code", "-p x", &[]), Some(Keep::Argument("-p")));
        assert_eq!(kept("claude-code", "--bg x", &[]), None);
        let local = Keep::Variable("CLINE_SESSION_BACKEND_MODE", "local");
        assert_eq!(kept("cline", "x", &[("CLINE_SESSION_BACKEND_MODE", " Local")]), Some(local));
        assert_eq!(kept("cline", "x", &[("CLINE_SESSION_BACKEND_MODE", "hub")]), None);
        assert_eq!(kept("aider", "x", &[]), None);
    }

    #[test]
    fn the_state_directory_is_the_variables_or_below_the_home() {
        let directory = |set: &'static [(&str, &str)]| {
            let variables = move |wanted: &str| {
                set.iter().find(|(name, _)| *name == wanted).map(|(_, value)| OsString::from(value))
            };
            codex::AGENT.state_directory(&variables)
        };
        assert_eq!(directory(&[("HOME", "/h")]), Some(PathBuf::from("/h/.codex")));
        assert_eq!(directory(&[("HOME", "/h"), ("CODEX_HOME", "/c")]), Some(PathBuf::from("/c")));
        assert_eq!(directory(&[("HOME", "/h"), ("CODEX_HOME", "")]), Some(PathBuf::from("/h/.codex")));
        assert_eq!(directory(&[]), None);
    }
}
