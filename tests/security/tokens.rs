//! A run's token in the hands of another process.

use std::process::{Command, Stdio};

use crate::daemon::agents::{as_user, has_cgroups, is_root, open_to_all};
use crate::daemon::compat::{Agent, answer, decision, question};
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, Sidecar};

const USER: u32 = 54_361;
const OTHER: u32 = 54_362;

fn start(mut setup: Setup) -> Sidecar {
    open_to_all(&mut setup);
    "[compat]\nlisten = \"127.0.0.1:0\"".clone_into(&mut setup.devices);
    setup.start()
}

/// Asks with the agent's token, as this user and in none of its processes.
fn steal(agent: &Agent, uid: u32) -> (u16, bool, String) {
    let program = "import socket, sys; host, port = sys.argv[1].rsplit(':', 1); s = socket.create_connection((host, int(port))); \
                   s.sendall(sys.argv[2].encode()); print(s.makefile(newline='').read())";
    let mut thief = Command::new("python3");
    let request = question(&agent.token, &agent.address, "validate", "host:test");
    thief.args(["-S", "-c", program, &agent.address, &request]).stdin(Stdio::null());
    let output = as_user(uid, &thief).output().unwrap();
    decision(&answer(&String::from_utf8(output.stdout).unwrap()))
}

#[test]
fn a_token_is_good_for_the_agents_own_processes_and_for_no_other_of_its_user() {
    if !is_root("agents of two users") {
        return;
    }
    if !has_cgroups("a token that is bound to a control group") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(Setup::of(&org, &authority.url(), "host:test"));
    let agent = Agent::of(as_user(USER, &sidecar.wrap(&["--containment", "cgroup"], &Agent::program(&[]))));
    assert_eq!(decision(&agent.ask("validate", "host:test")), (200, true, "ALLOW".to_owned()));
    for uid in [USER, OTHER] {
        assert_eq!(steal(&agent, uid), (401, false, "INVALID_ORG_KEY".to_owned()), "{uid}");
    }
    assert!(agent.ask_from_outside("validate", "host:test").body.contains("only for processes"), "not for root either");
    assert_eq!(sidecar.status()["agents"][0]["token_good_for"], "tree");
}

#[test]
fn without_a_control_group_a_token_is_good_for_its_user_alone_and_status_says_so() {
    if !is_root("agents of two users") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(Setup::of(&org, &authority.url(), "host:test"));
    let agent = Agent::of(as_user(USER, &sidecar.wrap(&["--containment", "subreaper"], &Agent::program(&[]))));
    assert_eq!(decision(&agent.ask("validate", "host:test")), (200, true, "ALLOW".to_owned()));
    assert_eq!(steal(&agent, USER), (200, true, "ALLOW".to_owned()), "what remains");
    assert_eq!(steal(&agent, OTHER), (401, false, "INVALID_ORG_KEY".to_owned()));
    assert_eq!(sidecar.status()["agents"][0]["token_good_for"], "user");
}
