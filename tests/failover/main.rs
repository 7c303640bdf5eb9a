//! Two authorities, three databases, many sidecars, and everything that goes wrong between them.
//!
//! Two real `machineid-authority` share a `PostgreSQL` primary with a synchronous and an asynchronous standby. Real sidecars
//! with real agents ask them through addresses that move, break and hold. A schedule of faults, made from a seed, goes
//! through all of it, while devices are revoked and restored. After each step:
//!
//! - no validation that began after an answered revoke was an ALLOW, on either authority, at any time of the step;
//! - the agents of what was revoked are gone within the promised bound, and none comes back;
//! - no other agent was stopped: each fault is far shorter than the lease;
//! - the audit has every order that was answered, whichever standby was promoted.
//!
//! | file | concept |
//! |---|---|
//! | `arguments`, `main` | what is asked for; a directory, and as root a mount namespace, of the run's own |
//! | `plan` | the schedule: a pure function of the seed |
//! | `schedule` | carries a plan out |
//! | `world`, `member`, `agent` | everything that takes part |
//! | `databases`, `node` | the three `PostgreSQL` servers |
//! | `proxy` | an address whose target moves |
//! | `faults` | each fault: made, kept up, undone |
//! | `operator` | orders, and eyes on what was revoked |
//! | `ledger`, `checks` | what was promised, and whether it holds |
//! | `outage` | how many agents a store stops that is away |
//! | `keep` | the logs of a failed run |
//!
//! A harness of its own: it takes a seed, and it is the agents too. The wall clock is not moved here, since a process cannot
//! have one of its own; `tests/machine` moves a machine's.

#![allow(clippy::unwrap_used, reason = "in a fixture as in a test, what should not happen should be loud")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test program reports on its outputs")]

mod agent;
mod arguments;
mod checks;
mod databases;
mod faults;
#[path = "../suite/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the suite; each uses a part of it")]
mod harness;
mod keep;
mod ledger;
mod member;
mod node;
mod operator;
mod outage;
mod plan;
mod proxy;
mod schedule;
mod world;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use arguments::{Arguments, Mode, USAGE, Wanted};
use schedule::{Options, Outcome};

/// A test is given the directory of this run, and this program.
type Test = fn(&Path, &Path) -> Outcome;

/// The tests of `cargo test`, by their names.
const TESTS: [(&str, Test); 2] = [
    ("failover::a_plan_is_a_function_of_its_seed_and_goes_through_every_fault", plans_are_pure),
    ("failover::a_stop_stays_and_nothing_else_stops_through_a_short_schedule_of_faults", short_schedule),
];

/// What `cargo test` runs: each of the faults that once undid a stop or stopped agents, and some others.
const SHORT: Options = Options { seed: 28, faults: 8, sidecars: 8, keeps_going: false, retries: false };

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, file] = given.as_slice()
        && flag == agent::FLAG
    {
        return agent::be(Path::new(file));
    }
    let arguments = match Arguments::parse(given.iter().cloned()) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("failover: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Mode::Tests(wanted) = &arguments.mode {
        if wanted.list {
            TESTS.iter().filter(|(name, _)| wanted.includes(name)).for_each(|(name, _)| println!("{name}: test"));
            return ExitCode::SUCCESS;
        }
        if !TESTS.iter().any(|(name, _)| wanted.includes(name)) {
            return ExitCode::SUCCESS;
        }
    }
    if let Mode::Plan(Options { seed, faults, sidecars, .. }) = arguments.mode {
        for (at, step) in plan::plan(seed, faults, sidecars).iter().enumerate() {
            println!("step {}: {:?} for {:.1?}", at + 1, step.fault, step.lasts);
            step.acts.iter().for_each(|act| println!("    {act:?}"));
        }
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().unwrap();
    let Some(directory) = &arguments.inside else { return enter(&program, &given) };
    arguments::set_directory(directory);
    if let Some(programs) = arguments.programs {
        harness::programs::take_from(programs);
    }
    world::end_on_signals();
    // What panics has printed why; its directory goes as well.
    let outcome = std::panic::catch_unwind(|| match arguments.mode {
        Mode::Tests(wanted) => tests(&wanted, directory, &program),
        Mode::Schedule(options) | Mode::Plan(options) => schedule::run(&options, directory, &program),
        Mode::Outage(options) => outage::run(options, &program),
    });
    let _ = fs::remove_dir_all(directory);
    match outcome {
        Ok(Outcome::Passed | Outcome::Skipped) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) | Err(_) => ExitCode::FAILURE,
    }
}

/// Becomes this program again, with a directory of its own for everything that it writes, and as root with mounts of its
/// own, which end with its last process.
fn enter(program: &Path, given: &[String]) -> ExitCode {
    let directory = std::env::temp_dir().join(format!("mf-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    // The database's user must get through.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let can_unshare =
        || Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    let mut command = if harness::place::is_root() && can_unshare() {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    let error = command.args(given).arg("--inside").arg(&directory).env("TMPDIR", &directory).exec();
    eprintln!("failover: {}: {error}", program.display());
    ExitCode::FAILURE
}

fn tests(wanted: &Wanted, directory: &Path, program: &Path) -> Outcome {
    let mut outcome = Outcome::Passed;
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted.includes(name)) {
        let word = match test(directory, program) {
            Outcome::Passed => "ok",
            Outcome::Skipped => "skipped",
            Outcome::Failed => {
                outcome = Outcome::Failed;
                "FAILED"
            }
        };
        println!("test {name} ... {word}");
    }
    outcome
}

fn short_schedule(directory: &Path, program: &Path) -> Outcome {
    schedule::run(&SHORT, directory, program)
}

fn plans_are_pure(_: &Path, _: &Path) -> Outcome {
    for seed in 0..200 {
        let one = plan::plan(seed, 40, 50);
        assert_eq!(one, plan::plan(seed, 40, 50), "seed {seed}");
        assert_ne!(one, plan::plan(seed + 1, 40, 50), "seed {seed}");
        assert_eq!(one.len(), 40);
        let kinds: std::collections::BTreeSet<String> = one
            .iter()
            .map(|step| {
                let fault = format!("{:?}", step.fault);
                fault.chars().take_while(|c| c.is_alphanumeric()).collect()
            })
            .collect();
        assert_eq!(kinds.len(), usize::from(plan::KINDS), "seed {seed}: {kinds:?}");
        assert!(one.iter().all(|step| step.lasts <= plan::LONGEST && !step.acts.is_empty()), "seed {seed}");
    }
    Outcome::Passed
}
