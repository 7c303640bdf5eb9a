//! A stop needs nothing that an agent could use up.

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::json;

use super::agents::{Agent, STUBBORN, has_cgroups, run_id};
use crate::harness::authority::Authority;
use crate::harness::process::is_alive;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "exhausted-host:1";

/// Leaves the daemon no descriptor but those it has.
fn take_descriptors(sidecar: &Sidecar) {
    let pid = Pid::from_raw(i32::try_from(sidecar.pid()).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(0), ..getrlimit(Resource::Nofile) }).unwrap();
}

#[test]
fn a_daemon_without_descriptors_asks_the_leader_and_ends_the_whole_control_group() {
    if !has_cgroups("a control group that the daemon makes") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement = String::from("interval = \"200ms\"\nlease = \"1m\"\nstop_grace = \"500ms\"");
    let sidecar = setup.start();
    let script =
        format!("setsid sh -c 'trap \"\" TERM; echo child ready $$; while :; do sleep 0.1; done' & {STUBBORN}");
    let mut agent = Agent::start_by_hand(&sidecar, &run_id(), &json!({}), &script);
    let child = agent.wrapped.line_with("child ready").rsplit(' ').next().unwrap().parse().unwrap();
    agent.wrapped.watch(&[child]);
    take_descriptors(&sidecar);
    org.device("revoke", DEVICE);
    agent.wrapped.line_with("got TERM");
    agent.is_gone();
    until("the rest is gone", || (!is_alive(child)).then_some(()));
    assert_eq!(agent.terms(), 1);
    assert!(sidecar.log().contains("cannot read the process table of this host"), "{}", sidecar.log());
    // It cannot notice by itself that it may open files again: nothing more is asked of it.
    agent.wrapped.signal(Signal::KILL);
}
