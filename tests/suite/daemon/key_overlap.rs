//! A rotation with an overlap: old and new key are valid together, and nothing stops while hosts are given the new one.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::agents::{Agent, OBEDIENT};
use super::reload::put;
use crate::harness::authority::{Authority, Org};
use crate::harness::events::Events;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::{eventually, http};

/// The header of an answer that was given for an old key.
const ENDS: &str = "x-machineid-key-ends";

/// Hosts with four agents each.
fn hosts(org: &Org<'_>, number: usize) -> Vec<(Sidecar, Vec<Agent>)> {
    let host = |number: usize| {
        let sidecar = Setup::of(org, &org.authority.url(), &format!("host:{number}")).start();
        let agents = (0..4).map(|_| Agent::start(&sidecar, &[], OBEDIENT)).collect();
        (sidecar, agents)
    };
    (0..number).map(host).collect()
}

fn rotate(org: &Org<'_>, overlap: &str) -> Value {
    org.admin("rotate-key", &["--overlap", overlap])
}

fn renewed<'a>(org: &Org<'a>, rotated: &Value) -> Org<'a> {
    Org { authority: org.authority, id: org.id.clone(), key: rotated["orgApiKey"].as_str().unwrap().to_owned() }
}

fn on_old_key(org: &Org<'_>) -> u64 {
    org.admin("show", &[])["oldKey"]["devices"].as_u64().unwrap()
}

#[test]
fn no_agent_stops_for_a_rotation_with_an_overlap() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let hosts = hosts(&org, 5);
    let rotated = rotate(&org, "24h");
    let new = renewed(&org, &rotated);
    eventually("every host knows that its key ends", || {
        hosts.iter().all(|(sidecar, _)| sidecar.status()["authority"]["key_ends"] == rotated["oldKeyEnds"])
    });
    eventually("every host is named", || on_old_key(&org) == 5);
    assert_eq!(org.admin("show", &[])["oldKey"]["deviceIds"].as_array().unwrap().len(), 5);
    let (sidecar, _) = &hosts[0];
    let status = String::from_utf8(sidecar.machineid(&["status"]).stdout).unwrap();
    assert!(status.contains("expires at"), "{status}");
    let doctor = String::from_utf8(sidecar.machineid(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("it expires at"), "{doctor}");
    assert_eq!(sidecar.log().matches("the org key in use expires: put the new key").count(), 1, "{}", sidecar.log());
    for (sidecar, _) in &hosts {
        put(&sidecar.key_file(), &format!("{}\n", new.key));
    }
    eventually("every host uses the new key", || on_old_key(&org) == 0);
    eventually("no key ends any more", || {
        hosts.iter().all(|(sidecar, _)| sidecar.status()["authority"]["key_ends"].is_null())
    });
    org.admin("end-old-key", &[]);
    assert_eq!(org.device("validate", "host:0").json()["code"], "INVALID_ORG_KEY");
    for (sidecar, agents) in &hosts {
        assert_eq!(sidecar.check().status, 200, "{}", sidecar.log());
        assert!(agents.iter().all(|agent| agent.is_alive() && agent.terms() == 0), "{}", sidecar.log());
    }
}

#[test]
fn without_an_overlap_agents_stop_unless_the_file_has_the_new_key() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let hosts = hosts(&org, 2);
    let (kept, stopped) = (&hosts[0], &hosts[1]);
    // The one is given its key before it can ask again.
    kept.0.signal(Signal::STOP);
    let new = renewed(&org, &rotate(&org, "0s"));
    put(&kept.0.key_file(), &format!("{}\n", new.key));
    kept.0.signal(Signal::CONT);
    stopped.1.iter().for_each(Agent::is_gone);
    assert_eq!(stopped.0.check().code(), "INVALID_ORG_KEY");
    eventually("the other uses the new key", || on_old_key(&org) <= 1);
    assert_eq!(kept.0.check().status, 200, "{}", kept.0.log());
    assert!(kept.1.iter().all(|agent| agent.is_alive() && agent.terms() == 0), "{}", kept.0.log());
}

#[test]
fn an_overlap_that_ends_ends_for_everything_that_holds_the_old_key() {
    let authority = Authority::start_with(&["--metrics-listen", "127.0.0.1:0"]);
    let org = authority.org("pro");
    let hosts = hosts(&org, 1);
    let (sidecar, agents) = &hosts[0];
    let mut events = Events::open(authority.address(), "GET", "/org/events", &org.key, "");
    assert_eq!(events.next().unwrap().0, "ready");
    let rotated = rotate(&org, "4s");
    let new = renewed(&org, &rotated);
    let ends = rotated["oldKeyEnds"].as_str().unwrap();
    let asked = org.device("validate", "host:0");
    assert_eq!((asked.header(ENDS), asked.json()["allowed"].clone()), (Some(ends), json!(true)));
    assert_eq!(new.device("validate", "host:0").header(ENDS), None);
    // Its watchers look, end, and come again with the key they have.
    while events.next().is_some() {}
    let mut events = Events::open(authority.address(), "GET", "/org/events", &org.key, "");
    assert_eq!(events.next().unwrap().0, "ready");
    let metrics = authority.log();
    let metrics = metrics.split("metrics=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let metrics = metrics.trim_matches('"').parse().unwrap();
    let page = http::request(metrics, "GET", "/metrics", &[], b"").text;
    assert!(page.contains(&format!("machineid_authority_old_key_devices{{org=\"{}\"}}", org.id)), "{page}");
    assert!(page.contains("machineid_authority_old_key_ends_timestamp_seconds{"), "{page}");
    agents.iter().for_each(Agent::is_gone);
    assert_eq!(sidecar.check().code(), "INVALID_ORG_KEY");
    while events.next().is_some() {}
    let over = org.device("validate", "host:0");
    assert_eq!((over.status, over.header(ENDS)), (401, None));
    assert_eq!(org.get("/usage").status, 401);
    assert_eq!(new.get("/usage").status, 200);
    let page = http::request(metrics, "GET", "/metrics", &[], b"").text;
    assert!(!page.contains("machineid_authority_old_key_devices{"), "{page}");
}

#[test]
fn a_second_rotation_within_the_overlap_ends_the_oldest_key_and_says_so_before() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:0").start();
    let second = renewed(&org, &rotate(&org, "24h"));
    eventually("the host is seen with the old key", || on_old_key(&org) == 1);
    let refused = authority.admin(&["rotate-key", &org.id]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("host:0") && said.contains("--yes"), "{said}");
    assert_eq!(sidecar.check().status, 200);
    let rotated = org.admin("rotate-key", &["--yes"]);
    assert_eq!(rotated["olderKeyEnded"], true);
    eventually("the oldest key is no organisation's", || sidecar.check().code() == "INVALID_ORG_KEY");
    let third = renewed(&org, &rotated);
    assert_eq!((org.get("/usage").status, second.get("/usage").status, third.get("/usage").status), (401, 200, 200));
    let listed = Command::new(env!("CARGO_BIN_EXE_machineid"))
        .args(["list"])
        .env_clear()
        .env("MACHINEID_BASE_URL", authority.url())
        .env("MACHINEID_ORG_KEY", &third.key)
        .output()
        .unwrap();
    let (out, said) = (String::from_utf8_lossy(&listed.stdout), String::from_utf8_lossy(&listed.stderr));
    assert!(out.contains("KEY") && out.contains("old"), "{out}");
    assert!(said.contains("last used the old org key, which ends at"), "{said}");
}
