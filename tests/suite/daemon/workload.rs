//! `device.workload`: the device that all replicas share. One revoke stops them all, and denies what replaces them.

use super::agents::{Agent, OBEDIENT};
use crate::harness::authority::{Authority, Org};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::{eventually, wait::until};

const WORKLOAD: &str = "k8s:prod/deployment/agent";

fn replica(org: &Org<'_>, pod: &str) -> Sidecar {
    let mut setup = Setup::of(org, &org.authority.url(), &format!("k8s:prod/{pod}"));
    "ephemeral = true\nworkload = \"k8s:prod/{env:WORKLOAD}\"".clone_into(&mut setup.devices);
    setup.variables.push(("WORKLOAD", "deployment/agent".to_owned()));
    setup.start()
}

fn standing(sidecar: &Sidecar, device: &str) -> String {
    let status = sidecar.status();
    let devices = status["devices"].as_array().unwrap();
    let found = devices.iter().find(|one| one["device_id"] == device).unwrap_or_else(|| panic!("{status}"));
    found["standing"].as_str().unwrap().to_owned()
}

#[test]
fn one_revoke_of_the_workload_stops_every_replica_and_its_replacement_waits_without_ending() {
    let authority = Authority::start();
    let org = authority.org("free");
    let (mut one, two) = (replica(&org, "agent-1"), replica(&org, "agent-2"));
    let mut agents = [Agent::start(&one, &[], OBEDIENT), Agent::start(&two, &[], OBEDIENT)];
    assert_eq!(one.check().code(), "ALLOW");
    assert!(String::from_utf8_lossy(&one.machineid(&["status"]).stdout).contains("agent (workload)"));

    org.device("revoke", WORKLOAD);
    for agent in &mut agents {
        assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
        agent.is_gone();
    }
    assert_eq!((standing(&one, "k8s:prod/agent-1"), standing(&one, WORKLOAD)), ("allowed".into(), "denied".into()));
    let check = one.check();
    assert_eq!((check.status, check.code()), (403, "DEVICE_REVOKED".to_owned()));
    for pod in ["agent-1", "agent-2"] {
        eventually("its stop is told", || {
            let stops = org.get(&format!("/org/stops?deviceId=k8s%3Aprod%2F{pod}")).json();
            stops["stops"].as_array().is_some_and(|stops| stops.len() == 1)
        });
    }

    // A replaced pod has a device of its own that is new and allowed. Its workload is not.
    assert!(one.terminate().success());
    assert_eq!(org.code("k8s:prod/agent-1"), "DEVICE_NOT_FOUND", "{}", one.log());
    assert_eq!(org.code(WORKLOAD), "DEVICE_REVOKED", "a replica does not remove what all share");
    let fresh = replica(&org, "agent-3");
    let mut waiting = Wrapped::start(fresh.wrap(&["--wait"], &["sh", "-c", "echo agent ready $$; sleep 60"]));
    until("it was refused", || waiting.stderr().contains("DEVICE_REVOKED").then_some(()));
    assert!(!waiting.has_ended(), "a container that waits is not restarted again and again");
    org.device("unrevoke", WORKLOAD);
    waiting.line_with("agent ready");
    org.device("revoke", "k8s:prod/agent-3");
    assert_eq!(waiting.exit_code(), 77, "its own device stops it as before: {}", waiting.stderr());
}

#[test]
fn a_daemon_is_ready_when_it_knows_about_both_devices_and_its_probe_says_so() {
    let authority = Authority::start();
    let org = authority.org("free");
    let mut setup = Setup::of(&org, "http://127.0.0.1:9", "k8s:prod/agent-1");
    setup.devices = format!("workload = \"{WORKLOAD}\"");
    let probe = |sidecar: &Sidecar, flags: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::sidecar::BINARY);
        crate::harness::sidecar::clean_environment(&mut command, sidecar.directory());
        command.arg("healthcheck").args(flags).arg("--config").arg(sidecar.directory().join("machineid-sidecar.toml"));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut sidecar = setup.start_unready();
    assert_eq!(probe(&sidecar, &[]).0, Some(0));
    let (code, why) = probe(&sidecar, &["--ready"]);
    assert_eq!(code, Some(1));
    assert!(why.contains("503") && why.contains("no decision yet"), "{why}");
    sidecar.kill();
    org.register(&[WORKLOAD]);
    org.device("revoke", WORKLOAD);
    sidecar.setup().authority = format!("url = \"{}\"\ntimeout = \"2s\"", authority.url());
    sidecar.start_again();
    until("a deny makes it ready", || (probe(&sidecar, &["--ready"]).0 == Some(0)).then_some(()));
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED");
}

#[test]
fn a_workload_that_is_the_device_itself_or_has_no_value_is_refused() {
    let authority = Authority::start();
    let org = authority.org("free");
    for (workload, needle) in [("host:a", "device.id as well"), ("k8s:{env:NOT_SET_HERE}", "NOT_SET_HERE")] {
        let mut setup = Setup::of(&org, &authority.url(), "host:a");
        setup.devices = format!("workload = \"{workload}\"");
        for flags in [&["--check-config"][..], &[]] {
            let output = setup.command().args(flags).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains("device.workload") && said.contains(needle), "{said}");
        }
    }
}
