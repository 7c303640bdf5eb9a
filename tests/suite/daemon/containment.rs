//! What holds an agent's tree: found or made by the daemon, never taken on a client's word.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::agents::{
    Agent, NOBODY, OBEDIENT, agents, as_user, by_hand, cgroup_of, cgroup_root, has_cgroups, open_to_all, run_id,
};
use crate::harness::authority::{Authority, Org};
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;
use crate::harness::wrapper::Running;

const DEVICE: &str = "containing-host:1";

fn start_with<'a>(authority: &'a Authority, enforcement: &str) -> (Org<'a>, Sidecar) {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement = format!("{}\n{enforcement}", setup.enforcement);
    open_to_all(&mut setup);
    (org, setup.start())
}

/// The answer to a question with these fields, whatever it is.
fn ask(sidecar: &Sidecar, fields: &Value) -> String {
    let mut wrapped = Wrapped::start(by_hand(sidecar, &run_id(), fields, &["sh", "-c", OBEDIENT]));
    let answer = wrapped.line_with("\"event\"");
    if answer.contains("allow") {
        let child = number_after(&wrapped.line_with("agent ready"), "agent ready ");
        wrapped.watch(&[child]);
    }
    answer
}

#[test]
fn an_agent_of_another_user_cannot_leave_the_control_group_that_root_made() {
    if !has_cgroups("a control group that the daemon makes") {
        return;
    }
    let authority = Authority::start();
    let (org, sidecar) = start_with(&authority, "");
    let above = cgroup_root().unwrap().display().to_string();
    let escape = format!(
        "echo $$ > {above}/cgroup.procs; mkdir {above}/elsewhere; own={above}/$(sed -n 's/^0:://p' /proc/self/cgroup); \
         echo $$ > $own/../cgroup.procs; echo 0 > $own/cgroup.freeze; {OBEDIENT}"
    );
    let mut agent = Agent::start_as(NOBODY, &sidecar, &[], &escape);
    let report = agents(&sidecar)[0].clone();
    let words =
        ["containment", "holds_against", "containment_reason", "killer"].map(|key| report[key].as_str().unwrap());
    assert_eq!(words, ["cgroup", "hostile", "a control group that root made", "daemon"]);
    let leaf = cgroup_of(agent.pid);
    let id = report["run_id"].as_str().unwrap();
    assert!(leaf.ends_with(format!("machineid-{id}")), "{}", leaf.display());
    org.device("revoke", DEVICE);
    assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
    assert_eq!(agent.terms(), 1);
    until("the control group is removed", || (!leaf.exists()).then_some(()));
}

#[test]
fn a_process_that_left_its_parents_behind_is_asked_and_ended_by_its_control_group() {
    if !has_cgroups("a control group that the daemon makes") {
        return;
    }
    let authority = Authority::start();
    let (org, sidecar) = start_with(&authority, "");
    // The wrapper made by hand inherits no orphans: by descent this one belongs to no run.
    let lost = "sh -c 'setsid sh -c \"trap \\\"echo lost got TERM\\\" TERM; echo lost ready \\$\\$; \
                while :; do sleep 0.1; done\" &'; trap 'echo got TERM; exit 0' TERM; sleep 0.3; echo agent ready $$; \
                while :; do sleep 0.1; done";
    let mut agent = Agent::start_by_hand(&sidecar, &run_id(), &json!({"stop_grace": "500ms"}), lost);
    let orphan = agent.wrapped.line_with("lost ready").rsplit(' ').next().unwrap().parse().unwrap();
    agent.wrapped.watch(&[orphan]);
    org.device("revoke", DEVICE);
    agent.is_gone();
    until("the orphan is gone", || (!is_alive(orphan)).then_some(()));
    assert_eq!(agent.wrapped.stdout().matches("lost got TERM").count(), 1, "{}", agent.wrapped.stdout());
}

