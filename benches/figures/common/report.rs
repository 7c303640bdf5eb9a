//! Tables for people.

use std::io::Write;
use std::time::Duration;

/// A table that is printed when it is complete.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &str, headings: &[&str]) -> Self {
        Self { title: title.to_owned(), rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Words to the left, numbers to the right: the first and the last column hold words.
    pub(crate) fn print(&self) {
        let columns = self.rows[0].len();
        let width = |at: usize| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        say(&format!("\n{}", self.title));
        for (number, row) in self.rows.iter().enumerate() {
            let cell = |(at, text): (usize, &String)| {
                let width = widths[at];
                if at == 0 || at + 1 == columns { format!("{text:<width$}") } else { format!("{text:>width$}") }
            };
            let line = row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
            say(&format!("  {}", line.trim_end()));
            if number == 0 {
                say(&format!("  {}", "-".repeat(widths.iter().sum::<usize>() + 2 * (columns - 1))));
            }
        }
    }
}

/// Prints a line. A closed pipe is no error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// What the figures were measured on.
pub(crate) fn host() -> String {
    let system = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let build = if cfg!(debug_assertions) { "a debug build: these figures mean nothing" } else { "an optimised build" };
    format!(
        "Linux {}, {}, {cores} cores, load {load} before the start, {build}",
        system.release().to_string_lossy(),
        system.machine().to_string_lossy()
    )
}

pub(crate) fn milliseconds(span: Duration) -> String {
    format!("{:.2} ms", span.as_secs_f64() * 1e3)
}

pub(crate) fn microseconds(span: Duration) -> String {
    format!("{:.1} µs", span.as_secs_f64() * 1e6)
}

/// A difference, which may be below zero.
pub(crate) fn difference(of: Duration, less: Duration) -> String {
    let span = of.as_secs_f64() - less.as_secs_f64();
    if span.abs() < 1e-3 { format!("{:+.0} µs", span * 1e6) } else { format!("{:+.2} ms", span * 1e3) }
}

pub(crate) fn ratio(of: Duration, to: Duration) -> String {
    times(of.as_secs_f64() / to.as_secs_f64())
}

pub(crate) fn times(ratio: f64) -> String {
    format!("× {ratio:.2}")
}

/// KiB as MiB.
pub(crate) fn mebibytes(kib: u64) -> String {
    let hundredths = kib * 100 / 1024;
    format!("{}.{:02} MiB", hundredths / 100, hundredths % 100)
}
