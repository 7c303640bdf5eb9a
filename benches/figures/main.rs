//! The figures of this project: start-up time, memory, and how fast checks are answered.
//!
//! Benchmarks, not tests: they print what they measure beside a baseline of the same run and the figure to beat, and no
//! number makes them fail. `README.md` in the directory above says how to run them and what each figure means.
//!
//! One target rather than one for each figure: the programs they start are the same, and one link is enough.

mod authority;
mod checks;
mod comets;
mod common;
mod console;
mod devices;
mod flood;
mod freshness;
mod groups;
mod hook;
mod memory;
mod push;
mod replicas;
mod roles;
mod start;
mod storm;
mod stubborn;
mod survivors;

use std::path::PathBuf;
use std::process::ExitCode;

use common::shapes::be_comets;
use common::{Outcome, bare_server, report, stages};

/// How long the rounds are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Full,
    /// Shows that everything works; the figures scatter more.
    Quick,
}

impl Length {
    const fn pick<T: Copy>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

type Figure = fn(Length) -> Outcome<()>;

const FIGURES: [(&str, Figure); 17] = [
    ("start", start::run),
    ("hook", hook::run),
    ("memory", memory::run),
    ("checks", checks::run),
    ("survivors", survivors::run),
    ("comets", comets::run),
    ("stop", storm::run_alone),
    ("storm", storm::run),
    ("stubborn", stubborn::run),
    ("groups", groups::run),
    ("devices", devices::run),
    ("push", push::run),
    ("flood", flood::run),
    ("console", console::run),
    ("authority", authority::run),
    ("changes", authority::changes),
    ("freshness", freshness::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((first, rest)) if first == bare_server::FLAG => bare_server::serve(rest),
        Some((first, rest)) if first == stages::COMETS => {
            be_comets(rest);
            Ok(())
        }
        Some((first, _)) if first == start::STAMPS => start::stamp(),
        Some((first, rest)) if first == storm::NOTES_ITS_STOP => storm::note_the_stop(rest),
        _ => measure(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&format!("figures: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String]) -> Outcome<()> {
    let mut length = Length::Full;
    let mut wanted = Vec::new();
    // What cargo adds when it is asked for benchmarks; `cargo test --all-targets` runs this program without it.
    let mut asked = false;
    let mut beside = None;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--beside" => beside = arguments.next().map(PathBuf::from),
            "replicas" => wanted.push("replicas"),
            "roles" => wanted.push("roles"),
            "--bench" => asked = true,
            "--quick" => length = Length::Quick,
            name if FIGURES.iter().any(|(known, _)| *known == name) => wanted.push(name),
            other => {
                let names = FIGURES.map(|(name, _)| name).join(", ");
                return Err(format!("{other:?} is unknown; there are {names}, replicas, roles and --quick").into());
            }
        }
    }
    if !asked && wanted.is_empty() {
        report::say("These are benchmarks: run them with cargo bench");
        return Ok(());
    }
    report::say(&report::host());
    for (name, figure) in FIGURES {
        if wanted.is_empty() || wanted.contains(&name) {
            figure(length).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    if wanted.is_empty() || wanted.contains(&"replicas") {
        replicas::run(length, beside.as_deref()).map_err(|error| format!("replicas: {error}"))?;
    }
    if wanted.is_empty() || wanted.contains(&"roles") {
        roles::run(length, beside.as_deref()).map_err(|error| format!("roles: {error}"))?;
    }
    Ok(())
}
