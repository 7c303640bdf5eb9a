//! Everything a run needs, read from the process's environment once.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{error, fmt, io};

use machineid_agents::Started;
use machineid_protocol::local::SuperviseRequest;
use machineid_protocol::{Containment, RunId, socket_path, span};
use machineid_sys::{self as sys, ProcError, ScrubError};
use nix::sys::prctl;
use rustix::io::Errno;

use super::event::{Leftovers, RunSettings};
use super::isolation::{Isolation, IsolationError};
use super::options::RunOptions;
use super::outside::Outside;
use super::{isolation, outside, status_file};

/// The longest command line that is sent to the daemon for display, in bytes: the daemon takes requests of 64 KiB.
const COMMAND_FOR_PEOPLE: usize = 4096;

/// A run that is ready to be started.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) settings: RunSettings,
    pub(super) socket: PathBuf,
    /// The question to the daemon, without the pids.
    pub(super) question: SuperviseRequest,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) command: Vec<OsString>,
    /// The agent that the command starts, if it is one of the table.
    pub(super) agent: Option<Started>,
    pub(super) outside: Outside,
    /// What is hidden from the command.
    pub(super) isolation: Option<Isolation>,
    pub(super) status_file: Option<PathBuf>,
    pub(super) quiet: bool,
}

impl Run {
    /// A variable of the wrapper's environment.
    pub(super) fn variable(&self, wanted: &str) -> Option<&OsStr> {
        self.environment.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_os_str())
    }
}

/// Why a run could not be made ready. Nothing was started.
#[derive(Debug)]
pub(super) enum RunSetupError {
    /// `/proc` is not usable.
    Proc(ProcError),
    /// The status file could not be written at the end.
    StatusFile(PathBuf, io::Error),
    /// The org key could not be removed from the process's environment.
    Scrub(ScrubError),
    /// What `--isolate` hides could not be prepared.
    Isolation(IsolationError),
    /// Other processes could read this one's memory.
    Dumpable(Errno),
    /// Orphans of the tree would not come to this process.
    Subreaper(Errno),
    /// The kernel gave no random numbers for the run id.
    Random(Errno),
}

impl fmt::Display for RunSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proc(error) => write!(f, "{error}"),
            Self::StatusFile(path, error) => write!(f, "--status-file {}: {error}", path.display()),
            Self::Scrub(error) => write!(f, "{error}"),
            Self::Isolation(error) => write!(f, "{error}"),
            Self::Dumpable(errno) => write!(f, "cannot keep other processes out of its memory: {errno}"),
            Self::Subreaper(errno) => write!(f, "cannot become the parent of orphans: {errno}"),
            Self::Random(errno) => write!(f, "cannot get random numbers: {errno}"),
        }
    }
}

impl error::Error for RunSetupError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Proc(error) => Some(error),
            Self::StatusFile(_, error) => Some(error),
            Self::Scrub(error) => Some(error),
            Self::Isolation(error) => Some(error),
            Self::Dumpable(errno) | Self::Subreaper(errno) | Self::Random(errno) => Some(errno),
        }
    }
}

/// Prepares the process and reads its environment. Must be called before any thread is started.
pub(super) fn prepare(options: RunOptions) -> Result<Run, RunSetupError> {
    sys::check_proc().map_err(RunSetupError::Proc)?;
    if let Some(path) = &options.status_file {
        status_file::check(path).map_err(|error| RunSetupError::StatusFile(path.clone(), error))?;
    }
    // Before anything is copied out of the environment.
    sys::scrub_environment(OsStr::new("MACHINEID_ORG_KEY")).map_err(RunSetupError::Scrub)?;
    prctl::set_dumpable(false).map_err(|errno| RunSetupError::Dumpable(sys::from_nix(errno)))?;
    prctl::set_child_subreaper(true).map_err(|errno| RunSetupError::Subreaper(sys::from_nix(errno)))?;
    let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let variable = |wanted: &str| environment.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    // Without a working directory a relative path stays relative, and is reported as not found.
    let directory = std::env::current_dir().unwrap_or_default();
    let socket = socket_path::find(options.socket.as_deref(), variable, Path::exists, &directory);
    let agent = outside::agent_of(&options.command, &variable, &directory);
    let isolation = if options.isolate {
        let made = Isolation::prepare(agent.as_ref().map(|started| started.agent), &variable, &socket);
        Some(made.map_err(RunSetupError::Isolation)?)
    } else {
        None
    };
    if isolation.is_some() {
        isolation::adjust(&mut environment);
    }
    let run_id = RunId::random().map_err(RunSetupError::Random)?;
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
        agent,
        outside: options.outside,
        isolation,
        status_file: options.status_file,
        quiet: options.quiet,
    })
}

/// Whether this process has children before it forks for the first time.
fn has_children() -> bool {
    let options = rustix::process::WaitIdOptions::EXITED
        | rustix::process::WaitIdOptions::NOHANG
        | rustix::process::WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(rustix::process::WaitId::All, options), Err(Errno::CHILD))
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
