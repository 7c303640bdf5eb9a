//! `machineid revoke --wait`: real sidecars, real agents, some of which cannot answer.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::agents::{Agent, OBEDIENT, STUBBORN};
use crate::harness::authority::{Authority, Org};
use crate::harness::eventually;
use crate::harness::fake_authority::{FakeAuthority, json};
use crate::harness::sidecar::{Setup, Sidecar};

fn machineid(url: &str, key: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_machineid"));
    command.args(arguments).env_clear().env("MACHINEID_BASE_URL", url).env("MACHINEID_ORG_KEY", key);
    command.stdin(Stdio::null());
    command
}

fn run(authority: &Authority, org: &Org<'_>, arguments: &[&str]) -> Output {
    machineid(&authority.url(), &org.key, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn fleet(authority: &Authority, org: &Org<'_>) -> Vec<Value> {
    let page = authority.call("GET", "/org/fleet", Some(&org.key), b"").json();
    page["devices"].as_array().unwrap().clone()
}

/// A sidecar with an agent, both known to the authority.
fn sidecar(authority: &Authority, org: &Org<'_>, device: &str, script: &str) -> (Sidecar, Agent) {
    let mut setup = Setup::of(org, &authority.url(), device);
    "interval = \"1s\"\nlease = \"30s\"\nstop_grace = \"1s\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let agent = Agent::start(&sidecar, &[], script);
    (sidecar, agent)
}

fn all_reported(authority: &Authority, org: &Org<'_>, number: usize) {
    eventually("every sidecar has told of its agent", || {
        let told = fleet(authority, org);
        told.iter().filter(|device| device["sidecars"][0]["agents"] == 1).count() == number
    });
}

#[test]
fn a_stop_is_confirmed_when_the_last_process_is_gone_and_not_before() {
    let authority = Authority::start();
    let org = authority.org("free");
    let (_sidecar, mut agent) = sidecar(&authority, &org, "host:1", STUBBORN);
    all_reported(&authority, &org, 1);
    let output = run(&authority, &org, &["revoke", "host:1", "--wait", "--reason", "it deletes the wrong files"]);
    assert!(!agent.is_alive(), "an agent that ignores SIGTERM is gone when the wait is over");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("nothing runs any more on 1 device, known after "), "{output:?}");
    assert_eq!(agent.wrapped.exit_code(), 77);
    let said = agent.wrapped.stderr();
    assert!(said.contains("The device is revoked: it deletes the wrong files"), "{said}");
    let stops = authority.call("GET", "/org/stops?deviceId=host:1", Some(&org.key), b"").json();
    assert_eq!((&stops["stops"][0]["confirmed"], &stops["stops"][0]["code"]), (&true.into(), &"DEVICE_REVOKED".into()));
}

#[test]
fn the_stop_of_an_agent_with_a_device_of_its_own_is_confirmed_though_nobody_uses_that_device_any_more() {
    let authority = Authority::start();
    let org = authority.org("free");
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    "allow = [\"agent:*\"]".clone_into(&mut setup.devices);
    "interval = \"1s\"\nlease = \"30s\"\nstop_grace = \"1s\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let mut agents = ["agent:1", "agent:2"].map(|id| Agent::start(&sidecar, &["--device", id], OBEDIENT));
    eventually("both agents are told of", || {
        let told = fleet(&authority, &org);
        let runs = |device: &&Value| device["sidecars"][0]["agents"] == 1;
        told.iter().filter(runs).count() == 2
    });
    let output = run(&authority, &org, &["revoke", "agent:1", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("nothing runs any more on 1 device,"), "{output:?}");
    assert!(!agents[0].is_alive() && agents[1].is_alive());
    assert_eq!(agents[0].wrapped.exit_code(), 77);
    // Said of this revoke only.
    org.device("unrevoke", "agent:1");
    org.device("revoke", "agent:1");
    let told = fleet(&authority, &org);
    assert_eq!(told[0]["sidecars"][0]["stop"]["state"], "pending", "{told:#?}");
}

#[test]
fn of_a_fleet_those_that_cannot_answer_are_named_with_the_time_at_which_their_lease_ends_them() {
    let authority = Authority::start();
    let org = authority.org("scale");
    let fleet_size = 8;
    let all: Vec<_> = (0..fleet_size).map(|n| sidecar(&authority, &org, &format!("host:{n}"), OBEDIENT)).collect();
    org.device("register", "never:used");
    all_reported(&authority, &org, fleet_size);
    for stopped in [2, 5] {
        all[stopped].0.signal(Signal::STOP);
    }
    let output = run(&authority, &org, &["revoke", "--all-active", "--yes", "--wait", "--json"]);
    for stopped in [2, 5] {
        all[stopped].0.signal(Signal::CONT);
    }
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["revokedCount"], fleet_size + 1);
    let wait = &told["wait"];
    assert_eq!((&wait["stopped"], &wait["unused"]), (&6.into(), &1.into()), "{wait}");
    let named: Vec<&str> =
        wait["notConfirmed"].as_array().unwrap().iter().map(|one| one["deviceId"].as_str().unwrap()).collect();
    assert_eq!(named, ["host:2", "host:5"], "{wait}");
    for one in wait["notConfirmed"].as_array().unwrap() {
        assert_eq!(one["state"], "not_heard_from");
        let stop = &one["sidecars"][0]["stop"];
        // lease + grace + 1 s from the revoke, of which the wait has taken some.
        let left = stop["inMs"].as_u64().unwrap();
        assert!((10_000..32_000).contains(&left), "{stop}");
        assert!(stop["by"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{stop}");
    }
    for (n, (_, agent)) in all.iter().enumerate().filter(|(n, _)| ![2, 5].contains(n)) {
        assert!(!agent.is_alive(), "host:{n} was confirmed");
    }
}

#[test]
fn an_authority_that_dies_meanwhile_is_waited_for_and_the_stops_are_found_confirmed() {
    let mut authority = Authority::start();
    let made = authority.admin_json(&["create", "--plan", "pro"]);
    let key = made["orgApiKey"].as_str().unwrap().to_owned();
    let mut setup = Setup::new(&authority.url(), &key, "host:1");
    "interval = \"1s\"\nlease = \"30s\"\nstop_grace = \"4s\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let agent = Agent::start(&sidecar, &[], STUBBORN);
    let stopping = || sidecar.status()["agents"][0]["state"] == "stopping";
    let waiting = machineid(&authority.url(), &key, &["revoke", "host:1", "--wait=1m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the stop has begun", stopping);
    authority.kill();
    eventually("the agent is gone without the authority", || !agent.is_alive());
    authority.start_again();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("nothing runs any more on 1 device"), "{output:?}");
}

#[test]
fn an_authority_that_stays_dead_is_told_and_is_no_success() {
    let mut authority = Authority::start();
    let key = authority.org("free").key;
    let mut setup = Setup::new(&authority.url(), &key, "host:1");
    "interval = \"1s\"\nlease = \"30s\"\nstop_grace = \"3s\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let _agent = Agent::start(&sidecar, &[], STUBBORN);
    let waiting = machineid(&authority.url(), &key, &["revoke", "host:1", "--wait=3s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the stop has begun", || sidecar.status()["agents"][0]["state"] == "stopping");
    authority.kill();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("the revoke is done, but it cannot be followed") && said.contains("connect"), "{said}");
}

#[test]
fn where_nothing_is_reported_only_the_bound_is_told() {
    let fake = FakeAuthority::start(|path, stream| {
        use std::io::Write;
        let answer = if path.starts_with("/api/v1/org/") {
            "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: 9\r\n\r\n<h1>no</h1".to_owned()
        } else {
            json("", r#"{"status":"ok","deviceId":"a"}"#)
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    let output = machineid(&fake.url(), "org_x", &["revoke", "a", "--wait"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(75), "a  revoked\n"));
    let said = text(&output.stderr);
    assert!(said.contains("within 18s of the revoke") && said.contains("cut off within 41s"), "{said}");
}

#[test]
fn a_device_that_something_else_asks_about_is_not_called_stopped() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.device("register", "sdk:1");
    org.device("validate", "sdk:1");
    eventually("the validation is noted", || fleet(&authority, &org)[0]["lastSeenAt"].is_string());
    let output = run(&authority, &org, &["revoke", "sdk:1", "--wait=5s"]);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(text(&output.stdout).contains("no sidecar reports about it"), "{output:?}");
}

#[test]
fn a_device_that_was_allowed_a_moment_ago_is_not_called_unused() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.device("register", "sdk:1");
    assert_eq!(org.code("sdk:1"), "ALLOW");
    let output = run(&authority, &org, &["revoke", "sdk:1", "--wait=1s"]);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(text(&output.stdout).contains("no sidecar has reported about it yet"), "{output:?}");
    let output = run(&authority, &org, &["revoke", "sdk:1", "--wait"]);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(text(&output.stdout).contains("no sidecar reports about it, asked "), "{output:?}");
}

#[test]
fn the_wait_lasts_no_longer_than_it_is_told() {
    let authority = Authority::start();
    let org = authority.org("free");
    let (sidecar, _agent) = sidecar(&authority, &org, "host:1", OBEDIENT);
    all_reported(&authority, &org, 1);
    sidecar.signal(Signal::STOP);
    let began = crate::harness::wait::clock();
    let output = run(&authority, &org, &["revoke", "host:1", "--wait=1s"]);
    let took = began.elapsed();
    sidecar.signal(Signal::CONT);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(took >= Duration::from_secs(1), "{took:?}");
    let said = text(&output.stdout);
    assert!(said.contains("not heard from for") && said.contains("by ") && said.contains(" UTC (in "), "{said}");
}

/// How often the fleet was asked for, by the authority's own count.
fn fleet_requests(metrics: std::net::SocketAddr) -> u64 {
    let text = crate::harness::http::request(metrics, "GET", "/metrics", &[], b"").text;
    let line = r#"machineid_authority_requests_total{endpoint="org/fleet",status="2xx"} "#;
    text.lines().find_map(|text| text.strip_prefix(line)).map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_wait_follows_what_the_authority_tells_and_does_not_ask_for_the_fleet_all_the_time() {
    let authority = Authority::start_with(&["--metrics-listen", "127.0.0.1:0"]);
    let metrics = authority.metrics();
    let org = authority.org("scale");
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    "interval = \"1s\"\nlease = \"30s\"\nstop_grace = \"5s\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let mut agent = Agent::start(&sidecar, &[], STUBBORN);
    all_reported(&authority, &org, 1);
    let before = fleet_requests(metrics);
    let output = run(&authority, &org, &["revoke", "host:1", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!agent.is_alive() && agent.wrapped.exit_code() == 77);
    let asked = fleet_requests(metrics) - before;
    // At the beginning, at each of the few changes, and at the end; every 300 ms would be 17 and more.
    assert!(asked <= 10, "{asked}");
}

#[test]
fn where_nothing_is_told_of_changes_a_wait_asks_about_its_own_devices_until_it_knows() {
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let asked = AtomicUsize::new(0);
    let fake = FakeAuthority::start(move |path, stream| {
        let extensions = "x-machineid-extensions: watch, report\r\n";
        let answer = if path.starts_with("/api/v1/org/fleet") {
            let (state, agents) =
                if asked.fetch_add(1, Ordering::Relaxed) < 2 { ("stopping", 1) } else { ("confirmed", 0) };
            let sidecar = serde_json::json!({
                "sidecarId": "00000000000000000000000000000001", "hostDeviceId": "a", "version": "1", "push": false,
                "heardAt": "2026-01-01T00:00:00Z", "heardAgoMs": 5, "standing": "denied", "agents": 0,
                "stopping": agents, "stopBound": {"connectedMs": 19_500, "cutOffMs": 41_000},
                "stop": {"state": state, "by": "2026-01-01T00:00:41Z", "inMs": 41_000},
            });
            let device = serde_json::json!({
                "deviceId": "a", "status": "revoked", "lastSeenAt": "2026-01-01T00:00:00Z", "lastSeenAgoMs": 5,
                "revokedAt": "2026-01-01T00:00:00Z", "sidecars": [sidecar],
            });
            let other = serde_json::json!({"deviceId": "b", "status": "active", "sidecars": []});
            let page = serde_json::json!({"devices": [device, other], "nextCursor": null, "sidecars": 1, "agents": 1});
            json(extensions, &page.to_string())
        } else if path == "/api/v1/org/events" {
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()
        } else {
            json(extensions, r#"{"status":"ok","deviceId":"a"}"#)
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    let output = machineid(&fake.url(), "org_x", &["revoke", "a", "--wait"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("nothing runs any more on 1 device,"), "{output:?}");
    let fleet: Vec<String> = fake.paths().into_iter().filter(|path| path.contains("/org/fleet")).collect();
    assert_eq!(fleet, ["/api/v1/org/fleet?deviceId=a"], "nothing else of the fleet was asked for");
    assert!(fake.count("/api/v1/org/events") >= 1, "it was tried to be told of changes");
}

#[test]
fn a_device_that_another_sidecar_began_to_use_a_moment_ago_is_not_called_stopped_before_that_one_has() {
    let authority = Authority::start();
    let org = authority.org("free");
    let (_first, _agent) = sidecar(&authority, &org, "workload:1", OBEDIENT);
    all_reported(&authority, &org, 1);
    // Validated, and no report of it is in: as a replica that starts now.
    assert_eq!(org.code("workload:1"), "ALLOW");
    let began = crate::harness::wait::clock();
    let output = run(&authority, &org, &["revoke", "workload:1", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "a first report may be under way: {output:?}");
}

#[test]
fn no_lease_is_called_over_while_the_validation_that_began_it_may_not_be_written_down() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.device("register", "host:1");
    // It fell silent long ago, as far as was reported, with a bound of next to nothing.
    let report = serde_json::json!({
        "sidecarId": "00000000000000000000000000000001", "sequence": 1, "version": "1", "hostDeviceId": "host:1",
        "push": false, "agents": 0, "stopBound": {"connectedMs": 1, "cutOffMs": 1},
        "devices": [{"deviceId": "host:1", "standing": "unavailable", "agents": 0, "stopping": 0}],
        "stops": [], "events": [],
    });
    assert_eq!(org.post("/devices/report", &report).status, 200);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(org.code("host:1"), "ALLOW");
    org.device("revoke", "host:1");
    let told = fleet(&authority, &org);
    let by: jiff::Timestamp = told[0]["sidecars"][0]["stop"]["by"].as_str().unwrap().parse().unwrap();
    let revoked: jiff::Timestamp = told[0]["revokedAt"].as_str().unwrap().parse().unwrap();
    assert!(by > revoked, "the ALLOW of a moment before the revoke counts, written down or not: {told:#?}");
}