#[test]
fn no_agent_starts_below_the_configured_floor() {
    let authority = Authority::start();
    let (_org, sidecar) = start_with(&authority, "containment = \"cgroup\"");
    let mut weaker = Wrapped::start(sidecar.wrap(&["--containment", "subreaper"], &["true"]));
    assert_eq!(weaker.exit_code(), 125, "{}", weaker.stderr());
    assert!(weaker.stderr().contains("enforcement.containment"), "{}", weaker.stderr());
    if has_cgroups("a floor that can be kept") {
        Agent::start(&sidecar, &[], OBEDIENT);
    }
}

#[test]
fn what_was_asked_for_and_cannot_be_had_is_refused_with_the_reason() {
    let authority = Authority::start();
    let (_org, sidecar) = start_with(&authority, "");
    let answer = ask(&sidecar, &json!({"containment": "pidns"}));
    assert!(answer.contains("BAD_REQUEST") && answer.contains("PID namespace"), "{answer}");
    let answer = ask(&sidecar, &json!({"containment": "subreaper"}));
    assert!(answer.contains("\"allow\"") && answer.contains("\"containment\":\"subreaper\""), "{answer}");
}

#[test]
fn a_guardian_is_the_callers_child_and_the_leaders_parent_or_nobody() {
    let authority = Authority::start();
    let (_org, sidecar) = start_with(&authority, "");
    for pid in [1, std::process::id(), sidecar.pid()] {
        let answer = ask(&sidecar, &json!({"guardian": pid}));
        assert!(answer.contains("PID_NOT_PERMITTED") && answer.contains("guardian"), "{answer}");
    }
}

#[test]
fn a_control_group_that_holds_a_stranger_is_not_taken() {
    if !has_cgroups("a control group that a client made") {
        return;
    }
    let authority = Authority::start();
    let (org, sidecar) = start_with(&authority, "");
    let id = run_id();
    let leaf = cgroup_root().unwrap().join(format!("machineid-{id}"));
    fs::create_dir(&leaf).unwrap();
    let stranger = Running::start(Command::new("sleep").arg("600").stdin(Stdio::null()));
    fs::write(leaf.join("cgroup.procs"), stranger.0.id().to_string()).unwrap();
    // The wrapper puts itself, and so its child, into the group before it asks.
    let by_hand = by_hand(&sidecar, &id, &json!({"stop_grace": "0s"}), &["sh", "-c", OBEDIENT]);
    let mut inside = Command::new("sh");
    inside.arg("-c").arg(format!("echo $$ > {}/cgroup.procs; exec \"$@\"", leaf.display())).arg("inside");
    inside.arg(by_hand.get_program()).args(by_hand.get_args()).stdin(Stdio::null());
    let mut wrapped = Wrapped::start(inside);
    let answer = wrapped.line_with("\"event\"");
    let pid = number_after(&wrapped.line_with("agent ready"), "agent ready ");
    wrapped.watch(&[pid]);
    assert!(answer.contains("\"containment\":\"cgroup\""), "one of its own below the other: {answer}");
    assert_eq!(cgroup_of(pid), leaf.join(format!("machineid-{id}")));
    org.device("revoke", DEVICE);
    until("the agent is gone", || (!is_alive(pid)).then_some(()));
    drop(wrapped);
    let stranger_pid = i32::try_from(stranger.0.id()).unwrap();
    assert!(is_alive(stranger_pid), "a stranger was killed with the agent");
    drop(stranger);
    until("the group can be removed", || fs::remove_dir(&leaf).is_ok().then_some(()));
}

#[test]
fn a_start_that_is_denied_leaves_no_control_group_behind() {
    if !has_cgroups("a control group that the daemon makes") {
        return;
    }
    let authority = Authority::start();
    let (org, sidecar) = start_with(&authority, "");
    org.device("revoke", DEVICE);
    let id = run_id();
    let mut denied = Wrapped::start(as_user(NOBODY, &by_hand(&sidecar, &id, &json!({}), &["true"])));
    denied.line_with("DEVICE_REVOKED");
    let leaf = cgroup_root().unwrap().join(format!("machineid-{id}"));
    until("the control group is removed", || (!leaf.exists()).then_some(()));
}
