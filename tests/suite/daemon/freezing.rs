//! `enforcement.undecided = "freeze"`: agents whose device cannot be asked about stand still until there is an answer.

use serde_json::{Value, json};
use std::fs;

use super::agents::{
    Agent, NOBODY, OBEDIENT, agents, cgroup_of, has_cgroups, open_to_all, post, post_as, run_id, stop_of,
};
use crate::harness::authority::Authority;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "freezing-host:1";

fn start(authority: &Authority, lease: &str) -> Sidecar {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.authority = setup.authority.replace("2s", "1s");
    setup.enforcement =
        format!("interval = \"200ms\"\nlease = \"{lease}\"\nstop_grace = \"2s\"\nundecided = \"freeze\"");
    open_to_all(&mut setup);
    setup.start()
}

fn frozen(sidecar: &Sidecar, agent: &Agent) -> bool {
    let shown = agents(sidecar)[0]["frozen"] == true;
    let events = fs::read_to_string(cgroup_of(agent.pid).join("cgroup.events")).unwrap_or_default();
    shown && events.contains("frozen 1")
}

pub(super) fn becomes_frozen(sidecar: &Sidecar, agent: &Agent) {
    until("the agent is frozen", || frozen(sidecar, agent).then_some(()));
}

pub(super) fn becomes_thawed(sidecar: &Sidecar, agent: &Agent) {
    until("the agent is thawed", || {
        let events = fs::read_to_string(cgroup_of(agent.pid).join("cgroup.events")).unwrap();
        (agents(sidecar)[0]["frozen"] == false && events.contains("frozen 0")).then_some(())
    });
}

fn id_of(sidecar: &Sidecar) -> Value {
    agents(sidecar)[0]["run_id"].clone()
}

#[test]
fn an_agent_stands_still_while_its_device_is_undecided_and_goes_on_after() {
    if !has_cgroups("freezing") {
        return;
    }
    let mut authority = Authority::start();
    let mut sidecar = start(&authority, "1m");
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    authority.kill();
    becomes_frozen(&sidecar, &agent);
    authority.start_again();
    becomes_thawed(&sidecar, &agent);
    authority.kill();
    becomes_frozen(&sidecar, &agent);
    sidecar.kill();
    sidecar.start_again();
    until("the agent is adopted as it is", || frozen(&sidecar, &agent).then_some(()));
    authority.start_again();
    becomes_thawed(&sidecar, &agent);
    assert!(agent.is_alive() && agent.terms() == 0);
}

#[test]
fn a_daemon_that_is_to_freeze_nobody_any_more_thaws_what_it_finds() {
    if !has_cgroups("freezing") {
        return;
    }
    let mut authority = Authority::start();
    let mut sidecar = start(&authority, "1m");
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    authority.kill();
    becomes_frozen(&sidecar, &agent);
    assert_eq!(sidecar.terminate().code(), Some(0));
    let run_on = sidecar.setup().enforcement.replace("freeze", "run");
    sidecar.setup().enforcement = run_on;
    sidecar.start_again();
    becomes_thawed(&sidecar, &agent);
    assert!(agent.is_alive() && agent.terms() == 0);
}

#[test]
fn a_frozen_agent_gets_its_stop_signal_and_acts_on_it() {
    if !has_cgroups("freezing") {
        return;
    }
    let mut authority = Authority::start();
    let sidecar = start(&authority, "1m");
    let id = run_id();
    let agent = Agent::start_by_hand(&sidecar, &id, &json!({}), OBEDIENT);
    authority.kill();
    becomes_frozen(&sidecar, &agent);
    assert_eq!(post(&sidecar.socket(), "/v1/stop", &json!({"run_id": id})).status, 200);
    agent.is_gone();
    assert_eq!(agent.terms(), 1);
    let stop = until("the stop is over", || stop_of(&sidecar, &id));
    assert_eq!((&stop["code"], &stop["killed"]), (&json!("LOCAL_STOP"), &json!(0)), "{stop}");
}

#[test]
fn the_lease_of_a_frozen_agent_ends_as_any_other() {
    if !has_cgroups("freezing") {
        return;
    }
    let mut authority = Authority::start();
    let sidecar = start(&authority, "3s");
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    authority.kill();
    becomes_frozen(&sidecar, &agent);
    assert_eq!(agent.wrapped.exit_code(), 75, "{}", agent.wrapped.stderr());
    assert_eq!(agent.terms(), 1);
}

#[test]
fn who_may_thaw_thaws_until_the_device_becomes_undecided_anew() {
    if !has_cgroups("freezing") {
        return;
    }
    let mut authority = Authority::start();
    let sidecar = start(&authority, "1m");
    let agent = Agent::start_as(NOBODY, &sidecar, &[], OBEDIENT);
    authority.kill();
    becomes_frozen(&sidecar, &agent);
    let path = format!("/v1/thaw?run_id={}", id_of(&sidecar).as_str().unwrap());
    let (status, answer) = post_as(NOBODY, &[], &sidecar.socket(), &path, &json!({}));
    assert_eq!((status, answer["allowed"].as_bool()), (404, Some(false)), "another process of its user: {answer}");
    assert!(frozen(&sidecar, &agent));
    let answer = post(&sidecar.socket(), &path, &json!({}));
    assert_eq!((answer.status, &answer.json()["was_frozen"]), (200, &json!(true)), "{answer:?}");
    becomes_thawed(&sidecar, &agent);
    authority.start_again();
    until("the device is allowed", || (sidecar.status()["devices"][0]["standing"] == "allowed").then_some(()));
    authority.kill();
    becomes_frozen(&sidecar, &agent);
}

#[test]
fn an_agent_that_could_not_be_frozen_does_not_start() {
    let authority = Authority::start();
    let sidecar = start(&authority, "1m");
    let mut refused = Wrapped::start(sidecar.wrap(&["--containment", "subreaper"], &["true"]));
    assert_eq!(refused.exit_code(), 125, "{}", refused.stderr());
    assert!(refused.stderr().contains("enforcement.undecided"), "{}", refused.stderr());
}
