//! `machineid-run`: starts a command when it is allowed, and ends its whole process tree when it no longer is.
//!
//! | file | concept |
//! |---|---|
//! | `flags` | the flags, for the command line, `--help`, the manual page and completions |
//! | `options` | the command line |
//! | `event` | what the core is told and what it answers |
//! | `core` | pure: what is decided, told the time and what happened |
//! | `verdict` | pure: what an answer that is no means |
//! | `wire` | pure: the question as HTTP/1.0 and the answer taken apart |
//! | `outcome` | how a run ended: exit code, line, status file |
//! | `status_file` | where `--status-file` goes, and how |
//! | `guard` | the process between wrapper and command, which ends the tree when the wrapper cannot |
//! | `containment` | which containment can be had, and the control group when it is that |
//! | `child` | the process that waits for permission and becomes the command |
//! | `terminal` | who has the terminal |
//! | `connection` | the stream to the daemon |
//! | `stopping` | the wrapper's own stop of its tree |
//! | `timer` | a timer on the boot clock |
//! | `shell` | the poll loop that carries out what `core` decides |
//!
//! One thread, no runtime: it starts in a millisecond and sleeps in one `poll` for as long as the command runs.

#![forbid(unsafe_code)]

mod child;
mod connection;
mod containment;
mod core;
mod event;
pub mod flags;
mod guard;
mod options;
mod outcome;
mod shell;
mod status_file;
mod stopping;
mod terminal;
mod timer;
mod verdict;
mod wire;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};

use machineid_protocol::local::SuperviseRequest;
use machineid_protocol::{Containment, Exit, RunId, socket_path, span};
use machineid_sys as sys;
use nix::sys::prctl;
use rustix::event::{PollFd, PollFlags, Timespec};

use self::event::{Leftovers, RunSettings};
use self::options::{Invocation, RunOptions};

/// The longest command line that is sent along for people, in bytes: the daemon takes requests of 64 KiB.
const COMMAND_FOR_PEOPLE: usize = 4096;

/// The whole program: reads the process's environment, runs the command, says how to exit.
///
/// Must be called before any thread is started. The arguments are those behind the program's name.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    match options::parse(arguments) {
        Ok(Invocation::Print(text)) => {
            let mut stdout = std::io::stdout();
            // A closed pipe is the reader's choice.
            let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            Exit::Success
        }
        Ok(Invocation::Run(options)) => match prepare(*options) {
            Ok(run) => shell::run(&run),
            Err(reason) => fail(&reason),
        },
        Err(reason) => fail(&reason),
    }
}

/// Says on stderr what has failed.
#[must_use]
pub fn fail(reason: &str) -> Exit {
    say(&format!("machineid-run: {reason}"));
    Exit::Wrapper
}

/// How long a line may wait for room on stderr.
const TO_BE_HEARD: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// One line on stderr. A stderr that cannot be written to changes nothing; a full pipe that nobody reads, or a terminal
/// that somebody has halted, would hold up a stop for ever.
fn say(line: &str) {
    let mut fds = [PollFd::from_borrowed_fd(rustix::stdio::stderr(), PollFlags::OUT)];
    if matches!(rustix::event::poll(&mut fds, Some(&TO_BE_HEARD)), Ok(1..)) {
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

/// Everything a run needs, read from outside once.
#[derive(Debug)]
struct Run {
    settings: RunSettings,
    socket: PathBuf,
    /// The question, but for the pid.
    question: SuperviseRequest,
    environment: Vec<(OsString, OsString)>,
    command: Vec<OsString>,
    status_file: Option<PathBuf>,
    quiet: bool,
}

fn prepare(options: RunOptions) -> Result<Run, String> {
    sys::check_proc()?;
    if let Some(path) = &options.status_file {
        status_file::check(path).map_err(|error| format!("--status-file {}: {error}", path.display()))?;
    }
    // Before anything is copied out of the environment.
    sys::scrub_environment(OsStr::new("MACHINEID_ORG_KEY")).map_err(|error| error.to_string())?;
    prctl::set_dumpable(false)
        .map_err(|errno| format!("cannot keep other processes out of its memory: {}", sys::from_nix(errno)))?;
    prctl::set_child_subreaper(true)
        .map_err(|errno| format!("cannot become the parent of orphans: {}", sys::from_nix(errno)))?;
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let variable = |wanted: &str| environment.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    // Without a working directory a relative path stays one, and is reported as not found.
    let directory = std::env::current_dir().unwrap_or_default();
    let socket = socket_path::find(options.socket.as_deref(), variable, Path::exists, &directory);
    let run_id = RunId::random().map_err(|errno| format!("cannot get random numbers: {errno}"))?;
    let question = SuperviseRequest {
        pid: 0,
        run_id,
        // A shell that became the wrapper by exec leaves it its background jobs.
        alone: !has_children(),
        guardian: None,
        device: options.device.clone(),
        name: options.name,
        command: for_people(&options.command),
        containment: Some(options.containment),
        leftovers: Some(match options.leftovers {
            Leftovers::Stop => "stop".to_owned(),
            Leftovers::Wait => "wait".to_owned(),
        }),
        stop_signal: options.stop_signal.map(sys::signal_name),
        stop_grace: options.stop_grace.map(span::format),
    };
    let settings = RunSettings {
        run_id,
        device: options.device,
        timeout: options.timeout,
        wait: options.wait,
        stop_grace: options.stop_grace,
        stop_signal: options.stop_signal,
        containment: options.containment,
        made: Containment::Subreaper,
        no_leaf: None,
        leftovers: options.leftovers,
        socket: socket.display().to_string(),
    };
    Ok(Run {
        settings,
        socket,
        question,
        environment,
        command: options.command,
        status_file: options.status_file,
        quiet: options.quiet,
    })
}

/// Whether there are children before the first fork of our own.
fn has_children() -> bool {
    let options = rustix::process::WaitIdOptions::EXITED
        | rustix::process::WaitIdOptions::NOHANG
        | rustix::process::WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(rustix::process::WaitId::All, options), Err(rustix::io::Errno::CHILD))
}

/// The command line as text, cut when it is long.
fn for_people(command: &[OsString]) -> Vec<String> {
    let mut left = COMMAND_FOR_PEOPLE;
    let mut texts = Vec::new();
    for part in command {
        let text: String = part.to_string_lossy().chars().take(left / 4).collect();
        left = left.saturating_sub(text.len() + 1);
        texts.push(text);
        if left < 4 {
            texts.push("…".to_owned());
            break;
        }
    }
    texts
}

/// However a foreign answer is cut, the same comes of it, and nothing after its end. The first byte says how it is cut.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz_event_stream(data: &[u8]) {
    wire::fuzz(data);
}

/// What is read from foreign bytes is written as the same bytes.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz_guardian_message(data: &[u8]) {
    guard::fuzz_message(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_line_is_cut_for_people() {
        let command: Vec<OsString> = vec!["é".repeat(100_000).into(), "x".into()];
        let texts = for_people(&command);
        assert!(texts.iter().map(String::len).sum::<usize>() < COMMAND_FOR_PEOPLE + 8);
        let short: Vec<OsString> = vec!["ls".into(), "-l".into()];
        assert_eq!(for_people(&short), ["ls", "-l"]);
        let many: Vec<OsString> = vec!["x".into(); 100_000];
        assert!(for_people(&many).len() < COMMAND_FOR_PEOPLE);
    }
}
