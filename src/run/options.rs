//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;
use rustix::process::Signal;

use super::event::{Leftovers, Wait};
use crate::protocol::{DeviceId, Wish};
use crate::{span, sys};

/// What `--help` prints.
pub(super) const HELP: &str = "\
Runs a command when the authority allows it, and stops its whole process tree when it no longer does.

Usage: machineid-run [OPTIONS] [--] COMMAND [ARGS…]

Options:
      --device ID            the agent's own device; without it, the host's counts
      --name NAME            a name for people, shown by `machineid status`
      --socket PATH          the daemon's socket (also MACHINEID_SOCKET; default /run/machineid/sidecar.sock, else
                             $XDG_RUNTIME_DIR/machineid/sidecar.sock)
      --stop-signal SIGNAL   the first signal of a stop [default: the daemon's, TERM unless configured]
      --stop-grace DURATION  time from it to SIGKILL, no longer than the daemon's [default: the daemon's, 10s
                             unless configured]
      --timeout DURATION     how long an answer may take [default: 5s]
      --wait[=DURATION]      go on asking until it is allowed, also while there is no daemon or the answer is no
      --containment auto|cgroup|pidns|subreaper
                             what holds the tree together: a control group of its own where one can be had (auto), or
                             one of these and nothing weaker: a control group, a PID namespace, or wrapper and
                             guardian alone [default: auto]
      --leftovers stop|wait  what happens to processes the command leaves behind [default: stop]
      --status-file PATH     write how it ended to this file, as JSON
  -q, --quiet                print errors only
  -h, --help                 print this
  -V, --version              print the version

Durations are whole numbers with ms, s, m or h, as in 500ms or 1m30s.

Exit code: the command's own, or 128+n when signal n ended it; 75 could not find out whether it may run (no daemon, no
answer, the lease ended), 77 denied, before the start or while it ran; 125 wrapper failure, 126 the command cannot be
executed, 127 it was not found.
";

/// What to do.
#[derive(Debug)]
pub(super) enum Request {
    /// Print this text and end.
    Print(String),
    /// Run a command.
    Run(Box<Options>),
}

/// A command line that asks for a run.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) device: Option<DeviceId>,
    pub(super) name: Option<String>,
    pub(super) socket: Option<PathBuf>,
    pub(super) stop_signal: Option<Signal>,
    pub(super) stop_grace: Option<Duration>,
    pub(super) timeout: Duration,
    pub(super) wait: Wait,
    pub(super) containment: Wish,
    pub(super) leftovers: Leftovers,
    pub(super) status_file: Option<PathBuf>,
    pub(super) quiet: bool,
    /// The command and its arguments; never empty.
    pub(super) command: Vec<OsString>,
}

/// Reads the arguments, without the program's own name. The error is one line that says what would be right.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut options = Options {
        device: None,
        name: None,
        socket: None,
        stop_signal: None,
        stop_grace: None,
        timeout: Duration::from_secs(5),
        wait: Wait::No,
        containment: Wish::Auto,
        leftovers: Leftovers::Stop,
        status_file: None,
        quiet: false,
        command: Vec::new(),
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            Long("device") => {
                let text = text_value(&mut parser, "--device")?;
                options.device = Some(text.parse().map_err(|error| format!("--device: {error}"))?);
            }
            Long("name") => options.name = Some(text_value(&mut parser, "--name")?),
            Long("socket") => options.socket = Some(path_value(&mut parser, "--socket")?),
            Long("stop-signal") => {
                let text = text_value(&mut parser, "--stop-signal")?;
                let signal = sys::parse_signal(&text).map_err(|error| format!("--stop-signal: {error}"))?;
                options.stop_signal = Some(signal);
            }
            Long("stop-grace") => options.stop_grace = Some(duration_value(&mut parser, "--stop-grace")?),
            Long("timeout") => {
                options.timeout = duration_value(&mut parser, "--timeout")?;
                if options.timeout.is_zero() {
                    return Err(
                        "--timeout: an answer takes some time; write a duration above zero, as in 5s".to_owned()
                    );
                }
            }
            Long("wait") => {
                options.wait = match parser.optional_value() {
                    None => Wait::Forever,
                    Some(value) => Wait::For(duration(&value, "--wait")?),
                }
            }
            Long("containment") => {
                let text = text_value(&mut parser, "--containment")?;
                options.containment = text.parse().map_err(|error| format!("--containment: {error}"))?;
            }
            Long("leftovers") => {
                options.leftovers = match text_value(&mut parser, "--leftovers")?.as_str() {
                    "stop" => Leftovers::Stop,
                    "wait" => Leftovers::Wait,
                    other => return Err(format!("--leftovers: it is stop or wait, not {other:?}")),
                }
            }
            Long("status-file") => options.status_file = Some(path_value(&mut parser, "--status-file")?),
            Short('q') | Long("quiet") => options.quiet = true,
            Short('h') | Long("help") => return Ok(Request::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Request::Print(format!("machineid-run {}\n", env!("CARGO_PKG_VERSION"))));
            }
            // The first word that is no option begins the command, as with env and timeout: what follows is its own.
            Value(first) => {
                options.command.push(first);
                let rest = parser.raw_args().map_err(|error| usage(&error))?;
                options.command.extend(rest);
                break;
            }
            Short(_) | Long(_) => return Err(usage(&argument.unexpected())),
        }
    }
    if options.command.first().is_none_or(|command| command.is_empty()) {
        return Err("no command to run; write it behind the options: machineid-run -- COMMAND ARGS".to_owned());
    }
    Ok(Request::Run(Box::new(options)))
}

