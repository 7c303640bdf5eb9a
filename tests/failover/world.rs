//! Everything that takes part: databases, authorities, sidecars with agents, and the addresses between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::databases::Databases;
use crate::harness::authority::Authority;
use crate::harness::wait::{clock, until};
use crate::harness::{http, let_time_pass};
use crate::ledger::Ledger;
use crate::member::{Member, Settings};
use crate::operator::Reach;
use crate::plan::Side;
use crate::proxy::{self, Proxy, Target, Traffic};

/// Set by a signal: the run ends at its next wait, and cleans up.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes SIGINT and SIGTERM for the wish to end.
pub(crate) fn end_on_signals() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        proxy::on_signal(signal.as_raw(), || INTERRUPTED.store(true, Ordering::Relaxed));
    }
}

/// How many sidecars are started, asked or ended at a time.
const AT_A_TIME: usize = 8;

/// What sidecars of a schedule are set to: the defaults, but a grace that does not take long.
pub(crate) const SETTINGS: Settings =
    Settings { interval: "4s", lease: "30s", grace: "2s", system_unavailable: "deny" };

pub(crate) struct World {
    pub(crate) members: Vec<Member>,
    /// What sidecars know as the addresses of the authorities.
    pub(crate) fronts: [Proxy; 2],
    pub(crate) authorities: [Authority; 2],
    /// What the authorities know as the address of the database.
    pub(crate) addresses: [Proxy; 2],
    pub(crate) databases: Databases,
    pub(crate) reach: Reach,
    pub(crate) ledger: Arc<Ledger>,
    /// This program, which is the agent as well.
    pub(crate) program: PathBuf,
}

impl World {
    /// Starts all of it. `None` where there is no `PostgreSQL`.
    pub(crate) fn start(below: &Path, program: &Path, members: usize, settings: Settings) -> Option<Self> {
        let ledger = Arc::new(Ledger::new(members));
        let databases = Databases::start(below)?;
        ledger.say("three databases");
        let addresses = Side::BOTH.map(|_| Proxy::start(databases.target()));
        let authorities =
            Side::BOTH.map(|side| Authority::start_on(&Databases::url(addresses[side.index()].address())));
        let fronts = Side::BOTH.map(|side| Proxy::start(Target::Tcp(authorities[side.index()].address())));
        let key = authorities[0].org("max").key;
        let reach = Reach { addresses: [authorities[0].address(), authorities[1].address()], key };
        ledger.say("two authorities");
        let program = program.to_owned();
        let mut world = Self { members: Vec::new(), fronts, authorities, addresses, databases, reach, ledger, program };
        let urls = Side::BOTH.map(|side| format!("http://{}", world.fronts[side.index()].address()));
        world.members = start_members(members, &urls, &world.reach.key, settings, &world.program);
        world.ledger.say(&format!("{members} sidecars with agents"));
        Some(world)
    }

    pub(crate) fn authority(&mut self, side: Side) -> &mut Authority {
        &mut self.authorities[side.index()]
    }

    /// Leads these authorities to the primary.
    pub(crate) fn lead_to_primary(&self, sides: &[Side]) {
        for side in sides {
            self.addresses[side.index()].lead_to(self.databases.target());
        }
    }

    /// Leads the sidecars of this front to that authority.
    pub(crate) fn lead_front(&self, front: Side, to: Side) {
        self.fronts[front.index()].lead_to(Target::Tcp(self.reach.addresses[to.index()]));
    }

    /// Nothing is held or cut any more.
    pub(crate) fn open_networks(&self) {
        for proxy in self.addresses.iter().chain(&self.fronts) {
            proxy.set(Traffic::Passes);
        }
    }

    /// Waits until both authorities say that they serve.
    pub(crate) fn wait_until_ready(&self) {
        for side in Side::BOTH {
            let to = self.reach.addresses[side.index()];
            let message = http::message(to, "GET", "/readyz", &[], b"");
            until(&format!("authority {side:?} is ready"), || {
                let reply = http::try_exchange(to, &message, Duration::from_secs(2)).ok()?;
                (reply.status == 200).then_some(())
            });
        }
    }

    /// Does the same with all members, some at a time.
    pub(crate) fn with_members(&mut self, task: impl Fn(&mut Member) + Sync) {
        let share = self.members.len().div_ceil(AT_A_TIME).max(1);
        thread::scope(|scope| {
            for members in self.members.chunks_mut(share) {
                scope.spawn(|| members.iter_mut().for_each(&task));
            }
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Stopped ones would not end by themselves.
        self.with_members(|member| {
            member.sidecar.signal(rustix::process::Signal::CONT);
            drop(member.agent.take());
        });
        end_members(std::mem::take(&mut self.members));
    }
}

/// Starts sidecars with agents, in turn at these addresses.
pub(crate) fn start_members(
    count: usize,
    urls: &[String],
    key: &str,
    settings: Settings,
    program: &Path,
) -> Vec<Member> {
    let numbers: Vec<usize> = (0..count).collect();
    let start = |number: usize| {
        let mut member = Member::start(number, &urls[number % urls.len()], key, settings);
        member.start_agent(program).unwrap();
        member
    };
    thread::scope(|scope| {
        let share = count.div_ceil(AT_A_TIME).max(1);
        let threads: Vec<_> = numbers
            .chunks(share)
            .map(|numbers| scope.spawn(move || numbers.iter().map(|number| start(*number)).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Ends sidecars, some at a time.
pub(crate) fn end_members(mut members: Vec<Member>) {
    let share = members.len().div_ceil(AT_A_TIME).max(1);
    thread::scope(|scope| {
        while !members.is_empty() {
            let some = members.split_off(members.len().saturating_sub(share));
            scope.spawn(move || drop(some));
        }
    });
}

/// Lets time pass until then. Ends the run when a signal asks for it.
pub(crate) fn wait_until(then: Instant) {
    loop {
        assert!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        let left = then.saturating_duration_since(clock());
        if left.is_zero() {
            return;
        }
        let_time_pass(left.min(Duration::from_millis(100)));
    }
}
