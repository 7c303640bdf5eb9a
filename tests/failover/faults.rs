//! Every fault: made, kept up, and undone.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::place::is_root;
use crate::harness::sidecar::Sidecar;
use crate::harness::wait::clock;
use crate::plan::{Fault, OldPrimary, Outage, Rebuild, Side, Standby};
use crate::proxy::{Proxy, Target, Traffic};
use crate::world::{World, wait_until};

/// What an authority's clocks since boot show more on another host: a month, in seconds.
const OTHER_BOOT: &str = "2592000";
/// Within this time an authority notices that its address leads to another server, though its sessions live: it makes a
/// connection every two seconds, which takes at most one.
const NOTICED: Duration = Duration::from_secs(4);
/// The pause between two times that all sessions end.
const BETWEEN: Duration = Duration::from_millis(400);

/// Makes a fault, keeps it up for so long, and undoes it. An error says why it cannot be made here.
pub(crate) fn happen(world: &mut World, fault: &Fault, lasts: Duration) -> Result<(), String> {
    let end = clock() + lasts;
    match fault {
        Fault::Failover { old, rebuild } => fail_over(world, *old, *rebuild, clock() + lasts / 2, end)?,
        Fault::StandbyBehindAddress { sides, standby } => {
            lead_to_standby(world, sides, *standby, clock() + lasts / 3, end)?;
        }
        Fault::SessionsEnded { times } => {
            for _ in 0..*times {
                world.databases.end_sessions()?;
                wait_until(end.min(clock() + BETWEEN));
            }
        }
        Fault::ConnectionLimit { connections } => {
            world.databases.limit_connections(Some(*connections))?;
            world.databases.end_sessions()?;
            wait_until(end);
            world.databases.limit_connections(None)?;
        }
        Fault::BackendKilled => world.databases.primary.kill_a_backend(crate::databases::ROLE)?,
        Fault::PrimaryStandsStill => {
            world.databases.primary.pause();
            wait_until(end);
            world.databases.primary.resume();
        }
        Fault::StandbyStandsStill => {
            world.databases.synchronous.pause();
            wait_until(end);
            world.databases.synchronous.resume();
        }
        Fault::PrimaryCrashes => {
            world.databases.primary.stop("QUIT");
            wait_until(end);
            world.databases.primary.launch();
        }
        Fault::DiskFull => {
            if !world.databases.primary.has_a_disk() {
                return Err("a file system of its own takes root".to_owned());
            }
            world.databases.primary.fill_disk();
            wait_until(end);
            world.databases.primary.empty_disk();
        }
        Fault::DatabaseUnreachable { sides, outage } => cut(world, |world| &world.addresses, sides, *outage, end),
        Fault::AuthoritiesUnreachable { sides, outage } => cut(world, |world| &world.fronts, sides, *outage, end),
        Fault::AuthorityKilled(side) => {
            world.authority(*side).kill();
            wait_until(end);
            world.authority(*side).start_again();
        }
        Fault::AuthorityStandsStill(side) => {
            world.authority(*side).signal(Signal::STOP);
            wait_until(end);
            world.authority(*side).signal(Signal::CONT);
        }
        Fault::RollingRestart => {
            for side in Side::BOTH {
                world.authority(side).terminate();
                world.authority(side).start_again();
                world.wait_until_ready();
            }
        }
        Fault::OtherBootClock(side) => {
            if !is_root() {
                return Err("a time namespace takes root".to_owned());
            }
            let other = ["unshare", "--time", "--monotonic", OTHER_BOOT, "--boottime", OTHER_BOOT];
            *world.authority(*side).starter() = other.map(str::to_owned).to_vec();
            world.authority(*side).kill();
            world.authority(*side).start_again();
            wait_until(end);
            world.authority(*side).starter().clear();
            world.authority(*side).kill();
            world.authority(*side).start_again();
        }
        Fault::SidecarsMoved(side) => {
            let other = if *side == Side::A { Side::B } else { Side::A };
            world.lead_front(*side, other);
            wait_until(end);
            world.lead_front(*side, *side);
        }
        Fault::DaemonsKilled(some) => {
            daemons(world, some, Sidecar::kill);
            wait_until(end);
            daemons(world, some, Sidecar::start_again);
        }
        Fault::DaemonsStandStill(some) => {
            daemons(world, some, |daemon| daemon.signal(Signal::STOP));
            wait_until(end);
            daemons(world, some, |daemon| daemon.signal(Signal::CONT));
        }
        Fault::WrappersStandStill(some) => {
            signal_wrappers(world, some, Signal::STOP);
            wait_until(end);
            signal_wrappers(world, some, Signal::CONT);
        }
    }
    Ok(())
}

fn daemons(world: &mut World, of: &[usize], each: impl Fn(&mut Sidecar)) {
    for at in of {
        each(&mut world.members[*at].sidecar);
    }
}

fn signal_wrappers(world: &mut World, of: &[usize], signal: Signal) {
    for at in of {
        if let Some(agent) = &mut world.members[*at].agent {
            agent.signal_wrapper(signal);
        }
    }
}

fn cut(world: &World, of: impl Fn(&World) -> &[Proxy; 2], sides: &[Side], outage: Outage, end: Instant) {
    let traffic = match outage {
        Outage::Reset => Traffic::Reset,
        Outage::Held => Traffic::Held,
        Outage::AnswersHeld => Traffic::AnswersHeld,
    };
    let set = |traffic| sides.iter().for_each(|side| of(world)[side.index()].set(traffic));
    set(traffic);
    wait_until(end);
    set(Traffic::Passes);
}

/// The primary is lost, noticed to be lost half the time later, and replaced.
fn fail_over(
    world: &mut World,
    old: OldPrimary,
    rebuild: Rebuild,
    noticed: Instant,
    end: Instant,
) -> Result<(), String> {
    if old == OldPrimary::IsCutOff {
        world.addresses.iter().for_each(|address| address.set(Traffic::Held));
    }
    world.databases.lose_primary(old);
    wait_until(noticed);
    world.databases.promote()?;
    if old == OldPrimary::KeepsItsSessions {
        world.addresses.iter().for_each(|address| address.lead_new_to(world.databases.target()));
        world.ledger.excuse_until(Some(clock() + NOTICED));
    } else {
        world.lead_to_primary(&Side::BOTH);
    }
    world.open_networks();
    world.ledger.say(&format!("  server {} is the primary now", world.databases.primary.name));
    wait_until(end);
    // One that stood still goes on here, and ends its sessions that no client holds any more.
    if let Some(refused) = world.databases.rebuild(rebuild) {
        world.ledger.say(&format!("  copied instead of rewound: {refused}"));
    }
    Ok(())
}

/// The address of the database leads to a standby that is behind.
fn lead_to_standby(
    world: &mut World,
    sides: &[Side],
    standby: Standby,
    leads: Instant,
    end: Instant,
) -> Result<(), String> {
    let behind = world.databases.standby(standby);
    behind.sql("SELECT pg_wal_replay_pause()")?;
    let target = Target::Unix(behind.socket());
    // What is answered from here on, the standby does not show.
    wait_until(leads);
    for side in sides {
        world.addresses[side.index()].lead_to(target.clone());
    }
    wait_until(end);
    world.lead_to_primary(sides);
    world.databases.standby(standby).sql("SELECT pg_wal_replay_resume()").map(drop)
}
