//! The one place that writes to stdout and stderr.
//!
//! A reader that goes away (`| head`) must not stop a revoke half-way, so writing never fails for the commands: a closed
//! pipe swallows the rest, any other error is told once at the end.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Stderr, Stdout, Write};

use serde::Serialize;

use super::Env;
use super::problem::Problem;
use super::words::{is_hostile, printable};
use crate::protocol::Exit;

/// A meaning, shown as a colour where there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Good,
    Bad,
    Unclear,
}

impl Colour {
    const fn escape(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
            Self::Unclear => "\x1b[33m",
        }
    }
}

/// One line, in parts that may be coloured.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Vec<(String, Option<Colour>)>);

impl Line {
    pub(super) fn push(&mut self, text: &str, colour: Option<Colour>) {
        self.0.push((printable(text), colour));
    }

    #[cfg(test)]
    pub(super) fn plain(&self) -> String {
        self.0.iter().map(|(text, _)| text.as_str()).collect::<String>().trim_end().to_owned()
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Self {
        let mut line = Self::default();
        line.push(text, None);
        line
    }
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// Where the results and everything else go.
#[derive(Debug)]
pub(super) struct Printer {
    out: BufWriter<Stdout>,
    err: Stderr,
    colours: bool,
    width: Option<usize>,
    progress: Progress,
    /// The first error of writing a result.
    broken: Option<io::Error>,
}

/// Whether a line of progress can be and is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    NoTerminal,
    Nothing,
    Shown,
}

impl Printer {
    pub(super) fn new(env: Env<'_>) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let terminal = out.is_terminal();
        let dumb = env("TERM").is_some_and(|term| term == "dumb");
        let width = terminal.then(|| {
            let columns = rustix::termios::tcgetwinsize(&out).map_or(0, |size| usize::from(size.ws_col));
            if columns == 0 { 80 } else { columns }
        });
        let progress = if err.is_terminal() && !dumb { Progress::Nothing } else { Progress::NoTerminal };
        Self {
            out: BufWriter::new(out),
            err,
            colours: terminal && !dumb && env("NO_COLOR").is_none(),
            width,
            progress,
            broken: None,
        }
    }

    /// The terminal's width in characters; none when the results go elsewhere.
    pub(super) const fn width(&self) -> Option<usize> {
        self.width
    }

    /// Writes one line of the result.
    pub(super) fn line(&mut self, line: impl Into<Line>) {
        self.clear_progress();
        let mut text = String::new();
        for (part, colour) in line.into().0 {
            match colour.filter(|_| self.colours) {
                Some(colour) => {
                    text.push_str(colour.escape());
                    text.push_str(&part);
                    text.push_str("\x1b[0m");
                }
                None => text.push_str(&part),
            }
        }
        let end = text.trim_end().len();
        text.truncate(end);
        text.push('\n');
        self.write(text.as_bytes());
    }

    /// Writes the result as JSON.
    pub(super) fn json<T: Serialize>(&mut self, value: &T) {
        self.clear_progress();
        let text = serde_json::to_string_pretty(value).expect("results have a JSON form");
        // JSON escapes the ASCII control characters; a terminal also obeys some others. They can only stand in strings.
        let mut safe = String::with_capacity(text.len() + 1);
        for c in text.chars() {
            if is_hostile(c) && c != '\n' {
                // Writing to a String cannot fail.
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            } else {
                safe.push(c);
            }
        }
        safe.push('\n');
        self.write(safe.as_bytes());
    }

    /// Says something that is not the result.
    pub(super) fn note(&mut self, text: &str) {
        self.clear_progress();
        let _ = self.out.flush();
        let _ = writeln!(self.err, "{}", printable(text));
    }

    /// Says why the command failed.
    pub(super) fn problem(&mut self, problem: &Problem) {
        self.note(&format!("machineid: {}", problem.text));
    }

    /// Asks, on a line of its own that stays open.
    pub(super) fn ask(&mut self, text: &str) {
        self.clear_progress();
        let _ = self.out.flush();
        let _ = write!(self.err, "{}", printable(text));
        let _ = self.err.flush();
    }

    /// Shows how far a long command is, where somebody watches.
    pub(super) fn progress(&mut self, text: &str) {
        if self.progress != Progress::NoTerminal {
            let _ = write!(self.err, "\r\x1b[K{}", printable(text));
            let _ = self.err.flush();
            self.progress = Progress::Shown;
        }
    }

    fn clear_progress(&mut self) {
        if self.progress == Progress::Shown {
            let _ = write!(self.err, "\r\x1b[K");
            self.progress = Progress::Nothing;
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.broken = self.out.write_all(bytes).err();
        }
    }

    /// Writes what is left. A result that could not be written for another reason than a closed pipe is a failure.
    pub(super) fn finish(mut self, exit: Exit) -> Exit {
        self.clear_progress();
        let error = self.broken.take().or_else(|| self.out.flush().err());
        // What a failed flush left in the buffer must not be tried again on drop.
        let (_, _) = self.out.into_parts();
        match error {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = writeln!(self.err, "machineid: the result could not be written: {error}");
                if exit == Exit::Success { Exit::Failure } else { exit }
            }
            Some(_) | None => exit,
        }
    }
}
