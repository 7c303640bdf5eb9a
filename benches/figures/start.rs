//! What the wrapper costs before and after the command: `machineid-run -- true` to its exit against `true` itself.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::{DEVICE, Daemon};
use crate::common::load::{Address, Target};
use crate::common::report::{self, Table, difference, milliseconds, ratio};
use crate::common::samples::Samples;
use crate::common::{Outcome, clean_environment, now, static_build};

/// Something that is timed in each round.
struct Contender {
    name: &'static str,
    goal: &'static str,
    step: Box<dyn FnMut() -> Outcome<()>>,
    took: Vec<Duration>,
}

pub(crate) fn run(length: Length) -> Outcome<()> {
    let authority = Authority::start()?;
    let daemon = Daemon::start(&authority)?;
    let rounds = length.pick(400, 40);
    let mut contenders = contenders(daemon);
    // Warm: the programs are in the page cache and the daemon holds its connection to the authority.
    for contender in &mut contenders {
        (contender.step)()?;
    }
    for round in 0..rounds {
        let count = contenders.len();
        for turn in 0..count {
            // Each goes first as often as the others.
            let contender = &mut contenders[(round + turn) % count];
            let began = now();
            (contender.step)()?;
            contender.took.push(began.elapsed());
        }
    }
    print(contenders, rounds);
    let trip = Target { address: Address::Tcp(authority.address), request: authority.validate_request(DEVICE).into() };
    let trip = trip.ask(1, length.pick(Duration::from_millis(500), Duration::from_millis(100)))?.latencies.median();
    report::say(&format!(
        "  The authority's own round trip, of which every wrapper waits for one: {}",
        milliseconds(trip)
    ));
    Ok(())
}

fn contenders(daemon: Daemon) -> Vec<Contender> {
    let home = daemon.home().to_owned();
    let plain = move |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        clean_environment(&mut command, &home);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    let mut all = vec![Contender::new("true", "", ends_well(plain("true", &[])))];
    match installed("tini") {
        Some(path) => {
            let tini = plain(&path.display().to_string(), &["-s", "--", "true"]);
            all.push(Contender::new("tini -s -- true", "", ends_well(tini)));
        }
        None => report::say("  tini is not installed, so it is not compared with"),
    }
    all.push(Contender::new("machineid-run -- true", "+ 2 ms", ends_well(daemon.wrap(&["true"]))));
    match static_build::wrapper() {
        Ok(path) => {
            let alone = daemon.wrap_with(&path, &[], &["true"]);
            all.push(Contender::new("machineid-run, static, -- true", "+ 2 ms", ends_well(alone)));
        }
        Err(error) => report::say(&format!("  the static build is left out: {error}")),
    }
    let check = Box::new(move || {
        let answer = daemon.get("/v1/check")?;
        if answer.starts_with("HTTP/1.0 200") { Ok(()) } else { Err(answer.into()) }
    });
    all.push(Contender::new("(one strict check on a new connection)", "", check));
    all
}

impl Contender {
    fn new(name: &'static str, goal: &'static str, step: Box<dyn FnMut() -> Outcome<()>>) -> Self {
        Self { name, goal, step, took: Vec::new() }
    }
}

fn ends_well(mut command: Command) -> Box<dyn FnMut() -> Outcome<()>> {
    Box::new(move || match command.status()? {
        status if status.success() => Ok(()),
        status => Err(format!("{command:?}: {status}").into()),
    })
}

pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "looks where a shell would")]
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

fn print(contenders: Vec<Contender>, rounds: usize) {
    let title = format!("Start to exit, {rounds} interleaved rounds, real daemon and authority");
    let mut table = Table::new(&title, &["command", "median", "p90", "more than true", "ratio", "figure to beat"]);
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
