//! Ten thousand gates under simulated time, whose authority goes away for half a minute: do they come back in bursts?

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Code, Decision};

use super::core::{Action, AttemptId, AttemptOutcome, First, Gate, GateEvent, Registered};
use crate::config::{Rules, SystemUnavailable};

const HOSTS: usize = 10_000;
const RULES: Rules = Rules {
    interval: Duration::from_secs(5),
    lease: Duration::from_secs(30),
    resume_grace: Duration::from_secs(3),
    system_unavailable: SystemUnavailable::Deny,
};
/// All hosts have started within this.
const START: u64 = 5_000;
/// The authority is away from here to there.
const AWAY: (u64, u64) = (20_000, 50_000);
const END: u64 = 70_000;
const BUCKET: u64 = 100;

/// What a request comes to while the authority is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    /// Nobody listens.
    Refused,
    /// Nobody answers, and the request times out.
    Silent,
    /// It is overloaded, and says when to come back.
    Overloaded { retry_after: Duration },
}

struct Host {
    gate: Gate,
    answers: Vec<(BootTime, AttemptId, AttemptOutcome)>,
}

impl Host {
    fn tell(&mut self, now: BootTime, event: GateEvent, outage: Outage, requests: &mut [usize]) {
        let mut actions = Vec::new();
        self.gate.handle(now, event, &mut actions);
        for action in actions {
            match action {
                Action::Begin { attempt, .. } => {
                    let at = now.as_millis();
                    if let Some(bucket) = usize::try_from(at / BUCKET).ok().and_then(|bucket| requests.get_mut(bucket))
                    {
                        *bucket += 1;
                    }
                    let (takes, outcome) = answer((AWAY.0..AWAY.1).contains(&at).then_some(outage));
                    self.answers.push((now + takes, attempt, outcome));
                }
                Action::StopAgents { .. } => self.tell(now, GateEvent::Agents(0), outage, requests),
                Action::Abandon { .. }
                | Action::Answer { .. }
                | Action::LeaseMoved { .. }
                | Action::BecameUnavailable { .. }
                | Action::BecameAllowed => {}
            }
        }
    }

    fn next(&self) -> BootTime {
        let answer = self.answers.iter().map(|(at, ..)| *at).min();
        answer.into_iter().chain(self.gate.next_wake()).min().expect("a gate always waits for something")
    }
}

fn answer(outage: Option<Outage>) -> (Duration, AttemptOutcome) {
    let none = |retry_after| AttemptOutcome::NoAnswer {
        code: Code::AuthorityUnreachable,
        cause: Arc::from("away"),
        retry_after,
    };
    match outage {
        None => {
            (Duration::from_millis(5), AttemptOutcome::Decided(Decision::Allow { code: Code::Allow, request_id: None }))
        }
        Some(Outage::Refused) => (Duration::from_millis(1), none(None)),
        Some(Outage::Silent) => (Duration::from_secs(3), none(None)),
        Some(Outage::Overloaded { retry_after }) => (Duration::from_millis(5), none(Some(retry_after))),
    }
}

/// Requests in each tenth of a second.
fn simulate(outage: Outage, agents: usize) -> Vec<usize> {
    let mut requests = vec![0; usize::try_from(END / BUCKET).unwrap()];
    let mut hosts = Vec::with_capacity(HOSTS);
    let mut queue = BinaryHeap::new();
    for host in 0..HOSTS {
        let start = BootTime::from_millis(START * host as u64 / HOSTS as u64);
        let gate = Gate::new(RULES, true, First::AtOnce, host as u64, start);
        hosts.push(Host { gate, answers: Vec::new() });
        hosts[host].tell(start, GateEvent::Agents(agents), outage, &mut requests);
        queue.push(Reverse((hosts[host].next(), host)));
    }
    while let Some(Reverse((now, number))) = queue.pop().filter(|Reverse((now, _))| now.as_millis() < END) {
        let host = &mut hosts[number];
        match host.answers.iter().position(|(at, ..)| *at <= now) {
            Some(place) => {
                let (_, attempt, outcome) = host.answers.swap_remove(place);
                let event = GateEvent::Finished { attempt, registered: Registered::NotAsked, outcome };
                host.tell(now, event, outage, &mut requests);
            }
            None => host.tell(now, GateEvent::Woke, outage, &mut requests),
        }
        queue.push(Reverse((host.next(), number)));
    }
    requests
}

/// Mean and peak of the requests in a tenth of a second.
fn shape(requests: &[usize], from: u64, to: u64) -> (f64, f64) {
    let bucket = |at: u64| usize::try_from(at / BUCKET).unwrap();
    let window = &requests[bucket(from)..bucket(to)];
    let float = |number: usize| f64::from(u32::try_from(number).unwrap());
    (float(window.iter().sum()) / float(window.len()), float(window.iter().copied().max().unwrap_or(0)))
}

#[test]
fn a_fleet_whose_authority_goes_away_neither_asks_nor_comes_back_in_bursts() {
    let overloaded = Outage::Overloaded { retry_after: Duration::from_secs(10) };
    println!("{HOSTS} hosts, an interval of 5 s, the authority away for 30 s; requests in each 100 ms");
    for (outage, agents) in [(Outage::Refused, 0), (Outage::Refused, 1), (Outage::Silent, 1), (overloaded, 1)] {
        let requests = simulate(outage, agents);
        let (before, _) = shape(&requests, START + 5_000, AWAY.0);
        let (away, away_peak) = shape(&requests, AWAY.0, AWAY.1);
        let (after, after_peak) = shape(&requests, AWAY.1, END);
        println!(
            "  {outage:?}, {agents} agents: before {before:.0}; away {away:.0}, peak {away_peak:.0}, peak to mean {:.2}; \
             after {after:.0}, peak {after_peak:.0}, peak to mean {:.2}",
            away_peak / away,
            after_peak / after,
        );
        assert!(
            away_peak <= 5.0 * away,
            "a burst while the authority is away: {away_peak} in 100 ms, {away} in the mean"
        );
        assert!(after_peak <= 3.0 * after, "a burst when it is back: {after_peak} in 100 ms, {after} in the mean");
    }
}
