//! A plan, carried out: each fault with its orders, and what must hold after it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::harness::load::Stalls;
use crate::harness::wait::clock;
use crate::member::Settings;
use crate::operator::Watchers;
use crate::plan::{Step, plan};
use crate::world::{SETTINGS, World, wait_until};
use crate::{checks, faults, keep};

/// What a run is given.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) faults: usize,
    pub(crate) sidecars: usize,
    /// Goes on after a broken promise.
    pub(crate) keeps_going: bool,
    /// Sidecars take `SYSTEM_UNAVAILABLE` for no answer, marked or not: what is broken then is something else.
    pub(crate) retries: bool,
}

/// What became of a run.
pub(crate) enum Outcome {
    Passed,
    /// There is no `PostgreSQL`.
    Skipped,
    Failed,
}

pub(crate) fn run(options: &Options, below: &Path, program: &Path) -> Outcome {
    let Options { seed, faults, sidecars, keeps_going, retries } = *options;
    let plan = plan(seed, faults, sidecars);
    let settings = if retries { Settings { system_unavailable: "retry", ..SETTINGS } } else { SETTINGS };
    let Some(mut world) = World::start(below, program, sidecars, settings) else { return Outcome::Skipped };
    let ledger = Arc::clone(&world.ledger);
    let watchers = Watchers::start(&world.reach, &ledger);
    ledger.say(&format!("seed {seed}: {faults} faults for {sidecars} sidecars"));
    let mut skipped = 0;
    let mut at = 0;
    for (number, step) in plan.iter().enumerate() {
        at = number + 1;
        ledger.say(&format!("step {at}: {:?} for {:.1?}", step.fault, step.lasts));
        // The world must outlive what goes wrong, so that its logs can be kept.
        let done = catch_unwind(AssertUnwindSafe(|| carry_out(&mut world, at, step)));
        match done {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                skipped += 1;
                ledger.say(&format!("  SKIPPED: {why}"));
            }
            Err(_) => ledger.broken("the harness itself gave up; the reason is above"),
        }
        let gave_up = done_badly(&ledger.all_broken());
        if gave_up || (!ledger.all_broken().is_empty() && !keeps_going) {
            break;
        }
    }
    let broken = ledger.all_broken();
    ledger.say(&format!(
        "seed {seed}: {at} of {faults} steps, {skipped} skipped, {} orders answered, {} looks at revoked devices, {} promises broken",
        ledger.answered().len(),
        watchers.looks(),
        broken.len()
    ));
    drop(watchers);
    if broken.is_empty() {
        return Outcome::Passed;
    }
    let kept = keep::logs(&world, seed);
    ledger.say(&format!("FAILED: seed {seed}, step {at}; logs in {}", kept.display()));
    for what in broken {
        ledger.say(&format!("  {what}"));
    }
    Outcome::Failed
}

fn done_badly(broken: &[String]) -> bool {
    broken.iter().any(|what| what.starts_with("the harness itself"))
}

/// One step. An error says why its fault cannot be made here.
fn carry_out(world: &mut World, number: usize, step: &Step) -> Result<(), String> {
    let began = clock();
    let stalls = Stalls::from_now();
    let (reach, ledger) = (world.reach.clone(), Arc::clone(&world.ledger));
    let half = began + step.lasts / 2;
    let starts: Vec<_> =
        ledger.revoked().into_iter().rev().take(2).map(|member| (member, start(world, member))).collect();
    let made = thread::scope(|scope| {
        for (at, act) in step.acts.iter().enumerate() {
            let (reach, ledger) = (&reach, &ledger);
            scope.spawn(move || {
                wait_until(began + act.after);
                let reason = format!("step {number} order {at} {}", checks::in_words(act.order));
                reach.order(ledger, act.through, act.member, act.order, &reason);
            });
        }
        for (member, command) in starts {
            let ledger = &ledger;
            scope.spawn(move || {
                wait_until(half);
                checks::nothing_starts(ledger, member, command);
            });
        }
        faults::happen(world, &step.fault, step.lasts)
    });
    checks::after_step(world, number, &stalls);
    made
}

/// The start of a command under a member's sidecar.
fn start(world: &World, member: usize) -> std::process::Command {
    let mut command = world.members[member].sidecar.wrap(&[], &["echo", "it runs"]);
    command.stderr(std::process::Stdio::piped());
    command
}
