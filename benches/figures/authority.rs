//! What one authority on one file does: validations against a bare hyper server, from small fleets to large ones; and
//! changes, each on the disk before it is answered.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Length;
use crate::common::authority::Authority;
use crate::common::bare_server::BareServer;
use crate::common::load::{Address, Load, Target};
use crate::common::process::processor_time;
use crate::common::report::{self, Table, microseconds, milliseconds, times};
use crate::common::samples::{Samples, upper_quartile};
use crate::common::{Outcome, PATIENCE, now};

/// Devices of a large fleet.
const FLEET: u32 = 100_000;

/// Devices that are asked about in one run, spread over the fleet.
const ASKED: u32 = 20_000;

/// Connections that sidecars keep.
const CONNECTIONS: usize = 64;

/// A validation's answer without its head, in bytes, more or less.
const ANSWER: usize = 230;

/// Validations: how many a second and how late, against the bare server, for each size of the fleet.
pub(crate) fn run(length: Length) -> Outcome<()> {
    let (bare, bare_address) = BareServer::start_on_loopback(ANSWER)?;
    let headings = [
        "devices",
        "validations/s",
        "bare/s",
        "ratio",
        "p50",
        "p99",
        "CPU each",
        "bare",
        "p99 at half",
        "figure to beat",
    ];
    let mut table = Table::new(&format!("Validations on {CONNECTIONS} connections"), &headings);
    let sizes: &[u32] = length.pick(&[1_000, 10_000, FLEET, 1_000_000], &[1_000, FLEET]);
    for devices in sizes {
        let authority = Authority::of(*devices)?;
        let target = validations(&authority, *devices);
        let idle = Target { address: Address::Tcp(bare_address), requests: target.requests.clone() };
        let mut contenders = [Contender::new(idle, bare.pid()), Contender::new(target, authority.pid())];
        let rounds = length.pick(16, 4);
        let span = length.pick(Duration::from_millis(250), Duration::from_millis(100));
        for round in 0..rounds {
            for turn in 0..contenders.len() {
                contenders[(round + turn) % 2].go(span)?;
            }
        }
        let [bare, ours] = contenders;
        let half = ours.target.ask_at(CONNECTIONS, span * 8, ours.rate() / 2.0)?;
        table.row(vec![
            devices.to_string(),
            format!("{:.0}", ours.rate()),
            format!("{:.0}", bare.rate()),
            times(ours.rate() / bare.rate()),
            microseconds(ours.latencies().median()),
            microseconds(ours.latencies().percentile(99)),
            microseconds(ours.processor_time_each()),
            microseconds(bare.processor_time_each()),
            milliseconds(half.latencies.percentile(99)),
            "20,000/s with 100,000; at half under 10 ms; CPU flat".to_owned(),
        ]);
    }
    table.print();
    report::say("  Each rate is what the best quarter of the rounds reached. Client and server share the machine.");
    Ok(())
}

/// Registrations on many connections, beside what the disk takes; and everything revoked at once.
pub(crate) fn changes(length: Length) -> Outcome<()> {
    let authority = Authority::of(FLEET)?;
    let mut table = Table::new("Changes of a fleet of 100,000", &["what", "measured", "beside it", "figure to beat"]);
    let span = length.pick(Duration::from_secs(5), Duration::from_secs(1));
    let synced = synced_writes(&authority, span / 5)?;
    let many = length.pick(100_000, 40_000);
    let register = |number: u32| authority.request("register", &format!(r#"{{"deviceId":"new:{number}"}}"#));
    let requests: Vec<_> = (0..many).map(register).collect();
    let target = Target { address: Address::Tcp(authority.address), requests: requests.into() };
    let load = target.ask(CONNECTIONS, span)?;
    table.row(vec![
        format!("registrations on {CONNECTIONS} connections, p99 {}", milliseconds(load.latencies.percentile(99))),
        format!("{:.0}/s", load.rate()),
        format!("{synced:.0} synced writes/s, one after another"),
        "2,000/s".to_owned(),
    ]);
    for _ in 0..length.pick(3, 1) {
        for (verb, scope, goal) in [("revoke_batch", "all_active", "2 s"), ("unrevoke_batch", "all_revoked", "")] {
            let began = now();
            post(&authority, verb, &format!(r#"{{"scope":"{scope}"}}"#))?;
            table.row(vec![scope.to_owned(), milliseconds(began.elapsed()), String::new(), goal.to_owned()]);
        }
    }
    table.print();
    Ok(())
}

fn validations(authority: &Authority, devices: u32) -> Target {
    let asked = ASKED.min(devices);
    let spread = devices / asked;
    // Multiples of a prime: neighbours in the fleet are not asked about one after another.
    let one = |number: u32| authority.validate_request(&format!("agent:{}", (number * 7_919 % asked) * spread));
    let requests: Vec<_> = (0..asked).map(one).collect();
    Target { address: Address::Tcp(authority.address), requests: requests.into() }
}

/// What a disk does when each record is synced before the next: what one change after another would be bound by.
fn synced_writes(authority: &Authority, span: Duration) -> Outcome<f64> {
    let mut file = File::create(authority.database().with_extension("synced"))?;
    let (began, mut written) = (now(), 0_u32);
    while began.elapsed() < span {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        written += 1;
    }
    Ok(f64::from(written) / began.elapsed().as_secs_f64())
}

fn post(authority: &Authority, verb: &str, body: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(authority.address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&authority.request(verb, body))?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    if answer.ends_with(b"200") { Ok(()) } else { Err(format!("{verb} was refused: {answer:?}").into()) }
}

/// A server under load, over all rounds.
struct Contender {
    target: Target,
    pid: u32,
    rounds: Vec<Load>,
    processor_time: Duration,
}

impl Contender {
    fn new(target: Target, pid: u32) -> Self {
        Self { target, pid, rounds: Vec::new(), processor_time: Duration::ZERO }
    }

    fn go(&mut self, span: Duration) -> Outcome<()> {
        let before = processor_time(self.pid)?;
        self.rounds.push(self.target.ask(CONNECTIONS, span)?);
        self.processor_time += processor_time(self.pid)?.saturating_sub(before);
        Ok(())
    }

    fn rate(&self) -> f64 {
        upper_quartile(self.rounds.iter().map(Load::rate).collect())
    }

    fn latencies(&self) -> Samples {
        Samples::joined(self.rounds.iter().map(|round| &round.latencies))
    }

    fn processor_time_each(&self) -> Duration {
        let answers: usize = self.rounds.iter().map(|round| round.answers).sum();
        self.processor_time / u32::try_from(answers).unwrap_or(u32::MAX).max(1)
    }
}
