//! What a user who may only open the local socket can do to the plan.

use std::process::{Command, Output};

use crate::daemon::agents::{Agent, OBEDIENT, as_user, ask_by, is_root, open_to_all};
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, Sidecar, exchange};

#[test]
fn a_check_registers_nothing_however_many_names_it_has_and_a_start_registers_its_own() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    setup.devices = "allow = [\"agent:*\"]".to_owned();
    let sidecar = setup.start();
    for number in 0..40 {
        let answer = sidecar.get(&format!("/v1/check?device=agent:{number}")).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (403, "DEVICE_NOT_FOUND"), "{number}");
        let body = format!("{{\"deviceId\":\"agent:{number}\"}}");
        let head = format!("POST /api/v1/devices/register HTTP/1.0\r\nHost: h\r\ncontent-length: {}", body.len());
        assert_ne!(exchange(&sidecar.socket(), &format!("{head}\r\n\r\n{body}")).unwrap().status, 200);
    }
    assert_eq!(org.get("/usage").json()["devicesUsed"], 1, "the host");
    let agent = Agent::start(&sidecar, &["--device", "agent:7"], OBEDIENT);
    assert_eq!(org.get("/usage").json()["devicesUsed"], 2);
    assert_eq!(sidecar.get("/v1/check?device=agent:7").unwrap().status, 200);
    assert!(agent.is_alive());
}

const USER: u32 = 54_341;
const OTHER: u32 = 54_342;

/// Starts an agent of this user that ends at once.
fn start(sidecar: &Sidecar, uid: u32, device: &str) -> Output {
    as_user(uid, &sidecar.wrap(&["--device", device], &["true"])).output().unwrap()
}

#[test]
fn a_user_registers_new_devices_within_a_budget_and_known_ones_cost_nothing() {
    if !is_root("agents of two users") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["agent:known:1", "agent:known:2", "agent:known:3"]);
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    open_to_all(&mut setup);
    setup.devices = "allow = [\"agent:*\"]\nnew_per_hour = 2".to_owned();
    let sidecar = setup.start();
    let new = |uid, number: u32| start(&sidecar, uid, &format!("agent:{number}"));
    assert!(new(USER, 1).status.success() && new(USER, 2).status.success());
    for number in 3..6 {
        let refused = new(USER, number);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("REGISTRATION_LIMITED"), "{number}: {said}");
        assert!(said.contains("device.new_per_hour = 2") && said.contains("try again in"), "{said}");
    }
    assert_eq!(org.get("/usage").json()["devicesUsed"], 6, "the host, the known ones, and two");
    // What it or the authority has already costs nothing, and others have budgets of their own.
    for device in ["agent:1", "agent:2", "agent:known:1", "agent:known:2", "agent:known:3"] {
        let answer = start(&sidecar, USER, device);
        assert!(answer.status.success(), "{device}: {}", String::from_utf8_lossy(&answer.stderr));
    }
    assert!(new(OTHER, 6).status.success());
    assert!(Agent::start(&sidecar, &["--device", "agent:7"], OBEDIENT).is_alive(), "root has no budget");
    let metrics = sidecar.get("/metrics").unwrap().body;
    assert!(metrics.contains("reason=\"registration_limited\"} 3"), "{metrics}");
}

#[test]
fn a_pattern_with_a_uid_lets_each_user_name_devices_of_its_own() {
    if !is_root("agents of two users") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    open_to_all(&mut setup);
    setup.devices = "allow = [\"agent:{uid}:*\"]".to_owned();
    let sidecar = setup.start();
    assert!(start(&sidecar, USER, &format!("agent:{USER}:a")).status.success());
    let refused = start(&sidecar, OTHER, &format!("agent:{USER}:a"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("DEVICE_NOT_PERMITTED"));
    let check = |uid, device: &str| {
        let request = format!("GET /v1/check?device={device} HTTP/1.0\r\n\r\n");
        ask_by(|client: &Command| as_user(uid, client), &[], &sidecar.socket(), &request).1["code"].clone()
    };
    assert_eq!(check(USER, &format!("agent:{USER}:a")), "ALLOW");
    assert_eq!(check(OTHER, &format!("agent:{USER}:a")), "DEVICE_NOT_PERMITTED");
    assert_eq!(check(OTHER, &format!("agent:{OTHER}:a")), "DEVICE_NOT_FOUND");
}
