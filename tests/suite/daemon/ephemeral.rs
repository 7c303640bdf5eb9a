//! `device.ephemeral`: what comes and goes leaves nothing behind, but for what was stopped.

use rustix::process::Signal;
use serde_json::json;

use super::agents::{Agent, OBEDIENT};
use crate::harness::authority::{Authority, Org};
use crate::harness::eventually;
use crate::harness::sidecar::{Setup, Sidecar};

fn ephemeral(org: &Org<'_>, device: &str) -> Sidecar {
    let mut setup = Setup::of(org, &org.authority.url(), device);
    "ephemeral = true".clone_into(&mut setup.devices);
    setup.start()
}

#[test]
fn a_clean_exit_removes_the_device_and_the_next_start_registers_it() {
    let authority = Authority::start();
    let org = authority.org("free");
    let mut sidecar = ephemeral(&org, "pod:1");
    assert_eq!(org.get("/devices/list").json()["devices"][0]["ephemeral"], true);
    assert!(sidecar.terminate().success());
    assert_eq!(org.code("pod:1"), "DEVICE_NOT_FOUND", "{}", sidecar.log());
    sidecar.start_again();
    eventually("it is known again", || org.code("pod:1") == "ALLOW");
}

#[test]
fn a_revoked_device_stays_revoked_through_a_clean_exit_and_the_next_start() {
    let authority = Authority::start();
    let org = authority.org("free");
    let mut sidecar = ephemeral(&org, "pod:1");
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    org.device("revoke", "pod:1");
    agent.is_gone();
    eventually("the stop is told", || {
        let stops = org.get("/org/stops?deviceId=pod%3A1").json();
        !stops["stops"].as_array().unwrap().is_empty()
    });
    assert!(sidecar.terminate().success());
    assert_eq!(org.code("pod:1"), "DEVICE_REVOKED", "{}", sidecar.log());
    sidecar.start_again();
    eventually("it has asked again", || sidecar.check().code() == "DEVICE_REVOKED");
    let stops = org.get("/org/stops?deviceId=pod%3A1").json();
    assert_eq!(stops["stops"].as_array().unwrap().len(), 1, "{stops}");
}

#[test]
fn a_device_that_was_revoked_this_moment_stays_whatever_its_sidecar_knew() {
    let authority = Authority::start();
    let org = authority.org("free");
    let mut sidecar = ephemeral(&org, "pod:1");
    // It hears of the revoke and of its end at once, in whatever order.
    sidecar.signal(Signal::STOP);
    org.device("revoke", "pod:1");
    sidecar.signal(Signal::TERM);
    sidecar.signal(Signal::CONT);
    assert!(sidecar.terminate().success());
    assert_eq!(org.code("pod:1"), "DEVICE_REVOKED", "{}", sidecar.log());
}

#[test]
fn the_authority_refuses_to_remove_a_revoked_device_for_a_sidecar_and_not_for_an_operator() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    org.device("revoke", "a");
    let refused = org.post("/devices/remove", &json!({"deviceId": "a", "ifActive": true}));
    let body = refused.json();
    assert_eq!((refused.status, &body["status"], &body["error"]), (403, &json!("revoked"), &json!("device_revoked")));
    assert_eq!(org.code("a"), "DEVICE_REVOKED");
    assert_eq!(org.post("/devices/remove", &json!({"deviceId": "a", "ifActive": "yes"})).status, 400);
    assert_eq!(org.device("remove", "a").status, 200);
    assert_eq!(org.code("a"), "DEVICE_NOT_FOUND");
}

#[test]
fn pods_that_were_killed_age_out_and_neither_living_nor_revoked_nor_other_devices_do() {
    let authority = Authority::start_with(&["--ephemeral-after", "3s"]);
    let org = authority.org("pro");
    let mut killed = ephemeral(&org, "pod:killed");
    let living = ephemeral(&org, "pod:living");
    let agent = Agent::start(&living, &[], OBEDIENT);
    let mut revoked = ephemeral(&org, "pod:revoked");
    org.device("revoke", "pod:revoked");
    org.register(&["host:1"]);
    for number in 0..10 {
        let evicted = json!({"deviceId": format!("pod:{number}"), "ephemeral": true});
        assert_eq!(org.post("/devices/register", &evicted).status, 200);
    }
    killed.kill();
    revoked.kill();
    eventually("those that are gone have aged out", || org.get("/usage").json()["devicesUsed"] == 2);
    let listed = org.get("/devices/list").json();
    let ids: Vec<&str> =
        listed["devices"].as_array().unwrap().iter().map(|device| device["deviceId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["host:1", "pod:living", "pod:revoked"]);
    assert!(agent.is_alive() && agent.terms() == 0);
    let audit = org.get("/org/audit").json();
    let aged: Vec<_> =
        audit["entries"].as_array().unwrap().iter().filter(|entry| entry["verb"] == "devices/age_out").collect();
    assert!(!aged.is_empty() && aged.iter().all(|entry| entry["actor"] == "server"), "{audit}");
    // Twenty-five places again, and again.
    for round in 0..2 {
        for number in 0..20 {
            let evicted = json!({"deviceId": format!("pod:{round}-{number}"), "ephemeral": true});
            assert_eq!(org.post("/devices/register", &evicted).status, 200, "{round} {number}");
        }
        eventually("their places are free", || org.get("/usage").json()["devicesUsed"] == 2);
    }
}
