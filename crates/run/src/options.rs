//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;
use machineid_protocol::{DeviceId, Wish, span};
use machineid_sys as sys;
use machineid_version::VERSION;
use rustix::process::Signal;

use super::event::{Leftovers, Wait};
use super::flags::{self, About, FLAGS, Flag};

/// What to do.
#[derive(Debug)]
pub(super) enum Invocation {
    /// Print this text and end.
    Print(String),
    /// Run a command.
    Run(Box<RunOptions>),
}

/// A command line that asks for a run.
#[derive(Debug)]
pub(super) struct RunOptions {
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
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, String> {
    let mut options = RunOptions {
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
        let known = match argument {
            Long(long) => FLAGS.iter().find(|flag| flag.long == long),
            Short(short) => FLAGS.iter().find(|flag| flag.short == Some(short)),
            // The first word that is no option begins the command, as with env and timeout: what follows is its own.
            Value(first) => {
                options.command.push(first);
                let rest = parser.raw_args().map_err(|error| usage(&error))?;
                options.command.extend(rest);
                break;
            }
        };
        let Some(flag) = known else { return Err(usage(&argument.unexpected())) };
        if let Some(text) = take(flag, &mut parser, &mut options)? {
            return Ok(Invocation::Print(text));
        }
    }
    if options.command.first().is_none_or(|command| command.is_empty()) {
        return Err("no command to run; write it behind the options: machineid-run -- COMMAND ARGS".to_owned());
    }
    Ok(Invocation::Run(Box::new(options)))
}

/// Takes one flag with its value; for those that ask for a text, that text.
fn take(flag: &Flag, parser: &mut lexopt::Parser, options: &mut RunOptions) -> Result<Option<String>, String> {
    let shown = format!("--{}", flag.long);
    let shown = shown.as_str();
    match flag.about {
        About::Device => {
            let text = text_value(parser, shown)?;
            options.device = Some(text.parse().map_err(|error| format!("{shown}: {error}"))?);
        }
        About::Name => options.name = Some(text_value(parser, shown)?),
        About::Socket => options.socket = Some(path_value(parser, shown)?),
        About::StopSignal => {
            let signal = sys::parse_signal(&text_value(parser, shown)?).map_err(|error| format!("{shown}: {error}"))?;
            options.stop_signal = Some(signal);
        }
        About::StopGrace => options.stop_grace = Some(duration_value(parser, shown)?),
        About::Timeout => {
            options.timeout = duration_value(parser, shown)?;
            if options.timeout.is_zero() {
                return Err("--timeout: an answer takes some time; write a duration above zero, as in 5s".to_owned());
            }
        }
        About::Wait => {
            options.wait = match parser.optional_value() {
                None => Wait::Forever,
                Some(value) => Wait::For(duration(&value, shown)?),
            }
        }
        About::Containment => {
            options.containment = text_value(parser, shown)?.parse().map_err(|error| format!("{shown}: {error}"))?;
        }
        About::Leftovers => {
            options.leftovers = match text_value(parser, shown)?.as_str() {
                "stop" => Leftovers::Stop,
                "wait" => Leftovers::Wait,
                other => return Err(format!("{shown}: it is stop or wait, not {other:?}")),
            }
        }
        About::StatusFile => options.status_file = Some(path_value(parser, shown)?),
        About::Quiet => options.quiet = true,
        About::Help => return Ok(Some(flags::help())),
        About::Version => return Ok(Some(format!("machineid-run {VERSION}\n"))),
    }
    Ok(None)
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
    use machineid_protocol::Containment;

    fn options(line: &str) -> Result<RunOptions, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Invocation::Run(options) => Ok(*options),
            Invocation::Print(text) => Err(text),
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
    fn every_flag_of_the_table_is_taken() {
        for flag in FLAGS {
            let error = options(&format!("--{}", flag.long)).err().unwrap_or_default();
            assert!(!error.contains("invalid option"), "{}: {error}", flag.long);
        }
    }
}
