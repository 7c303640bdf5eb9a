//! `machineid hook`: answers an agent's question before a tool call, and puts this hook into agents' settings.
//!
//! | file | concept |
//! |---|---|
//! | `deadline` | the answer in time, whatever the work does |
//! | `ask` | stdin and the daemon, blocking |
//! | `install` | the hook in an agent's settings |
//! | `place` | where an agent's settings are |
//! | `settings_file` | one file, replaced as a whole and kept beside |
//!
//! The forms of the agents are the crate `machineid-hook`.

mod ask;
mod deadline;
mod install;
pub(super) mod place;
pub(super) mod settings_file;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use machineid_hook::Reply;
use machineid_protocol::{Exit, socket_path};

pub(crate) use install::{install, uninstall};

use crate::Env;
use crate::args::HookAnswerArgs;

/// The hook's deadline: far below the time that any agent leaves its hooks.
const DEADLINE: Duration = Duration::from_secs(3);

/// Answers one event. Every fault is a no.
pub(crate) fn answer(args: &HookAnswerArgs, env: Env<'_>) -> Exit {
    let Some(agent) = args.agent else { return Exit::Usage };
    let socket = socket_path::find(args.how.socket.as_deref(), env, Path::exists, Path::new(""));
    let deadline = args.how.timeout.unwrap_or(DEADLINE);
    let device = args.how.device.clone();
    let verdict = deadline::within(deadline, move |remaining| ask::whole(&socket, device.as_ref(), remaining));
    let reply = agent.form().answer(&verdict);
    if print(&reply).is_err() {
        // Without its words the no has its exit code.
        return Exit::Blocked;
    }
    if reply.exit == 0 { Exit::Success } else { Exit::Blocked }
}

fn print(reply: &Reply) -> std::io::Result<()> {
    // An agent reads both; stderr first, so that a reader of one that has gone keeps nothing from the other.
    let _ = std::io::stderr().write_all(reply.stderr.as_bytes());
    let mut out = std::io::stdout().lock();
    out.write_all(reply.stdout.as_bytes())?;
    out.flush()
}
