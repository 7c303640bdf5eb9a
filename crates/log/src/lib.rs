//! The log of a server program, and its panics.
//!
//! | module | concept |
//! |---|---|
//! | `lines` | lines on their way to stderr, without waiting for it |
//! | `panics` | panics are logged and counted; tasks that enforce nothing are restarted |
//! | `vital` | tasks whose panic ends the process |

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

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for a terminal.
    Text,
    /// One JSON object on each line.
    Json,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(LevelFilter);

/// A word that is no format or level, with the words that are.
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

/// Changes format and level of the running log.
type Change = Box<dyn Fn(LogFormat, LogLevel) + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();

/// Changes format and level of the running log, if there is one.
pub fn change(format: LogFormat, level: LogLevel) {
    if let Some(change) = CHANGE.get() {
        change(format, level);
    }
}

/// The filter for lines of one format, when `chosen` is the format in use.
fn targets(of: LogFormat, chosen: LogFormat, level: LogLevel) -> Targets {
    if of != chosen {
        return Targets::new().with_default(LevelFilter::OFF);
    }
    let foreign = level.0.min(LevelFilter::WARN);
    // A target is compared by its prefix, and each crate of this workspace begins with `machineid_`.
    Targets::new().with_target("machineid_", level.0).with_default(foreign)
}

/// Starts logging to stderr through a thread of its own; to be called when the process may have more than one. Only the
/// workspace's own lines go below `warn`: those of the HTTP and TLS libraries could show headers.
pub fn init(format: LogFormat, level: LogLevel) {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{Layer, reload};

    // There is a layer for each format, one of them silent: a layer cannot be exchanged later, its filter can.
    let (text_filter, text_change) = reload::Layer::new(targets(LogFormat::Text, format, level));
    let (json_filter, json_change) = reload::Layer::new(targets(LogFormat::Json, format, level));
    // For a line that cannot be written the library would report an error on the same stream, and wait for it.
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
            // These fail only when the subscriber is gone.
            let _ = text_change.reload(targets(LogFormat::Text, format, level));
            let _ = json_change.reload(targets(LogFormat::Json, format, level));
        }));
    }
}
