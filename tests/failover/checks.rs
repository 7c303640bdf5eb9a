//! What must hold after every step: what was revoked is stopped, and nothing else is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::load::Stalls;
use crate::harness::wait::{clock, until_for};
use crate::ledger::{Ledger, Standing};
use crate::member::{Member, device};
use crate::plan::{Order, Side};
use crate::world::World;

/// How long after a fault everything may take to be as before. Less than what is left of a lease.
const RECOVERED: Duration = Duration::from_secs(15);
/// How long an order may need to be answered when nothing is wrong any more.
const ORDERED: Duration = Duration::from_secs(30);
/// `interval` + `timeout` + `stop_grace` + 1 s: how long a stop takes when the authority can be reached.
const CONNECTED: Duration = Duration::from_secs(4 + 2 + 2 + 1);
/// `lease` + `stop_grace` + 1 s: how long a stop takes whatever is wrong.
const CUT_OFF: Duration = Duration::from_secs(30 + 2 + 1);
/// An agent that has written nothing for so long stands still.
const SILENT: Duration = Duration::from_secs(5);

/// Looks at everything, after a fault has been undone.
pub(crate) fn after_step(world: &mut World, step: usize, stalls: &Stalls) {
    world.databases.wait_until_whole();
    world.wait_until_ready();
    resolve_doubts(world, step);
    let healed = clock();
    every_device_is_looked_at(world);
    sidecars_know(world);
    agents_of_the_revoked_end(world, healed, stalls);
    agents_of_the_others_live(world);
    audit_is_complete(world);
}

/// What was ordered and not answered is ordered again until it is.
fn resolve_doubts(world: &World, step: usize) {
    for (member, order) in world.ledger.in_doubt() {
        let mut turn = 0;
        let answered = until_for(ORDERED, || {
            let side = Side::BOTH[turn % 2];
            turn += 1;
            let reason = format!("step {step} again {turn} {}", device(member));
            world.reach.order(&world.ledger, side, member, order, &reason).then_some(())
        });
        if answered.is_none() {
            world.ledger.broken(&format!("{order:?} of {} is not answered though nothing is wrong", device(member)));
        }
    }
}

/// Through both authorities.
fn every_device_is_looked_at(world: &World) {
    for member in world.ledger.revoked() {
        for side in Side::BOTH {
            world.reach.look(&world.ledger, side, member);
        }
    }
}

/// Each sidecar's own answer.
fn sidecars_know(world: &mut World) {
    let ledger = Arc::clone(&world.ledger);
    world.with_members(|member| match ledger.promise(member.number).standing {
        Standing::Active => {
            let mut last = String::new();
            let allowed = until_for(RECOVERED, || {
                let answer = member.sidecar.get("/v1/check")?;
                last = format!("{} {}", answer.status, answer.body.trim());
                (answer.status == 200 && answer.json()["allowed"] == true).then_some(())
            });
            if allowed.is_none() {
                ledger.broken(&format!(
                    "{} is active, and its sidecar does not allow it within {RECOVERED:?}: {last}",
                    device(member.number)
                ));
            }
        }
        Standing::Revoked { .. } => {
            let answer = member.sidecar.get("/v1/check");
            if answer.is_some_and(|answer| answer.status == 200) {
                ledger.broken(&format!("{} is revoked, and its sidecar allows it", device(member.number)));
            }
        }
        Standing::InDoubt(_) => {}
    });
}

fn agents_of_the_revoked_end(world: &mut World, healed: Instant, stalls: &Stalls) {
    let ledger = Arc::clone(&world.ledger);
    world.with_members(|member| {
        let Standing::Revoked { answered } = ledger.promise(member.number).standing else { return };
        let Some(mut agent) = member.agent.take() else { return };
        let bound = (healed.max(answered) + CONNECTED).min(answered + CUT_OFF) + stalls.allowance();
        let gone = until_for(bound.saturating_duration_since(clock()), || agent.is_gone().then_some(()));
        if gone.is_none() {
            ledger.broken(&format!(
                "the agent of {} is there {:.1?} after its answered revoke; alive: {}, {}",
                device(member.number),
                clock().duration_since(answered),
                agent.is_alive(),
                agent.end()
            ));
        }
    });
}

/// And those that were restored are started again.
fn agents_of_the_others_live(world: &mut World) {
    let ledger = Arc::clone(&world.ledger);
    let program = world.program.clone();
    let stopped = Mutex::new(Vec::new());
    world.with_members(|member| {
        if ledger.promise(member.number).standing != Standing::Active {
            return;
        }
        if let Some(agent) = &mut member.agent {
            let silent = || agent.silent_for().is_none_or(|silent| silent > SILENT);
            if agent.is_alive() && until_for(SILENT, || (!silent()).then_some(())).is_some() {
                return;
            }
            let since = agent.silent_for().unwrap_or_default();
            let how = format!("wrote last {since:.1?} ago, alive: {}, {}", agent.is_alive(), agent.end());
            stopped.lock().unwrap().push((member.number, how));
        }
        start_again(&ledger, member, &program);
    });
    let mut stopped = stopped.into_inner().unwrap();
    stopped.sort();
    ledger.broken_for("agents were stopped that no operator revoked", &stopped);
}

fn start_again(ledger: &Ledger, member: &mut Member, program: &std::path::Path) {
    drop(member.agent.take());
    let mut why = String::new();
    let started = until_for(RECOVERED, || member.start_agent(program).map_err(|error| why = error).ok());
    if started.is_none() {
        ledger.broken(&format!("{} is active, and its agent does not start: {why}", device(member.number)));
    }
}

/// Every order that was answered is in the audit of the primary as it is now.
fn audit_is_complete(world: &World) {
    match world.databases.audited() {
        Ok(audited) => {
            let audited: BTreeSet<String> = audited.into_iter().collect();
            for lost in world.ledger.answered().into_iter().filter(|reason| !audited.contains(reason)) {
                world.ledger.broken(&format!("the audit row of an answered order is gone: {lost}"));
            }
        }
        Err(error) => world.ledger.broken(&format!("the audit cannot be read: {error}")),
    }
}

/// A start under a revoked device, made while a fault lasts. It may be refused or time out, and never runs.
pub(crate) fn nothing_starts(ledger: &Ledger, member: usize, mut start: std::process::Command) {
    let before = ledger.promise(member);
    let Standing::Revoked { .. } = before.standing else { return };
    let Ok(output) = start.output() else { return };
    if output.stdout.starts_with(b"it runs") && ledger.promise(member) == before {
        ledger.broken(&format!("a command ran under {}, which is revoked", device(member)));
    }
}

/// The orders of a step in words, for the report.
pub(crate) fn in_words(order: Order) -> &'static str {
    match order {
        Order::Revoke => "revoke",
        Order::Restore => "restore",
    }
}
