//! A daemon that is started again knows the runs of the one before, and holds them to what was written down.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::json;

use super::agents::{Agent, OBEDIENT, STUBBORN, agents, only_record, record, run_id, stop_of, strangers_question};
use crate::harness::authority::{Authority, Org};
use crate::harness::process::is_alive;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "adopting-host:1";

fn start(authority: &Authority) -> (Org<'_>, Sidecar) {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement = String::from("interval = \"200ms\"\nlease = \"8s\"\nstop_grace = \"3s\"");
    (org, setup.start())
}

fn came_back(sidecar: &Sidecar) {
    until("the wrapper comes back", || sidecar.log().contains("the agent's wrapper reconnected").then_some(()));
}

#[test]
fn an_agent_lives_on_through_a_killed_daemon_and_is_stopped_by_the_next() {
    let authority = Authority::start();
    let (org, mut sidecar) = start(&authority);
    let mut agent = Agent::start(&sidecar, &["--name", "planner"], OBEDIENT);
    let before = agents(&sidecar)[0].clone();
    sidecar.kill();
    sidecar.start_again();
    came_back(&sidecar);
    let after = agents(&sidecar)[0].clone();
    for key in ["run_id", "pid", "name", "command", "device_id", "uid", "state", "containment", "holds_against"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert!(after["uptime_ms"].as_u64() > before["uptime_ms"].as_u64(), "{after}");
    assert!(agent.is_alive() && agent.terms() == 0);
    org.device("revoke", DEVICE);
    assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
    assert_eq!(agent.terms(), 1);
    let stop = until("the stop is remembered", || stop_of(&sidecar, before["run_id"].as_str().unwrap()));
    assert_eq!((&stop["code"], &stop["confirmed"]), (&json!("DEVICE_REVOKED"), &json!(true)), "{stop}");
    until("the record is removed", || only_record(&sidecar).is_none().then_some(()));
}

#[test]
fn the_daemons_own_end_stops_no_agent() {
    let authority = Authority::start();
    let (_org, mut sidecar) = start(&authority);
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    assert_eq!(sidecar.terminate().code(), Some(0));
    assert!(agent.is_alive() && agent.terms() == 0);
    assert!(only_record(&sidecar).is_some_and(|record| record["stop"].is_null()), "it stays written down");
    sidecar.start_again();
    came_back(&sidecar);
    assert_eq!(agents(&sidecar)[0]["pid"], agent.pid);
    agent.wrapped.signal(Signal::TERM);
    assert_eq!(agent.wrapped.exit_code(), 0);
    assert_eq!(agent.terms(), 1);
}

#[test]
fn without_an_authority_the_recorded_deadline_holds_and_no_longer_one() {
    let mut authority = Authority::start();
    let mut sidecar = {
        let org = authority.org("pro");
        let mut setup = Setup::of(&org, &authority.url(), DEVICE);
        setup.enforcement = String::from("interval = \"200ms\"\nlease = \"4s\"\nstop_grace = \"3s\"");
        setup.start()
    };
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    authority.kill();
    until("the daemon is cut off", || (sidecar.status()["devices"][0]["standing"] == "unavailable").then_some(()));
    sidecar.kill();
    let recorded = only_record(&sidecar).unwrap()["leases"][0]["until_boot_ms"].as_u64().unwrap();
    sidecar.start_again();
    came_back(&sidecar);
    let told = only_record(&sidecar).unwrap()["leases"][0]["until_boot_ms"].as_u64().unwrap();
    assert_eq!(told, recorded, "a restart makes no lease longer");
    assert!(agent.is_alive());
    assert_eq!(agent.wrapped.exit_code(), 75, "{}", agent.wrapped.stderr());
    assert!(agent.wrapped.stderr().contains("LEASE_EXPIRED"), "{}", agent.wrapped.stderr());
    assert_eq!(agent.terms(), 1);
}

#[test]
fn a_wrapper_that_does_not_come_back_is_not_waited_for_beyond_the_recorded_deadline() {
    let mut authority = Authority::start();
    let mut sidecar = {
        let org = authority.org("pro");
        let mut setup = Setup::of(&org, &authority.url(), DEVICE);
        setup.enforcement = String::from("interval = \"200ms\"\nlease = \"4s\"\nstop_grace = \"500ms\"");
        setup.start()
    };
    let id = run_id();
    let agent = Agent::start_by_hand(&sidecar, &id, &json!({}), STUBBORN);
    authority.kill();
    sidecar.kill();
    sidecar.start_again();
    assert!(agent.is_alive());
    agent.is_gone();
    let stop = until("the stop is over", || stop_of(&sidecar, &id));
    assert_eq!((&stop["code"], &stop["confirmed"]), (&json!("LEASE_EXPIRED"), &json!(true)), "{stop}");
}

#[test]
fn a_deny_stops_an_adopted_agent_before_its_wrapper_is_back() {
    let authority = Authority::start();
    let (org, mut sidecar) = start(&authority);
    let id = run_id();
    let agent = Agent::start_by_hand(&sidecar, &id, &json!({}), OBEDIENT);
    sidecar.kill();
    org.device("revoke", DEVICE);
    sidecar.start_again();
    agent.is_gone();
    assert_eq!(agent.terms(), 1);
    let stop = until("the stop is over", || stop_of(&sidecar, &id));
    assert_eq!(stop["code"], "DEVICE_REVOKED", "{stop}");
}

#[test]
fn what_a_wrapper_left_that_died_while_the_daemon_was_away_is_stopped() {
    let authority = Authority::start();
    let (_org, mut sidecar) = start(&authority);
    let id = run_id();
    let mut agent = Agent::start_by_hand(&sidecar, &id, &json!({}), OBEDIENT);
    sidecar.kill();
    agent.wrapped.signal(Signal::KILL);
    agent.wrapped.exit_code();
    assert!(agent.is_alive(), "nothing is there to stop it");
    sidecar.start_again();
    agent.is_gone();
    assert_eq!(agent.terms(), 1);
    until("the record is removed", || (!record(&sidecar, &id).exists()).then_some(()));
}

#[test]
fn a_wrapper_that_dies_before_it_comes_back_is_noticed_at_once() {
    let authority = Authority::start();
    let (_org, mut sidecar) = start(&authority);
    let id = run_id();
    let mut agent = Agent::start_by_hand(&sidecar, &id, &json!({}), OBEDIENT);
    sidecar.kill();
    sidecar.start_again();
    assert!(agent.is_alive());
    agent.wrapped.signal(Signal::KILL);
    agent.wrapped.exit_code();
    agent.is_gone();
    assert_eq!(agent.terms(), 1);
}

#[test]
fn a_recorded_stop_goes_on_and_asks_nobody_twice() {
    let authority = Authority::start();
    let (org, mut sidecar) = start(&authority);
    let id = run_id();
    let mut agent = Agent::start_by_hand(&sidecar, &id, &json!({}), STUBBORN);
    org.device("revoke", DEVICE);
    agent.wrapped.line_with("got TERM");
    let kill_at = until("the stop is written down", || only_record(&sidecar)?["stop"]["kill_at_boot_ms"].as_u64());
    sidecar.kill();
    sidecar.start_again();
    assert_eq!(only_record(&sidecar).unwrap()["stop"]["kill_at_boot_ms"], kill_at, "the same end of the grace");
    assert!(agents(&sidecar)[0]["state"] == "stopping" || !agent.is_alive());
    agent.is_gone();
    let stop = until("the stop is over", || stop_of(&sidecar, &id));
    assert_eq!((agent.terms(), &stop["code"]), (1, &json!("DEVICE_REVOKED")), "{stop}");
    assert!(stop["killed"].as_u64() >= Some(1) && stop["took_ms"].as_u64() >= Some(3_000), "{stop}");
}

#[test]
fn a_torn_record_is_left_aside_and_is_no_reason_to_end_anybody() {
    let authority = Authority::start();
    let (org, mut sidecar) = start(&authority);
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    let id = agents(&sidecar)[0]["run_id"].as_str().unwrap().to_owned();
    let file = record(&sidecar, &id);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    sidecar.kill();
    let text = fs::read(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    sidecar.start_again();
    until("its wrapper asks anew", || (agents(&sidecar).len() == 1).then_some(()));
    assert!(agent.is_alive() && agent.terms() == 0);
    assert!(file.with_extension("json.aside").exists(), "{}", sidecar.log());
    assert!(sidecar.log().contains("this is not a record of a run of this daemon"));
    org.device("revoke", DEVICE);
    assert_eq!(agent.wrapped.exit_code(), 77);
    assert_eq!(agent.terms(), 1);
}

#[test]
fn a_record_that_names_a_stranger_ends_nobody() {
    let authority = Authority::start();
    let (org, mut sidecar) = start(&authority);
    let id = run_id();
    let agent = Agent::start_by_hand(&sidecar, &id, &json!({"containment": "subreaper"}), OBEDIENT);
    let stranger = Agent::start(&sidecar, &[], OBEDIENT);
    sidecar.kill();
    agent.wrapped.signal(Signal::KILL);
    // Another process has the number by now: the start time says so.
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(record(&sidecar, &id)).unwrap()).unwrap();
    text["leader"]["pid"] = stranger.pid.into();
    fs::write(record(&sidecar, &id), text.to_string()).unwrap();
    sidecar.start_again();
    until("the record is removed", || (!record(&sidecar, &id).exists()).then_some(()));
    came_back(&sidecar);
    assert!(stranger.is_alive() && stranger.terms() == 0);
    drop(org);
}

#[test]
fn nobody_but_the_recorded_wrapper_takes_a_run_over() {
    let authority = Authority::start();
    let (org, mut sidecar) = start(&authority);
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    let id = agents(&sidecar)[0]["run_id"].clone();
    let refused = |sidecar: &Sidecar| {
        let answer = strangers_question(sidecar, &id);
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"), "{answer:?}");
        assert!(answer.body.contains("in use"), "{answer:?}");
    };
    refused(&sidecar);
    agent.wrapped.signal(Signal::STOP);
    sidecar.kill();
    sidecar.start_again();
    refused(&sidecar);
    assert!(is_alive(agent.pid) && agent.terms() == 0);
    agent.wrapped.signal(Signal::CONT);
    came_back(&sidecar);
    org.device("revoke", DEVICE);
    assert_eq!(agent.wrapped.exit_code(), 77);
}

#[test]
fn runs_that_cannot_be_written_down_are_enforced_all_the_same() {
    let authority = Authority::start();
    let (org, sidecar) = start(&authority);
    // In the place of the directory: not even root can make it again.
    fs::remove_dir(sidecar.directory().join("runtime/runs")).unwrap();
    fs::write(sidecar.directory().join("runtime/runs"), "").unwrap();
    let mut first = Agent::start(&sidecar, &[], OBEDIENT);
    let mut second = Agent::start(&sidecar, &[], OBEDIENT);
    org.device("revoke", DEVICE);
    assert_eq!((first.wrapped.exit_code(), second.wrapped.exit_code()), (77, 77));
    assert_eq!((first.terms(), second.terms()), (1, 1));
    assert_eq!(sidecar.log().matches("cannot record a run").count(), 1, "reported once");
}