fn usage(error: &lexopt::Error) -> String {
    format!("{error}; see machineid-run --help")
}

fn value(parser: &mut lexopt::Parser, flag: &str) -> Result<OsString, String> {
    parser.value().map_err(|_| format!("{flag} needs a value; see machineid-run --help"))
}

fn text_value(parser: &mut lexopt::Parser, flag: &str) -> Result<String, String> {
    value(parser, flag)?.into_string().map_err(|_| format!("{flag}: not valid UTF-8"))
}

fn path_value(parser: &mut lexopt::Parser, flag: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value(parser, flag)?);
    if path.as_os_str().is_empty() { Err(format!("{flag}: the path is empty")) } else { Ok(path) }
}

fn duration_value(parser: &mut lexopt::Parser, flag: &str) -> Result<Duration, String> {
    duration(&value(parser, flag)?, flag)
}

fn duration(value: &OsString, flag: &str) -> Result<Duration, String> {
    let text = value.to_str().ok_or_else(|| format!("{flag}: not valid UTF-8"))?;
    span::parse(text).map_err(|error| format!("{flag}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Containment;

    fn options(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Request::Run(options) => Ok(*options),
            Request::Print(text) => Err(text),
        }
    }

    #[test]
    fn the_command_begins_behind_two_dashes_or_with_the_first_word() {
        for line in ["--wait -q -- ls -l -- x", "--wait -q ls -l -- x"] {
            let options = options(line).unwrap();
            assert_eq!(options.command, ["ls", "-l", "--", "x"], "{line}");
            assert_eq!(options.wait, Wait::Forever);
            assert!(options.quiet);
        }
    }

    #[test]
    fn every_flag_is_read() {
        let options = options(
            "--device agent-01 --name n --socket /s --stop-signal INT --stop-grace 2s --timeout 1s --wait=1m \
             --containment pidns --leftovers wait --status-file f -- true",
        )
        .unwrap();
        assert_eq!(options.device.unwrap().as_str(), "agent-01");
        assert_eq!(options.stop_signal, Some(Signal::INT));
        assert_eq!((options.stop_grace, options.timeout), (Some(Duration::from_secs(2)), Duration::from_secs(1)));
        assert_eq!(options.wait, Wait::For(Duration::from_mins(1)));
        assert_eq!(options.containment, Wish::Named(Containment::Pidns));
        assert_eq!(options.leftovers, Leftovers::Wait);
        assert_eq!(options.status_file, Some(PathBuf::from("f")));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (line, hint) in [
            ("", "no command"),
            ("--wait", "no command"),
            ("--devise x -- true", "--help"),
            ("--device -x -- true", "letter or a digit"),
            ("--stop-signal STOP -- true", "TERM"),
            ("--stop-grace 10 -- true", "lacks a unit"),
            ("--timeout 0s -- true", "above zero"),
            ("--leftovers keep -- true", "stop or wait"),
            ("--containment docker -- true", "auto, cgroup, pidns or subreaper"),
            ("--device", "needs a value"),
        ] {
            let error = options(line).unwrap_err();
            assert!(error.contains(hint), "{line}: {error}");
        }
    }

    #[test]
    fn the_help_names_every_flag() {
        let flags = [
            "device",
            "name",
            "socket",
            "stop-signal",
            "stop-grace",
            "timeout",
            "wait",
            "containment",
            "leftovers",
            "status-file",
        ];
        for flag in flags {
            assert!(HELP.contains(&format!("--{flag}")), "{flag}");
        }
    }
}
