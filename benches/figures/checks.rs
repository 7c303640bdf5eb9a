//! How fast checks are answered: cached ones against a bare hyper server, strict ones against the authority's own round
//! trip.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Length;
use crate::common::Outcome;
use crate::common::agents::Agents;
use crate::common::authority::Authority;
use crate::common::bare_server::BareServer;
use crate::common::daemon::{DEVICE, Daemon, MAX_AGE};
use crate::common::delayed::Delayed;
use crate::common::load::{Address, Load, Target};
use crate::common::process::processor_time;
use crate::common::report::{self, Table, difference, microseconds, ratio, times};
use crate::common::samples::{Samples, upper_quartile};

/// Agents on the daemon while it is asked: whose agent the asker is must then be found out.
const AGENTS: usize = 20;

/// How much longer the authority's answers take where its round trip is to matter.
const DELAY: Duration = Duration::from_millis(5);

/// A server under load, over all rounds.
struct Contender {
    target: Target,
    pid: u32,
    connections: usize,
    rounds: Vec<Load>,
    processor_time: Duration,
}

pub(crate) fn run(length: Length) -> Outcome<()> {
    let authority = Authority::start()?;
    let daemon = Daemon::start(&authority)?;
    let cached = format!("/v1/check?max_age={MAX_AGE}s");
    let answer = daemon.get(&cached)?;
    let body = answer.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
    let bare = BareServer::start(body)?;
    let servers = Servers { authority: &authority, daemon: &daemon, bare: &bare, length };
    servers.cached(&format!("Cached checks, {body} bytes, no agents"), &cached)?;
    servers.cached("Cached checks, device named, no agents", &format!("{cached}&device={DEVICE}"))?;
    let agents = Agents::start(&daemon, AGENTS)?;
    servers.cached(&format!("Cached checks, {AGENTS} agents"), &cached)?;
    drop(agents);
    servers.strict("Strict checks", authority.address)?;
    drop(daemon);
    let delayed = Delayed::start(authority.address, DELAY)?;
    let daemon = Daemon::start_by_way_of(&authority, &format!("http://{}", delayed.address))?;
    let servers = Servers { authority: &authority, daemon: &daemon, bare: &bare, length };
    servers.strict("Strict checks, the authority 5 ms away", delayed.address)
}

struct Servers<'a> {
    authority: &'a Authority,
    daemon: &'a Daemon,
    bare: &'a BareServer,
    length: Length,
}

impl Servers<'_> {
    fn bare(&self, connections: usize) -> Contender {
        Contender::new(Target::get(self.bare.socket(), "/v1/check"), self.bare.pid(), connections)
    }

    fn daemon(&self, path: &str, connections: usize) -> Contender {
        Contender::new(Target::get(self.daemon.socket(), path), self.daemon.pid(), connections)
    }

    fn authority(&self, address: SocketAddr, connections: usize) -> Contender {
        let requests = [self.authority.validate_request(DEVICE)].into();
        let target = Target { address: Address::Tcp(address), requests };
        Contender::new(target, self.authority.pid(), connections)
    }

    /// Rounds in turn, each contender first as often as the others.
    fn compete<const N: usize>(&self, mut contenders: [Contender; N]) -> Outcome<[Contender; N]> {
        // Many and short: where the scheduler puts two processes that wait for each other decides a whole round.
        let rounds = self.length.pick(24, 4);
        let span = self.length.pick(Duration::from_millis(100), Duration::from_millis(50));
        for round in 0..rounds {
            for turn in 0..N {
                contenders[(round + turn) % N].go(span)?;
            }
        }
        Ok(contenders)
    }

    fn cached(&self, title: &str, path: &str) -> Outcome<()> {
        let headings = [
            "connections",
            "checks/s",
            "bare/s",
            "ratio",
            "p50",
            "p99",
            "bare p50",
            "CPU each",
            "bare",
            "figure to beat",
        ];
        let mut table = Table::new(title, &headings);
        for connections in [1, 64] {
            let [bare, ours] = self.compete([self.bare(connections), self.daemon(path, connections)])?;
            table.row(vec![
                connections.to_string(),
                format!("{:.0}", ours.rate()),
                format!("{:.0}", bare.rate()),
                times(ours.rate() / bare.rate()),
                microseconds(ours.latencies().median()),
                microseconds(ours.latencies().percentile(99)),
                microseconds(bare.latencies().median()),
                microseconds(ours.processor_time_each()),
                microseconds(bare.processor_time_each()),
                "× 0.80".to_owned(),
            ]);
        }
        table.print();
        Ok(())
    }

    fn strict(&self, title: &str, authority: SocketAddr) -> Outcome<()> {
        let headings =
            ["askers", "checks/s", "p50", "p99", "round trip", "more", "ratio", "against bare", "figure to beat"];
        let mut table = Table::new(&format!("{title}; the authority's round trip is one asker's median"), &headings);
        let goals = [(1, "round trip + 150 µs"), (64, "2 × round trip + 1 ms"), (256, "2 × round trip + 1 ms")];
        for (askers, goal) in goals {
            let contenders = [self.authority(authority, 1), self.daemon("/v1/check", askers), self.bare(askers)];
            let [lone, ours, bare] = self.compete(contenders)?;
            let (trip, took) = (lone.latencies().median(), ours.latencies().median());
            table.row(vec![
                askers.to_string(),
                format!("{:.0}", ours.rate()),
                microseconds(took),
                microseconds(ours.latencies().percentile(99)),
                microseconds(trip),
                difference(took, trip),
                ratio(took, trip),
                times(ours.rate() / bare.rate()),
                goal.to_owned(),
            ]);
        }
        table.print();
        report::say("  The daemon asks over connections of its own, while the round trip is that of a lone client.");
        Ok(())
    }
}

impl Contender {
    fn new(target: Target, pid: u32, connections: usize) -> Self {
        Self { target, pid, connections, rounds: Vec::new(), processor_time: Duration::ZERO }
    }

    fn go(&mut self, span: Duration) -> Outcome<()> {
        let before = processor_time(self.pid)?;
        self.rounds.push(self.target.ask(self.connections, span)?);
        self.processor_time += processor_time(self.pid)?.saturating_sub(before);
        Ok(())
    }

    /// The rate that the best quarter of the rounds reached. Two processes that wait for each other are several times
    /// slower while the scheduler keeps them on different cores, and everything is while others use the host: what the
    /// servers can do shows in the rounds that were spared.
    fn rate(&self) -> f64 {
        upper_quartile(self.rounds.iter().map(Load::rate).collect())
    }

    fn latencies(&self) -> Samples {
        Samples::joined(self.rounds.iter().map(|round| &round.latencies))
    }

    /// What one answer costs the server; unlike the rate it does not depend on who else is busy.
    fn processor_time_each(&self) -> Duration {
        let answers: usize = self.rounds.iter().map(|round| round.answers).sum();
        self.processor_time / u32::try_from(answers).unwrap_or(u32::MAX).max(1)
    }
}
