//! What the daemon tells its operators: logs, on stderr.

mod lines;

use std::fmt;
use std::str::FromStr;

pub(crate) use lines::{Lines, flush};
use tracing_subscriber::filter::LevelFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLevel(LevelFilter);

/// A word that is no format or level, with those that are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownWord {
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

/// Starts logging to stderr, through a thread of its own: call it when the process may have more than one. Only this
/// package's own lines go below `warn`: those of its HTTP and TLS libraries could show headers.
pub(crate) fn init(format: LogFormat, level: LogLevel) {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{Layer, filter::Targets};

    let foreign = level.0.min(LevelFilter::WARN);
    let targets = Targets::new().with_target("machineid_sidecar", level.0).with_default(foreign);
    // The library reports a line it cannot write on the very stream it cannot write to, and waits for it.
    let lines = tracing_subscriber::fmt::layer().with_writer(Lines::to_stderr()).log_internal_errors(false);
    let layer = match format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines.with_target(false).with_ansi(colour).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).boxed(),
    };
    // A second call (tests in one process) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets)).try_init();
}
