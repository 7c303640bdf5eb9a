//! The hooks of AI agents: what an agent tells its hook before a tool call, what the hook must answer so that the call waits
//! for a yes, and how the agent's settings name the hook.
//!
//! Everything here is pure: no I/O, no clock. The command line reads, asks the daemon and writes.
//!
//! | module | concept |
//! |---|---|
//! | `event` | what the agent says on stdin |
//! | `ask` | the question to the daemon, and its answer |
//! | `verdict` | yes, no, or "could not find out", each no with a reason |
//! | `reply` | what the hook prints, and its exit code |
//! | `agents` | one file an agent: its form of a no, where its settings are, what must stand beside the hook |
//! | `command` | the shell line that starts the hook, and how it is recognised |
//! | `settings` | the hook in a file of settings: put in, taken out, found |
//! | `switches` | what keeps the agent from calling it: switches in any of its settings, variables, trust |
//!
//! An agent that does not understand an answer usually lets the call through. So each agent is answered in its own form of a
//! no, and each no has a reason: some agents ignore one without.

#![forbid(unsafe_code)]

mod agents;
pub mod ask;
pub mod command;
pub mod event;
pub mod reply;
pub mod settings;
pub mod switches;
pub mod verdict;

pub use agents::{Agent, Form, Guard, Kind, Scope, codex_skips};
pub use command::HookCommand;
pub use reply::Reply;
pub use verdict::Verdict;

/// Fuzz target: what another parser reads as an object is an event, nothing else than an object is one, and each no has a reason
/// in each form. (What is skipped may hold what the other parser refuses: half of a surrogate pair, or a number that is too large.)
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz_event(data: &[u8]) {
    let verdict = match event::check(data) {
        Ok(()) => {
            let trimmed = data.trim_ascii();
            assert!(trimmed.starts_with(b"{") && trimmed.ends_with(b"}") && std::str::from_utf8(data).is_ok());
            Verdict::denied(&String::from_utf8_lossy(data))
        }
        Err(error) => {
            assert!(!serde_json::from_slice::<serde_json::Value>(data).is_ok_and(|value| value.is_object()), "{error}");
            Verdict::undecided(&error.to_string())
        }
    };
    for agent in Agent::ALL {
        let reply = agent.form().answer(&verdict);
        assert!(reply.blocks(agent) && !reply.stderr.trim().is_empty(), "{agent:?}: {reply:?}");
    }
}
