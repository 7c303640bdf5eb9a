//! The printer: the only place that writes to stdout and stderr.
//!
//! A reader that goes away (`| head`) must not stop a revoke half-way, so writing never fails for the commands: after a
//! closed pipe output is dropped, and any other error is reported once at the end.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Stderr, Stdout, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use machineid_protocol::Exit;
use serde::Serialize;

use super::Env;
use super::problem::Problem;
use super::words::printable;

/// The meaning of a colour, where colours are shown.
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

/// One line, whose parts may be coloured.
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

/// The destinations of results and other output.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about where the output goes")]
pub(super) struct Printer {
    out: BufWriter<Stdout>,
    err: Stderr,
    colours: bool,
    width: Option<usize>,
    progress: Progress,
    /// Text results are suppressed.
    only_json: bool,
    /// The first error in writing a result.
    broken: Option<io::Error>,
    /// Whether the terminal supports drawing.
    drawable: bool,
    /// Lines collected for a page instead of being written.
    page: Option<Vec<String>>,
    /// Whether the terminal shows its alternate screen, where pages are drawn.
    drawing: bool,
}

/// Whether progress can be shown, and is shown now.
#[derive(Debug)]
enum Progress {
    NoTerminal,
    Nothing,
    Shown(ProgressBar),
}

impl Printer {
    pub(super) fn new(env: Env<'_>) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let terminal = out.is_terminal();
        let dumb = env("TERM").is_some_and(|term| term == "dumb");
        let width = terminal.then(|| size(&out).0);
        let progress = if err.is_terminal() && !dumb { Progress::Nothing } else { Progress::NoTerminal };
        Self {
            out: BufWriter::new(out),
            err,
            colours: terminal && !dumb && env("NO_COLOR").is_none(),
            width,
            progress,
            only_json: false,
            broken: None,
            drawable: terminal && !dumb && env("TERM").is_some(),
            page: None,
            drawing: false,
        }
    }

    /// The terminal's width in characters; `None` when results go elsewhere.
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
        if let Some(page) = &mut self.page {
            page.push(text);
            return;
        }
        text.push('\n');
        self.write(text.as_bytes());
    }

    /// Writes a text of our own as it is.
    pub(super) fn verbatim(&mut self, text: &str) {
        self.write(text.as_bytes());
    }

    /// Whether a page can replace the previous one.
    pub(super) const fn can_draw(&self) -> bool {
        self.drawable
    }

    /// Collects lines for a page from now on, sized for the terminal as it is now.
    pub(super) fn begin_page(&mut self) {
        self.width = Some(size(self.out.get_ref()).0);
        self.page = Some(Vec::new());
    }

    /// Draws the page over the previous one. Lines that do not fit are left out, with a note.
    pub(super) fn draw_page(&mut self) {
        let mut lines = self.page.take().unwrap_or_default();
        let room = size(self.out.get_ref()).1;
        if lines.len() > room {
            let more = lines.len() - room + 1;
            lines.truncate(room.saturating_sub(1));
            lines.push(format!("… {more} more lines: make the window higher, or see machineid status"));
        }
        let mut text = String::new();
        if !self.drawing {
            self.drawing = true;
            text.push_str("\x1b[?1049h\x1b[?25l");
        }
        text.push_str("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        self.write(text.as_bytes());
        self.flush();
    }

    /// Restores the terminal to its state before the first page.
    pub(super) fn end_drawing(&mut self) {
        self.page = None;
        if std::mem::take(&mut self.drawing) {
            self.write(b"\x1b[?25h\x1b[?1049l");
            self.flush();
        }
    }

    /// Writes the result as one line of JSON.
    pub(super) fn json_line<T: Serialize>(&mut self, value: &T) {
        self.clear_progress();
        let text = serde_json::to_string(value).expect("results have a JSON form");
        self.write(escape_hostile(&text).as_bytes());
        self.write(b"\n");
    }

    /// Flushes the output, and returns whether the reader is still there.
    pub(super) fn flush(&mut self) -> bool {
        if self.broken.is_none() {
            self.broken = self.out.flush().err();
        }
        self.broken.is_none()
    }

    /// Writes the result as JSON.
    pub(super) fn json<T: Serialize>(&mut self, value: &T) {
        self.clear_progress();
        let text = serde_json::to_string_pretty(value).expect("results have a JSON form");
        self.write(escape_hostile(&text).as_bytes());
        self.write(b"\n");
    }

    /// Prints a message that is not part of the result.
    pub(super) fn note(&mut self, text: &str) {
        self.clear_progress();
        let _ = self.out.flush();
        let _ = writeln!(self.err, "{}", printable(text));
    }

    /// Prints why the command failed.
    pub(super) fn problem(&mut self, problem: &Problem) {
        self.note(&format!("machineid: {}", problem.text));
    }

    /// Asks a question, on a line of its own that stays open.
    pub(super) fn ask(&mut self, text: &str) {
        self.clear_progress();
        let _ = self.out.flush();
        let _ = write!(self.err, "{}", printable(text));
        let _ = self.err.flush();
    }

    /// Shows what a long command does, on a terminal.
    pub(super) fn progress(&mut self, text: &str) {
        self.show("{spinner} {wide_msg}", text, |_| ());
    }

    /// Shows the progress of a long command, on a terminal.
    pub(super) fn bar(&mut self, done: usize, of: usize, text: &str) {
        self.show("{bar:24} {pos} of {len}  {wide_msg}", text, |bar| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        });
    }

    /// Removes the progress display.
    pub(super) fn done(&mut self) {
        self.clear_progress();
    }

    fn show(&mut self, template: &str, text: &str, set: impl FnOnce(&ProgressBar)) {
        if matches!(self.progress, Progress::NoTerminal) {
            return;
        }
        let bar = match std::mem::replace(&mut self.progress, Progress::Nothing) {
            Progress::Shown(bar) => bar,
            Progress::NoTerminal | Progress::Nothing => {
                ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
            }
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(printable(text));
        set(&bar);
        bar.tick();
        self.progress = Progress::Shown(bar);
    }

    /// Prints only the JSON result on stdout.
    pub(super) const fn only_json(&mut self) {
        self.only_json = true;
    }

    /// Whether results are printed as text.
    pub(super) const fn wants_text(&self) -> bool {
        !self.only_json
    }

    fn clear_progress(&mut self) {
        if let Progress::Shown(bar) = &self.progress {
            bar.finish_and_clear();
            self.progress = Progress::Nothing;
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.broken = self.out.write_all(bytes).err();
        }
    }

    /// Flushes the output. A result that could not be written, for another reason than a closed pipe, is a failure.
    pub(super) fn finish(mut self, exit: Exit) -> Exit {
        self.clear_progress();
        self.end_drawing();
        let error = self.broken.take().or_else(|| self.out.flush().err());
        // After a failed flush, the buffer must not be written again on drop.
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

/// The terminal's columns and rows, with a default if unknown.
fn size(terminal: impl std::os::fd::AsFd) -> (usize, usize) {
    let said = rustix::termios::tcgetwinsize(terminal);
    let or = |said: u16, usual| if said == 0 { usual } else { usize::from(said) };
    said.map_or((80, 24), |size| (or(size.ws_col, 80), or(size.ws_row, 24)))
}

/// Escapes control characters for JSON: JSON itself escapes only the ASCII ones, and a terminal also obeys some others.
/// They can only occur in strings.
fn escape_hostile(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if machineid_protocol::printable::is_hostile(c) && c != '\n' {
            // Writing to a String cannot fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}
