//! `machineid-run`: starts a command when the daemon allows it, and ends its whole process tree when it no longer does.
//!
//! | file | concept |
//! |---|---|
//! | `flags` | the flags, for the command line, `--help`, the manual page and completions |
//! | `options` | the command line |
//! | `setup` | what a run needs, read from the process's environment once |
//! | `event` | the events that the core takes and the actions that it answers with |
//! | `core` | pure: decides, given the time and the events |
//! | `verdict` | pure: what a refusal means for a run |
//! | `wire` | pure: the question as HTTP/1.0, and the parser of the answer |
//! | `outcome` | how a run ended: exit code, line, status file |
//! | `status_file` | where `--status-file` is written, and how |
//! | `guard` | the process between wrapper and command, which ends the tree when the wrapper cannot |
//! | `outside` | daemons of an agent that run outside its tree, looked for before the start |
//! | `isolation` | what `--isolate` hides from the command |
//! | `containment` | which containment a run gets, and making its control group |
//! | `child` | the process that waits for permission and becomes the command |
//! | `terminal` | which process group has the terminal, and its settings |
//! | `screen` | the modes of a terminal that are reset after a stop |
//! | `say` | lines on stderr, which never wait for long |
//! | `connection` | the connection to the daemon |
//! | `stopping` | the wrapper's own stop of its tree |
//! | `timer` | a timer on the boot clock |
//! | `outside_look` | what the agent uses outside its tree, where the daemon may not look |
//! | `shell` | the poll loop that carries out what `core` decides |
//!
//! The wrapper has one thread and no runtime: it starts in a millisecond and sleeps in one `poll` for as long as the command
//! runs. Only where the daemon may not look at the agent's processes, a second thread does.

#![forbid(unsafe_code)]

mod child;
mod connection;
mod containment;
mod core;
mod event;
pub mod flags;
mod guard;
mod isolation;
mod options;
mod outcome;
mod outside;
mod outside_look;
mod say;
mod screen;
mod setup;
mod shell;
mod status_file;
mod stopping;
mod terminal;
mod timer;
mod verdict;
mod wire;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;

use machineid_protocol::Exit;

use self::options::Invocation;
use self::say::say;
use self::setup::Run;

/// The whole program: reads the process's environment, runs the command, and returns the exit code.
///
/// Must be called before any thread is started. `arguments` does not contain the program's name.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    match options::parse(arguments) {
        Ok(Invocation::Print(text)) => {
            let mut stdout = std::io::stdout();
            // A closed pipe is the reader's choice.
            let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            Exit::Success
        }
        Ok(Invocation::Run(options)) => match setup::prepare(*options) {
            Ok(run) => shell::run(&run),
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn fmt::Display) -> Exit {
    say(&format!("machineid-run: {error}"));
    Exit::Wrapper
}

/// Checks that an answer gives the same events however its bytes are cut into pieces, and none after its end. The first byte
/// says how the answer is cut.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz_event_stream(data: &[u8]) {
    wire::fuzz(data);
}

/// Checks that a message of the guardian that can be read is written as the same bytes.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz_guardian_message(data: &[u8]) {
    guard::fuzz_message(data);
}
