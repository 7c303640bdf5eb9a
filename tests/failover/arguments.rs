//! What this program is asked to do.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use machineid_protocol::span;

use crate::outage::{Stops, Store};
use crate::schedule::Options;

pub(crate) const USAGE: &str = "\
Usage: failover [NAME...] [--list] [--exact] [--skip NAME]        the tests of `cargo test`
       failover --seed N [--plan] [--faults N] [--sidecars N] [--keep-going] [--retry-unavailable] [--programs DIR]
       failover --scenario outage [--away SPAN] [--store postgres|sqlite] [--sidecars N] [--programs DIR]";

/// Where this run may write, below the system's directory for such things.
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

#[derive(Debug)]
pub(crate) enum Mode {
    Tests(Wanted),
    Schedule(Options),
    /// Prints the plan of a schedule.
    Plan(Options),
    Outage(Stops),
}

/// Which tests.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    parts: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    pub(crate) list: bool,
}

impl Wanted {
    pub(crate) fn includes(&self, name: &str) -> bool {
        let matches = |part: &String| if self.exact { name == part } else { name.contains(part.as_str()) };
        (self.parts.is_empty() || self.parts.iter().any(matches)) && !self.skip.iter().any(matches)
    }
}

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) mode: Mode,
    pub(crate) programs: Option<PathBuf>,
    /// The directory of this run, once it has been made.
    pub(crate) inside: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn parse(mut from: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut wanted, mut seed, mut faults, mut sidecars) = (Wanted::default(), None, 40, 50);
        let (mut keeps_going, mut retries, mut programs, mut inside) = (false, false, None, None);
        let (mut plan, mut outage, mut away, mut store) = (false, false, Duration::from_secs(25), Store::Postgres);
        while let Some(argument) = from.next() {
            let mut value = || from.next().ok_or_else(|| format!("{argument} takes a value"));
            match argument.as_str() {
                "--seed" => seed = Some(number(&value()?)?),
                "--faults" => faults = number(&value()?)?,
                "--sidecars" => sidecars = number(&value()?)?,
                "--keep-going" => keeps_going = true,
                "--plan" => plan = true,
                "--retry-unavailable" => retries = true,
                "--programs" => programs = Some(PathBuf::from(value()?)),
                "--inside" => inside = Some(PathBuf::from(value()?)),
                "--scenario" => match value()?.as_str() {
                    "outage" => outage = true,
                    other => return Err(format!("no scenario {other:?}")),
                },
                "--away" => away = span::parse(&value()?).map_err(|error| format!("--away: {error}"))?,
                "--store" => {
                    store = match value()?.as_str() {
                        "postgres" => Store::Postgres,
                        "sqlite" => Store::Sqlite,
                        other => return Err(format!("no store {other:?}")),
                    }
                }
                "--exact" => wanted.exact = true,
                "--list" => wanted.list = true,
                "--skip" => wanted.skip.push(value()?),
                // The usual test harness takes these, so `cargo test -- …` hands them to every test program.
                "--test-threads" | "--format" | "--color" => drop(value()?),
                "--nocapture" | "--no-capture" | "--include-ignored" | "--ignored" | "-q" | "--quiet"
                | "--show-output" => {}
                part if !part.starts_with('-') => wanted.parts.push(part.to_owned()),
                other => return Err(format!("unknown argument {other}")),
            }
        }
        let mode = match (outage, seed) {
            (true, _) => Mode::Outage(Stops { away, store, sidecars }),
            (false, Some(seed)) => {
                let options = Options { seed, faults, sidecars, keeps_going, retries };
                if plan { Mode::Plan(options) } else { Mode::Schedule(options) }
            }
            (false, None) => Mode::Tests(wanted),
        };
        Ok(Self { mode, programs, inside })
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// Remembers the directory of this run.
pub(crate) fn set_directory(directory: &Path) {
    let _ = DIRECTORY.set(directory.to_owned());
}

/// Where what outlives the run may be put.
pub(crate) fn scratch() -> PathBuf {
    DIRECTORY.get().and_then(|directory| directory.parent()).map_or_else(std::env::temp_dir, Path::to_owned)
}
