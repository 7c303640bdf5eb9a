//! The command line, parsed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use std::{error, fmt};

use lexopt::prelude::*;
use machineid_protocol::containment::WishError;
use machineid_protocol::device_id::DeviceIdError;
use machineid_protocol::span::SpanError;
use machineid_protocol::{DeviceId, Wish, span};
use machineid_sys::{self as sys, SignalNameError};
use machineid_version::VERSION;
use rustix::process::Signal;

use super::event::{Leftovers, Wait};
use super::flags::{self, About, FLAGS, Flag};
use super::outside::Outside;

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Invocation {
    /// Print this text and exit.
    Print(String),
    /// Run a command.
    Run(Box<RunOptions>),
}

/// The flags and the command of a run.
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
    pub(super) outside: Outside,
    pub(super) isolate: bool,
    pub(super) status_file: Option<PathBuf>,
    pub(super) quiet: bool,
    /// The command and its arguments; never empty.
    pub(super) command: Vec<OsString>,
}

/// What is wrong with a command line. Each text is one line that says what would be right.
#[derive(Debug)]
pub(super) enum UsageError {
    /// The line is not made of flags and a command.
    Line(lexopt::Error),
    /// No command follows the flags.
    NoCommand,
    /// This flag lacks its value.
    NoValue(&'static str),
    /// This flag's value is not UTF-8.
    NotUtf8(&'static str),
    /// This flag's value is an empty path.
    EmptyPath(&'static str),
    /// This flag's value is not a device id.
    Device(&'static str, DeviceIdError),
    /// This flag's value is not a signal that can begin a stop.
    Signal(&'static str, SignalNameError),
    /// This flag's value is not a duration.
    Span(&'static str, SpanError),
    /// This flag's value is a duration of zero.
    Zero(&'static str),
    /// This flag's value is not a containment.
    Containment(&'static str, WishError),
    /// A duration stands behind this flag, which takes its value with an equals sign alone.
    NeedsEquals(&'static str, String),
    /// This flag's value is neither `stop` nor `wait`.
    Leftovers(&'static str, String),
    /// This flag's value is neither `refuse` nor `allow`.
    Outside(&'static str, String),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(error) => write!(f, "{error}; see machineid-run --help"),
            Self::NoCommand => {
                f.write_str("no command to run; write it behind the options: machineid-run -- COMMAND ARGS")
            }
            Self::NoValue(flag) => write!(f, "--{flag} needs a value; see machineid-run --help"),
            Self::NotUtf8(flag) => write!(f, "--{flag}: not valid UTF-8"),
            Self::EmptyPath(flag) => write!(f, "--{flag}: the path is empty"),
            Self::Device(flag, error) => write!(f, "--{flag}: {error}"),
            Self::Signal(flag, error) => write!(f, "--{flag}: {error}"),
            Self::Span(flag, error) => write!(f, "--{flag}: {error}"),
            Self::Zero(flag) => {
                write!(f, "--{flag}: an answer takes some time; write a duration above zero, as in 5s")
            }
            Self::Containment(flag, error) => write!(f, "--{flag}: {error}"),
            Self::NeedsEquals(flag, value) => {
                write!(f, "--{flag} {value}: write --{flag}={value} (or -- {value}, if that is the command)")
            }
            Self::Leftovers(flag, value) => write!(f, "--{flag}: it is stop or wait, not {value:?}"),
            Self::Outside(flag, value) => write!(f, "--{flag}: it is refuse or allow, not {value:?}"),
        }
    }
}

impl error::Error for UsageError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Line(error) => Some(error),
            Self::Device(_, error) => Some(error),
            Self::Signal(_, error) => Some(error),
            Self::Span(_, error) => Some(error),
            Self::Containment(_, error) => Some(error),
            Self::NoCommand
            | Self::NoValue(_)
            | Self::NotUtf8(_)
            | Self::EmptyPath(_)
            | Self::Zero(_)
            | Self::NeedsEquals(..)
            | Self::Leftovers(..)
            | Self::Outside(..) => None,
        }
    }
}

/// Reads the arguments, without the program's own name.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
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
        outside: Outside::Refuse,
        isolate: false,
        status_file: None,
        quiet: false,
        command: Vec::new(),
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(UsageError::Line)? {
        let known = match argument {
            Long(long) => FLAGS.iter().find(|flag| flag.long == long),
            Short(short) => FLAGS.iter().find(|flag| flag.short == Some(short)),
            // The first word that is not an option begins the command, as with env and timeout; all further words
            // belong to it.
            Value(first) => {
                options.command.push(first);
                let rest = parser.raw_args().map_err(UsageError::Line)?;
                options.command.extend(rest);
                break;
            }
        };
        let Some(flag) = known else { return Err(UsageError::Line(argument.unexpected())) };
        if let Some(text) = take(flag, &mut parser, &mut options)? {
            return Ok(Invocation::Print(text));
        }
    }
    if options.command.first().is_none_or(|command| command.is_empty()) {
        return Err(UsageError::NoCommand);
    }
    Ok(Invocation::Run(Box::new(options)))
}

/// Takes one flag with its value. For a flag that asks for a text, such as `--help`, returns that text.
fn take(flag: &Flag, parser: &mut lexopt::Parser, options: &mut RunOptions) -> Result<Option<String>, UsageError> {
    let long = flag.long;
    match flag.about {
        About::Device => {
            let text = text_value(parser, long)?;
            options.device = Some(text.parse().map_err(|error| UsageError::Device(long, error))?);
        }
        About::Name => options.name = Some(text_value(parser, long)?),
        About::Socket => options.socket = Some(path_value(parser, long)?),
        About::StopSignal => {
            let text = text_value(parser, long)?;
            options.stop_signal = Some(sys::parse_signal(&text).map_err(|error| UsageError::Signal(long, error))?);
        }
        About::StopGrace => options.stop_grace = Some(duration_value(parser, long)?),
        About::Timeout => {
            options.timeout = duration_value(parser, long)?;
            if options.timeout.is_zero() {
                return Err(UsageError::Zero(long));
            }
        }
        About::Wait => {
            options.wait = match parser.optional_value() {
                None => {
                    // `--wait 5s COMMAND` would run a program named 5s.
                    if let Some(value) = next_duration(parser) {
                        return Err(UsageError::NeedsEquals(long, value));
                    }
                    Wait::Forever
                }
                Some(value) => Wait::For(duration(&value, long)?),
            }
        }
        About::Containment => {
            let text = text_value(parser, long)?;
            options.containment = text.parse().map_err(|error| UsageError::Containment(long, error))?;
        }
        About::Leftovers => {
            let text = text_value(parser, long)?;
            options.leftovers = match text.as_str() {
                "stop" => Leftovers::Stop,
                "wait" => Leftovers::Wait,
                _ => return Err(UsageError::Leftovers(long, text)),
            }
        }
        About::Outside => {
            let text = text_value(parser, long)?;
            options.outside = match text.as_str() {
                "refuse" => Outside::Refuse,
                "allow" => Outside::Allow,
                _ => return Err(UsageError::Outside(long, text)),
            }
        }
        About::Isolate => options.isolate = true,
        About::StatusFile => options.status_file = Some(path_value(parser, long)?),
        About::Quiet => options.quiet = true,
        About::Help => return Ok(Some(flags::help())),
        About::Version => return Ok(Some(format!("machineid-run {VERSION}\n"))),
    }
    Ok(None)
}

fn value(parser: &mut lexopt::Parser, flag: &'static str) -> Result<OsString, UsageError> {
    parser.value().map_err(|_| UsageError::NoValue(flag))
}

fn text_value(parser: &mut lexopt::Parser, flag: &'static str) -> Result<String, UsageError> {
    value(parser, flag)?.into_string().map_err(|_| UsageError::NotUtf8(flag))
}

fn path_value(parser: &mut lexopt::Parser, flag: &'static str) -> Result<PathBuf, UsageError> {
    let path = PathBuf::from(value(parser, flag)?);
    if path.as_os_str().is_empty() { Err(UsageError::EmptyPath(flag)) } else { Ok(path) }
}

/// The next word, if it is a duration.
fn next_duration(parser: &mut lexopt::Parser) -> Option<String> {
    let rest = parser.try_raw_args()?;
    let next = rest.peek()?.to_str()?;
    span::parse(next).is_ok().then(|| next.to_owned())
}

fn duration_value(parser: &mut lexopt::Parser, flag: &'static str) -> Result<Duration, UsageError> {
    duration(&value(parser, flag)?, flag)
}

fn duration(value: &OsString, flag: &'static str) -> Result<Duration, UsageError> {
    let text = value.to_str().ok_or(UsageError::NotUtf8(flag))?;
    span::parse(text).map_err(|error| UsageError::Span(flag, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_protocol::Containment;

    fn options(line: &str) -> Result<RunOptions, String> {
        match parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())? {
            Invocation::Run(options) => Ok(*options),
            Invocation::Print(text) => Err(text),
        }
    }

    #[test]
    fn the_command_begins_behind_two_dashes_or_with_the_first_word() {
        assert_eq!(options("--wait -- 5s").unwrap().command, ["5s"]);
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
             --containment pidns --leftovers wait --outside allow --isolate --status-file f -- true",
        )
        .unwrap();
        assert_eq!(options.device.unwrap().as_str(), "agent-01");
        assert_eq!(options.stop_signal, Some(Signal::INT));
        assert_eq!((options.stop_grace, options.timeout), (Some(Duration::from_secs(2)), Duration::from_secs(1)));
        assert_eq!(options.wait, Wait::For(Duration::from_mins(1)));
        assert_eq!(options.containment, Wish::Named(Containment::Pidns));
        assert_eq!((options.leftovers, options.outside), (Leftovers::Wait, Outside::Allow));
        assert!(options.isolate);
        assert_eq!(options.status_file, Some(PathBuf::from("f")));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (line, hint) in [
            ("", "no command"),
            ("--wait", "no command"),
            ("--wait 5s -- true", "--wait=5s"),
            ("--devise x -- true", "--help"),
            ("--device -x -- true", "letter or a digit"),
            ("--stop-signal STOP -- true", "TERM"),
            ("--stop-grace 10 -- true", "lacks a unit"),
            ("--timeout 0s -- true", "above zero"),
            ("--leftovers keep -- true", "stop or wait"),
            ("--outside stop -- true", "refuse or allow"),
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
