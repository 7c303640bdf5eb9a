//! The log of a program that serves, and its panics.
//!
//! | module | concept |
//! |---|---|
//! | `lines` | lines on their way to stderr, without waiting for it |
//! | `panics` | a panic is told and counted; what enforces nothing is started again |
//! | `vital` | what must not end unnoticed |

#![forbid(unsafe_code)]

mod lines;
mod panics;
mod vital;

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

pub use lines::{Lines, flush};
pub use panics::{keep_up, kept_up, panics, tell_panics};
use tracing_subscriber::filter::{LevelFilter, Targets};
pub use vital::Vital;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(LevelFilter);

/// A word that is no format or level, with those that are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    word: String,
    known: &'static str,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is unknown; write {}", self.word, self.known)
    }
}

impl std::error::Error for UnknownWord {}

impl FromStr for LogFormat {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownWord { word: word.to_owned(), known: "\"text\" or \"json\"" }),
        }
    }
}

impl FromStr for LogLevel {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "error" => Ok(Self(LevelFilter::ERROR)),
            "warn" => Ok(Self(LevelFilter::WARN)),
            "info" => Ok(Self(LevelFilter::INFO)),
            "debug" => Ok(Self(LevelFilter::DEBUG)),
            "trace" => Ok(Self(LevelFilter::TRACE)),
            _ => Err(UnknownWord {
                word: word.to_owned(),
                known: "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
            }),
        }
    }
}

/// Changes what the running log is like.
type Change = Box<dyn Fn(LogFormat, LogLevel) + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();

/// Changes format and level of the running log, if there is one.
pub fn change(format: LogFormat, level: LogLevel) {
    if let Some(change) = CHANGE.get() {
        change(format, level);
    }
}

/// What lines of this format are let through when `chosen` is the one in use.
fn targets(of: LogFormat, chosen: LogFormat, level: LogLevel) -> Targets {
    if of != chosen {
        return Targets::new().with_default(LevelFilter::OFF);
    }
    let foreign = level.0.min(LevelFilter::WARN);
    // A target is compared by its beginning: that of each of our crates is `machineid_`.
    Targets::new().with_target("machineid_", level.0).with_default(foreign)
}

/// Starts logging to stderr, through a thread of its own: call it when the process may have more than one. Only our
/// own lines go below `warn`: those of its HTTP and TLS libraries could show headers.
pub fn init(format: LogFormat, level: LogLevel) {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{Layer, reload};

    // Both formats are there, one of them silent: a layer cannot be exchanged later, a filter can.
    let (text_filter, text_change) = reload::Layer::new(targets(LogFormat::Text, format, level));
    let (json_filter, json_change) = reload::Layer::new(targets(LogFormat::Json, format, level));
    // The library reports a line it cannot write on the very stream it cannot write to, and waits for it.
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let text = tracing_subscriber::fmt::layer()
        .with_writer(Lines::to_stderr())
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(colour)
        .with_filter(text_filter);
    let json = tracing_subscriber::fmt::layer()
        .with_writer(Lines::to_stderr())
        .log_internal_errors(false)
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_filter(json_filter);
    // A second call (tests in one process) keeps the first subscriber.
    if tracing_subscriber::registry().with(text).with(json).try_init().is_ok() {
        let _ = CHANGE.set(Box::new(move |format, level| {
            // They fail only when the subscriber is gone.
            let _ = text_change.reload(targets(LogFormat::Text, format, level));
            let _ = json_change.reload(targets(LogFormat::Json, format, level));
        }));
    }
}
