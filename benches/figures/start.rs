//! What the wrapper costs before and after the command: to the moment it runs, and to the wrapper's own end.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::time::ClockId;

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::{DEVICE, Daemon};
use crate::common::load::{Address, Target};
use crate::common::report::{self, Table, difference, milliseconds, ratio};
use crate::common::samples::Samples;
use crate::common::{Outcome, clean_environment, instant, now, static_build, time_on};

/// Makes this program the one that says when it was started.
pub(crate) const STAMPS: &str = "--stamp";

/// What is run, and how it says how long it took.
#[derive(Clone, Copy)]
enum Measure {
    /// From before the start to the command's own first words.
    ToExec,
    /// To the end of everything.
    ToExit,
}

/// Something that is timed in each round.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) goal: &'static str,
    step: Box<dyn FnMut() -> Outcome<Duration>>,
    pub(crate) took: Vec<Duration>,
}

pub(crate) fn run(length: Length) -> Outcome<()> {
    let authority = Authority::start()?;
    let rounds = length.pick(400, 40);
    let daemon = Daemon::start_by_way_of(&authority, &instant::start()?)?;
    let title = format!(
        "Start to the command's first instruction, {rounds} interleaved rounds, an authority that takes no time"
    );
    print(&title, measured(contenders(daemon, Measure::ToExec)?, rounds)?);
    let daemon = Daemon::start(&authority)?;
    let title = format!("Start to exit, {rounds} interleaved rounds, real daemon and authority");
    print(&title, measured(contenders(daemon, Measure::ToExit)?, rounds)?);
    let trip =
        Target { address: Address::Tcp(authority.address), requests: [authority.validate_request(DEVICE)].into() };
    let trip = trip.ask(1, length.pick(Duration::from_millis(500), Duration::from_millis(100)))?.latencies.median();
    report::say(&format!(
        "  The authority's own round trip, of which every wrapper waits for one: {}",
        milliseconds(trip)
    ));
    Ok(())
}

/// Says when this was reached, on a clock that the benchmark reads as well.
pub(crate) fn stamp() -> Outcome<()> {
    let reached = time_on(ClockId::Monotonic);
    std::io::stdout().write_all(&reached.as_nanos().to_le_bytes())?;
    Ok(())
}

/// Times all of them in turn, round by round.
pub(crate) fn measured(mut contenders: Vec<Contender>, rounds: usize) -> Outcome<Vec<Contender>> {
    // Warm: the programs are in the page cache and the daemon holds its connection to the authority.
    for contender in &mut contenders {
        (contender.step)()?;
    }
    for round in 0..rounds {
        let count = contenders.len();
        for turn in 0..count {
            // Each goes first as often as the others.
            let contender = &mut contenders[(round + turn) % count];
            let took = (contender.step)()?;
            contender.took.push(took);
        }
    }
    Ok(contenders)
}

fn contenders(daemon: Daemon, measure: Measure) -> Outcome<Vec<Contender>> {
    let home = daemon.home().to_owned();
    let this = std::env::current_exe()?.display().to_string();
    let command: Vec<&str> = match measure {
        Measure::ToExec => vec![&this, STAMPS],
        Measure::ToExit => vec!["true"],
    };
    let timed = |mut command: Command| -> Box<dyn FnMut() -> Outcome<Duration>> {
        command.stdin(Stdio::null());
        match measure {
            Measure::ToExec => Box::new(move || to_exec(&mut command)),
            Measure::ToExit => Box::new(move || to_exit(&mut command)),
        }
    };
    let plain = |words: &[&str]| {
        let mut plain = Command::new(words[0]);
        clean_environment(&mut plain, &home);
        plain.args(&words[1..]);
        plain
    };
    let mut all = vec![Contender::new("the command itself", "", timed(plain(&command)))];
    match installed("tini") {
        Some(path) => {
            let path = path.display().to_string();
            let tini = [&[path.as_str(), "-s", "--"], command.as_slice()].concat();
            all.push(Contender::new("tini -s --", "", timed(plain(&tini))));
        }
        None => report::say("  tini is not installed, so it is not compared with"),
    }
    // What is to beat is a time to the command's start.
    let goal = if matches!(measure, Measure::ToExec) { "+ 2 ms" } else { "" };
    all.push(Contender::new("machineid-run --", goal, timed(daemon.wrap(&command))));
    match static_build::wrapper() {
        Ok(path) => {
            let alone = daemon.wrap_with(&path, &[], &command);
            all.push(Contender::new("machineid-run, static, --", goal, timed(alone)));
        }
        Err(error) => report::say(&format!("  the static build is left out: {error}")),
    }
    let check = Box::new(move || {
        let began = now();
        let answer = daemon.get("/v1/check")?;
        if answer.starts_with("HTTP/1.0 200") { Ok(began.elapsed()) } else { Err(answer.into()) }
    });
    all.push(Contender::new("(one strict check on a new connection)", "", check));
    Ok(all)
}

impl Contender {
    pub(crate) fn new(name: &'static str, goal: &'static str, step: Box<dyn FnMut() -> Outcome<Duration>>) -> Self {
        Self { name, goal, step, took: Vec::new() }
    }
}

fn to_exit(command: &mut Command) -> Outcome<Duration> {
    let began = now();
    match command.stdout(Stdio::null()).status()? {
        status if status.success() => Ok(began.elapsed()),
        status => Err(format!("{command:?}: {status}").into()),
    }
}

fn to_exec(command: &mut Command) -> Outcome<Duration> {
    let began = time_on(ClockId::Monotonic);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut reached = [0; size_of::<u128>()];
    let said = child.stdout.take().ok_or("no pipe")?.read_exact(&mut reached);
    match child.wait()? {
        status if status.success() => said?,
        status => return Err(format!("{command:?}: {status}").into()),
    }
    let reached = u64::try_from(u128::from_le_bytes(reached))?;
    Ok(Duration::from_nanos(reached).saturating_sub(began))
}

pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "looks where a shell would")]
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

fn print(title: &str, contenders: Vec<Contender>) {
    let mut table = Table::new(title, &["command", "median", "p90", "more than itself", "ratio", "figure to beat"]);
    let mut baseline = None;
    for contender in contenders {
        let took = Samples::new(contender.took);
        let median = took.median();
        let base = *baseline.get_or_insert(median);
        table.row(vec![
            contender.name.to_owned(),
            milliseconds(median),
            milliseconds(took.percentile(90)),
            difference(median, base),
            ratio(median, base),
            contender.goal.to_owned(),
        ]);
    }
    table.print();
}
