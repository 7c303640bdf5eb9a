//! How many agents a store stops that is away for a while: none, while their leases last.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::authority::Authority;
use crate::harness::postgres::Cluster;
use crate::harness::wait::clock;
use crate::keep;
use crate::ledger::Ledger;
use crate::member::{Settings, device};
use crate::proxy::{Proxy, Target, Traffic};
use crate::schedule::Outcome;
use crate::world::{end_members, start_members, wait_until};

/// The defaults.
const SETTINGS: Settings = Settings { interval: "4s", lease: "30s", grace: "10s", system_unavailable: "deny" };
/// After the store is back, the longest lease has ended by then, and what it stops with it.
const AFTERWARDS: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// The database's address leads nowhere for exactly so long; the authority runs on. (A server that has crashed takes its
    /// own time to come back, the longer the busier the machine is.)
    Postgres,
    /// The authority is killed with its database, and started again.
    Sqlite,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stops {
    pub(crate) away: Duration,
    pub(crate) store: Store,
    pub(crate) sidecars: usize,
}

pub(crate) fn run(options: Stops, program: &Path) -> Outcome {
    let Stops { away, store, sidecars } = options;
    let ledger = Ledger::new(sidecars);
    let cluster = match store {
        Store::Postgres => {
            let Some(cluster) = Cluster::start() else { return Outcome::Skipped };
            let address = Proxy::start(Target::Unix(cluster.directory().join(".s.PGSQL.5432")));
            cluster.sql("postgres", "CREATE DATABASE outage");
            Some((cluster, address))
        }
        Store::Sqlite => None,
    };
    let mut authority = match &cluster {
        Some((_, address)) => Authority::start_on(&format!("postgres://machineid@{}/outage", address.address())),
        None => Authority::start_at(TempDir::new().unwrap()),
    };
    let key = authority.org("max").key;
    let mut members = start_members(sidecars, &[authority.url()], &key, SETTINGS, program);
    ledger.say(&format!("{sidecars} agents; {store:?} will be away for {away:?}"));
    // So long that the sidecars are at any point of their interval.
    wait_until(clock() + Duration::from_secs(6));
    match &cluster {
        Some((_, address)) => address.set(Traffic::Reset),
        None => authority.kill(),
    }
    let began = clock();
    ledger.say("away");
    wait_until(began + away);
    match &cluster {
        Some((_, address)) => address.set(Traffic::Passes),
        None => authority.start_again(),
    }
    ledger.say(&format!("back after {:.2?}", began.elapsed()));
    wait_until(clock() + AFTERWARDS);
    let stopped = AtomicUsize::new(0);
    for member in &mut members {
        let Some(agent) = &mut member.agent else { continue };
        if agent.is_gone() {
            stopped.fetch_add(1, Ordering::Relaxed);
            ledger.say(&format!("  stopped: {}: {}", device(member.number), agent.end()));
        }
    }
    let stopped = stopped.into_inner();
    ledger.say(&format!("{stopped} of {sidecars} agents were stopped by {store:?} away for {away:?}"));
    let outcome = if stopped == 0 {
        Outcome::Passed
    } else {
        let to = keep::directory(0);
        keep::members(&members, &to);
        keep::authority(&authority, "authority", &to);
        ledger.say(&format!("logs in {}", to.display()));
        Outcome::Failed
    };
    end_members(members);
    outcome
}
