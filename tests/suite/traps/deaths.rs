//! The deaths of wrapper and daemon: traps 21, 22, 24, 26 and 27. The others are in the matrix and in `end_to_end`.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::census::{end_those_with, with_marks};
use super::matrix::Ender;
use crate::harness::authority::Authority;
use crate::harness::place::{can_make_cgroups, cgroup_of, is_root, own_cgroup, remove_cgroup, skipped};
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::Setup;
use crate::harness::wrapper::unique_sleep;
use crate::harness::{eventually, let_time_pass};

const DEVICE: &str = "host:traps";

#[test]
fn the_entrypoints_command_outlives_the_threads_that_started_it() {
    // Idle threads of an async runtime end after ten seconds, and a parent-death signal would fire with them.
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), DEVICE);
    let mut command = setup.command();
    command.args(["--", "sh", "-c", "sleep 12; exit 7"]);
    assert_eq!(Wrapped::start(command).exit_code(), 7);
}

#[test]
fn a_wrapper_killed_at_any_moment_of_its_start_leaves_nothing() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    "interval = \"200ms\"\nlease = \"1m\"\nstop_grace = \"100ms\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let marks: Vec<String> = (0..60).map(|_| unique_sleep().to_string()).collect();
    let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
    for (number, mark) in marks.iter().enumerate() {
        let _ender = Ender((*mark).to_owned());
        let script = format!("trap '' TERM; setsid sleep {mark} & exec sleep {mark}");
        let wrapped = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", &script]));
        // From before its first instruction to after the agent's.
        let_time_pass(Duration::from_micros(500 * u64::try_from(number).unwrap()));
        wrapped.signal(Signal::KILL);
        drop(wrapped);
        eventually("no process is left", || with_marks(&[mark]).is_empty());
    }
    eventually("the daemon has forgotten all", || sidecar.status()["agents"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn a_signal_to_the_wrapper_that_ends_its_command_ends_what_the_command_started() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    "interval = \"200ms\"\nlease = \"1m\"\nstop_grace = \"300ms\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let all = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::ALARM, Signal::PIPE];
    for signal in all {
        let mark = Ender(unique_sleep().to_string());
        // With a daemon that heeds nothing but SIGKILL.
        let script = "(trap '' HUP INT QUIT TERM USR1 ALRM PIPE; setsid sh -c 'echo up; exec sleep $0' $0 &); \
                      ulimit -c 0; exec sleep $0";
        let mut agent = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", script, mark.mark()]));
        agent.line_with("up");
        eventually("the command runs", || {
            with_marks(&[mark.mark()]).iter().filter(|found| found.comm == "sleep").count() == 2
        });
        agent.signal(signal);
        assert_eq!(agent.exit_code(), 128 + signal.as_raw(), "{}", agent.stderr());
        assert!(with_marks(&[mark.mark()]).iter().all(super::census::Found::is_supervisor));
    }
}

#[test]
fn a_revoke_in_the_instant_of_the_start_leaves_nothing() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    "interval = \"50ms\"\nlease = \"1m\"\nstop_grace = \"100ms\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    for round in 0..30 {
        let mark = Ender(unique_sleep().to_string());
        let agent = sidecar.wrap(&[], &["sh", "-c", "trap '' TERM; setsid sleep $0 & exec sleep $0", mark.mark()]);
        let mut agent = Wrapped::start(agent);
        let_time_pass(Duration::from_millis(round));
        org.device("revoke", DEVICE);
        assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
        assert!(with_marks(&[mark.mark()]).iter().all(super::census::Found::is_supervisor), "round {round}");
        org.device("unrevoke", DEVICE);
        eventually("it is allowed again", || sidecar.check().status == 200);
    }
}

/// A control group like that of a service's unit. Removed when dropped.
struct Unit(std::path::PathBuf);

impl Drop for Unit {
    fn drop(&mut self) {
        eventually("the unit's control group is removed", || !self.0.exists() || remove_cgroup(&self.0).is_ok());
    }
}

#[test]
fn the_end_of_the_daemons_unit_ends_no_agent_of_a_wrapper_outside_it() {
    if !is_root() || !can_make_cgroups() {
        return skipped("the end of the daemon's unit", "this takes root and a control group of version 2");
    }
    let unit = Unit(own_cgroup().unwrap().join(format!("test-unit-{}", std::process::id())));
    fs::create_dir(&unit.0).unwrap();
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    "interval = \"200ms\"\nlease = \"1m\"\nstop_grace = \"300ms\"".clone_into(&mut setup.enforcement);
    let mut sidecar = setup.start();
    fs::write(unit.0.join("cgroup.procs"), sidecar.pid().to_string()).unwrap();
    let mut agent = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", "echo agent $$; exec sleep 1000"]));
    let pid = number_after(&agent.line_with("agent"), "agent");
    agent.watch(&[pid]);
    let leaf = cgroup_of(&pid.to_string()).unwrap();
    assert!(leaf.starts_with(own_cgroup().unwrap()) && !leaf.starts_with(&unit.0), "{}", leaf.display());
    // As systemd ends a unit: SIGTERM to all in it, then SIGKILL.
    sidecar.signal(Signal::TERM);
    fs::write(unit.0.join("cgroup.kill"), "1").unwrap();
    sidecar.kill();
    assert!(is_alive(pid) && !agent.has_ended());
    sidecar.start_again();
    eventually("the wrapper comes back", || sidecar.status()["agents"].as_array().is_some_and(|all| all.len() == 1));
    org.device("revoke", DEVICE);
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
    assert!(!is_alive(pid));
}

#[test]
fn the_end_of_an_entrypoints_daemon_ends_its_own_command_and_no_other_wrappers() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    "interval = \"200ms\"\nlease = \"20s\"\nstop_grace = \"300ms\"".clone_into(&mut setup.enforcement);
    let own = Ender(unique_sleep().to_string());
    let mut command = setup.command();
    command.args(["--", "sh", "-c", "trap '' TERM; setsid sleep $0 & echo own; sleep $0; sleep $0", own.mark()]);
    command.stdin(Stdio::null());
    let socket = setup.socket();
    let mut daemon = Wrapped::start(command);
    daemon.line_with("own");
    let mut other = crate::harness::wrapper::wrapper(&socket);
    other.args(["--", "sh", "-c", "echo agent $$; exec sleep 1000"]);
    let mut other = Wrapped::start(other);
    let pid = number_after(&other.line_with("agent"), "agent");
    other.watch(&[pid]);
    daemon.signal(Signal::KILL);
    // Its wrapper lives on, has nobody who could take the command's code, and keeps to the lease.
    assert!(is_alive(pid) && !other.has_ended());
    eventually("its own command is gone at the end of its lease", || {
        with_marks(&[own.mark()]).iter().all(|found| found.comm == "machineid-sidec")
    });
    assert_eq!(other.exit_code(), 75, "{}", other.stderr());
    end_those_with(&[own.mark()]);
}
