//! Many devices on one host: each has a gate of its own while an agent of it lives, and all share few connections.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::agents::{Agent, OBEDIENT, run_id};
use crate::harness::authority::{Authority, Org};
use crate::harness::let_time_pass;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const HOST: &str = "crowded-host:1";

fn start(org: &Org<'_>, authority: &Authority, interval: &str) -> Sidecar {
    let mut setup = Setup::of(org, &authority.url(), HOST);
    setup.devices = String::from("allow = [\"agent-*\"]");
    setup.enforcement = format!("interval = \"{interval}\"\nlease = \"2m\"\nstop_grace = \"2s\"");
    // All of a crowd ask at once, and each is registered first.
    setup.local.push_str("\nmax_age_cap = \"10s\"\ncheck_timeout = \"1m\"");
    setup.start()
}

/// The standings that the daemon holds, by device.
fn devices(sidecar: &Sidecar) -> BTreeMap<String, Value> {
    let status = sidecar.status();
    let device = |device: &Value| (device["device_id"].as_str().unwrap().to_owned(), device.clone());
    status["devices"].as_array().unwrap().iter().map(device).collect()
}

#[test]
fn a_device_has_a_gate_from_its_first_agents_start_to_its_last_ones_end() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&org, &authority, "200ms");
    assert_eq!(devices(&sidecar).into_keys().collect::<Vec<_>>(), [HOST]);
    let mut first = Agent::start(&sidecar, &["--device", "agent-1"], OBEDIENT);
    let mut second = Agent::start(&sidecar, &["--device", "agent-1"], OBEDIENT);
    let held = devices(&sidecar);
    assert_eq!(held["agent-1"]["agents"], 2, "{held:?}");
    assert_eq!(org.code("agent-1"), "ALLOW", "it is registered on demand");
    // As old as its gate's newest answer, which is kept fresh while an agent lives.
    let cached = sidecar.get("/v1/check?device=agent-1&max_age=10s").unwrap().json();
    assert_eq!(cached["allowed"], true, "{cached}");
    let decided = |sidecar: &Sidecar| devices(sidecar)["agent-1"]["last_decision"]["at"].clone();
    let before = decided(&sidecar);
    until("its gate validates by itself", || (decided(&sidecar) != before).then_some(()));
    first.wrapped.signal(rustix::process::Signal::TERM);
    assert_eq!(first.wrapped.exit_code(), 0);
    until("one agent is left", || (devices(&sidecar)["agent-1"]["agents"] == 1).then_some(()));
    second.wrapped.signal(rustix::process::Signal::TERM);
    assert_eq!(second.wrapped.exit_code(), 0);
    until("its gate is gone", || (!devices(&sidecar).contains_key("agent-1")).then_some(()));
    assert_eq!(org.code("agent-1"), "ALLOW", "and the device stays");
}

#[test]
fn a_device_that_no_pattern_allows_has_no_gate_and_no_agent() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&org, &authority, "200ms");
    let refused = sidecar.wrap(&["--device", "other-1"], &["true"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(77), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("DEVICE_NOT_PERMITTED"));
    assert_eq!(org.code("other-1"), "DEVICE_NOT_FOUND");
    assert!(!devices(&sidecar).contains_key("other-1"));
}

/// Many runs of one process, each with a device of its own. A daemon does not mind whose the process is.
struct Crowd {
    process: Child,
    _streams: Vec<BufReader<UnixStream>>,
}

impl Crowd {
    fn start(sidecar: &Sidecar, count: usize) -> Self {
        let process = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let ask = |number: usize| {
            let device = format!("agent-{number}");
            let body = json!({"pid": process.id(), "run_id": run_id(), "device": device, "containment": "subreaper"});
            let body = body.to_string();
            let mut stream = UnixStream::connect(sidecar.socket()).unwrap();
            let head = format!("POST /v1/supervise HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
            BufReader::new(stream)
        };
        let mut streams: Vec<_> = (0..count).map(ask).collect();
        for stream in &mut streams {
            let line = stream.lines().map(Result::unwrap).find(|line| line.starts_with('{')).unwrap();
            assert!(line.contains("\"event\":\"allow\""), "{line}");
        }
        Self { process, _streams: streams }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Established connections to that port, of any process: whose they are an ordinary user is not told of a process that keeps a
/// secret.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let ours = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (to, state) = (fields.get(2)?, fields.get(3)?);
        (to.ends_with(&remote) && *state == "01").then_some(())
    };
    table.lines().skip(1).filter_map(ours).count()
}

#[test]
fn a_hundred_devices_are_validated_in_time_spread_out_and_over_few_connections() {
    const COUNT: usize = 100;
    /// Pieces that an interval is cut into.
    const PIECES: usize = 10;
    let authority = Authority::start();
    let org = authority.org("max");
    let sidecar = start(&org, &authority, "4s");
    let crowd = Crowd::start(&sidecar, COUNT);
    // A signal has all of them asked about in one moment, and must not make that their rhythm.
    sidecar.signal(rustix::process::Signal::USR1);
    let (most, pieces) =
        until("all are allowed, due within an interval, spread over it and asked about by few connections", || {
            let_time_pass(Duration::from_secs(1));
            let most = (0..20)
                .map(|_| {
                    let_time_pass(Duration::from_millis(50));
                    connections(authority.address().port())
                })
                .max()?;
            let mut pieces = [0; PIECES];
            for device in devices(&sidecar).values() {
                // An interval, and a tenth of it.
                let due = usize::try_from(device["next_validation_ms"].as_u64()?).unwrap() * PIECES / 4_400;
                *pieces.get_mut(due)? += 1;
                (device["standing"] == "allowed").then_some(())?;
            }
            // Even would be 10 in each; clumped, all in one or two.
            (pieces.iter().all(|count| *count <= 40) && most <= COUNT / 4).then_some((most, pieces))
        });
    println!("{COUNT} devices: {most} connections at most; by when they are due: {pieces:?}");
    assert_eq!(sidecar.status()["agents"].as_array().unwrap().len(), COUNT);
    drop(crowd);
    until("the gates go with their agents", || (devices(&sidecar).len() == 1).then_some(()));
}
