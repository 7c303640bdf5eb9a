//! What one authority on `PostgreSQL` does: validations of a large fleet, beside another build on the same server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use machineid_testing::postgres::Cluster;

use crate::Length;
use crate::common::authority::{Authority, BINARY};
use crate::common::load::{Address, Load, Target};
use crate::common::process::processor_time;
use crate::common::report::{Table, microseconds, say};
use crate::common::samples::{Samples, upper_quartile};
use crate::common::{Outcome, program};

/// Devices of the fleet.
const FLEET: u32 = 100_000;
/// Devices that are asked about, spread over the fleet.
const ASKED: u32 = 20_000;
/// Connections that sidecars keep.
const CONNECTIONS: usize = 64;

/// An authority under load, over all rounds.
struct Contender {
    name: String,
    authority: Authority,
    target: Target,
    rounds: Vec<Load>,
    own: Duration,
    database: Duration,
}

/// `beside` is another build of `machineid-authority`.
pub(crate) fn run(length: Length, beside: Option<&Path>) -> Outcome<()> {
    let Some(cluster) = Cluster::start() else { return Ok(()) };
    let mut contenders = vec![Contender::new("this build", &program(BINARY), &cluster)?];
    if let Some(other) = beside {
        contenders.push(Contender::new("beside it", other, &cluster)?);
    }
    let rounds = length.pick(16, 4);
    let span = length.pick(Duration::from_secs(1), Duration::from_millis(250));
    for round in 0..rounds {
        let count = contenders.len();
        for turn in 0..count {
            contenders[(round + turn) % count].go(span, &cluster)?;
        }
    }
    // The same for all: half of what the slowest can.
    let half = contenders.iter().map(Contender::rate).fold(f64::INFINITY, f64::min) / 2.0;
    let mut late: Vec<Vec<Samples>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        let count = contenders.len();
        for turn in 0..count {
            let at = (round + turn) % count;
            late[at].push(contenders[at].target.ask_at(CONNECTIONS, span, half)?.latencies);
        }
    }
    let title = format!("Validations through PostgreSQL, {FLEET} devices, {CONNECTIONS} connections");
    let headings = ["authority", "validations/s", "p50", "p99", "CPU each", "PostgreSQL's", "p99 at half"];
    let mut table = Table::new(&title, &headings);
    for (contender, late) in contenders.iter().zip(&late) {
        let latencies = Samples::joined(contender.rounds.iter().map(|round| &round.latencies));
        table.row(vec![
            contender.name.clone(),
            format!("{:.0}", contender.rate()),
            microseconds(latencies.median()),
            microseconds(latencies.percentile(99)),
            microseconds(contender.each(contender.own)),
            microseconds(contender.each(contender.database)),
            microseconds(Samples::joined(late.iter()).percentile(99)),
        ]);
    }
    table.print();
    say(&format!("p99 at half: {half:.0} validations/s, half of what the slowest does"));
    Ok(())
}

impl Contender {
    fn new(name: &str, program: &Path, cluster: &Cluster) -> Outcome<Self> {
        let url = cluster.new_database();
        let authority = Authority::on(program, &url)?;
        let org = &authority.org;
        let database = url.split(['/', '?']).nth(3).unwrap_or_default();
        cluster.sql(
            database,
            &format!(
                "INSERT INTO devices (org_id, device_id, created_at)
                 SELECT '{org}', 'agent:' || n, 0 FROM generate_series(0, {FLEET} - 1) AS n;
                 UPDATE orgs SET active = {FLEET} WHERE id = '{org}'"
            ),
        );
        cluster.sql(database, "VACUUM ANALYZE");
        let spread = FLEET / ASKED;
        let one = |number: u32| authority.validate_request(&format!("agent:{}", (number * 7_919 % ASKED) * spread));
        let requests: Vec<_> = (0..ASKED).map(one).collect();
        let target = Target { address: Address::Tcp(authority.address), requests: requests.into() };
        // Connections, plans and caches are made.
        target.ask(CONNECTIONS, Duration::from_millis(500))?;
        let (own, database) = (Duration::ZERO, Duration::ZERO);
        Ok(Self { name: name.to_owned(), authority, target, rounds: Vec::new(), own, database })
    }

    fn go(&mut self, span: Duration, cluster: &Cluster) -> Outcome<()> {
        let before = (processor_time(self.authority.pid())?, time_of(cluster)?);
        self.rounds.push(self.target.ask(CONNECTIONS, span)?);
        self.own += processor_time(self.authority.pid())?.saturating_sub(before.0);
        self.database += time_of(cluster)?.saturating_sub(before.1);
        Ok(())
    }

    fn rate(&self) -> f64 {
        upper_quartile(self.rounds.iter().map(Load::rate).collect())
    }

    fn each(&self, time: Duration) -> Duration {
        let answers: usize = self.rounds.iter().map(|round| round.answers).sum();
        time / u32::try_from(answers).unwrap_or(u32::MAX).max(1)
    }
}

/// Processor time of all processes of the server that live.
fn time_of(cluster: &Cluster) -> Outcome<Duration> {
    let main = fs::read_to_string(cluster.directory().join("data/postmaster.pid"))?;
    let main: u32 = main.lines().next().unwrap_or_default().parse()?;
    let children = fs::read_to_string(PathBuf::from(format!("/proc/{main}/task/{main}/children")))?;
    let mut time = Duration::ZERO;
    for child in children.split_whitespace() {
        // It may have ended since.
        time += processor_time(child.parse()?).unwrap_or_default();
    }
    Ok(time + processor_time(main)?)
}
