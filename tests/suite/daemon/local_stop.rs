//! `POST /v1/stop`: ends agents on this host, each user their own.

use serde_json::json;

use super::agents::{
    Agent, NOBODY, OBEDIENT, agents, as_member, as_user, ask_by, is_root, open_to_all, post, post_as, request, stop_of,
};
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "stopping-host:1";

fn start(authority: &Authority) -> Sidecar {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.devices = String::from("allow = [\"agent:*\"]");
    open_to_all(&mut setup);
    setup.start()
}

#[test]
fn an_agent_is_picked_by_run_pid_name_and_device_and_the_rest_run_on() {
    let authority = Authority::start();
    let sidecar = start(&authority);
    let mut by_name = Agent::start(&sidecar, &["--name", "planner"], OBEDIENT);
    let mut by_device = Agent::start(&sidecar, &["--device", "agent:7"], OBEDIENT);
    let mut by_pid = Agent::start(&sidecar, &[], OBEDIENT);
    let mut by_run = Agent::start(&sidecar, &[], OBEDIENT);
    let others = Agent::start(&sidecar, &[], OBEDIENT);
    let run_of = |pid: i32| agents(&sidecar).iter().find(|agent| agent["pid"] == pid).unwrap()["run_id"].clone();
    let runs = [&by_name, &by_device, &by_pid, &by_run].map(|agent| run_of(agent.pid));
    let (pid, run) = (by_pid.pid, runs[3].clone());
    let requests =
        [json!({"name": "planner"}), json!({"device": "agent:7"}), json!({"pid": pid}), json!({"run_id": run})];
    for (request, run) in requests.iter().zip(&runs) {
        let answer = post(&sidecar.socket(), "/v1/stop", request);
        assert_eq!((answer.status, &answer.json()["run_ids"]), (200, &json!([run])), "{request}: {answer:?}");
    }
    for agent in [&mut by_name, &mut by_device, &mut by_pid, &mut by_run] {
        assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
        assert!(agent.wrapped.stderr().contains("LOCAL_STOP"), "{}", agent.wrapped.stderr());
        assert_eq!(agent.terms(), 1);
    }
    for run in &runs {
        let stop = until("the stop is over", || stop_of(&sidecar, run.as_str().unwrap()));
        assert_eq!((&stop["code"], &stop["confirmed"]), (&json!("LOCAL_STOP"), &json!(true)), "{stop}");
        assert!(stop["signalled"].as_u64() >= Some(1) && stop["survivors"] == json!([]), "{stop}");
    }
    assert!(others.is_alive() && others.terms() == 0);
    assert_eq!(sidecar.check().status, 200, "a local stop denies nothing");
}

#[test]
fn a_request_that_means_nobody_or_is_not_understood_says_so() {
    let authority = Authority::start();
    let sidecar = start(&authority);
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    for request in [json!({"name": "nobody"}), json!({"pid": 1}), json!({"run_id": "0".repeat(32)})] {
        let answer = post(&sidecar.socket(), "/v1/stop", &request);
        assert_eq!((answer.status, &answer.json()["allowed"]), (404, &json!(false)), "{request}: {answer:?}");
        assert!(answer.body.contains("nothing to stop"), "{answer:?}");
    }
    for request in
        [json!({}), json!({"all": false}), json!({"all": true, "pid": 1}), json!({"everything": true}), json!(1)]
    {
        let answer = post(&sidecar.socket(), "/v1/stop", &request);
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"), "{request}: {answer:?}");
    }
    assert!(agent.is_alive() && agent.terms() == 0);
}

#[test]
fn a_user_stops_their_own_agents_and_root_everybodys() {
    if !is_root("agents of two users") {
        return;
    }
    let authority = Authority::start();
    let sidecar = start(&authority);
    let mut theirs = Agent::start_as(NOBODY, &sidecar, &["--name", "theirs"], OBEDIENT);
    let mut again = Agent::start_as(NOBODY, &sidecar, &["--name", "again"], OBEDIENT);
    let mut roots = Agent::start(&sidecar, &["--name", "roots"], OBEDIENT);
    let stop_as_nobody = |before: &[&str], request| post_as(NOBODY, before, &sidecar.socket(), "/v1/stop", &request);
    let (status, answer) = stop_as_nobody(&[], json!({"name": "roots"}));
    assert_eq!((status, &answer["allowed"]), (404, &json!(false)), "{answer}");
    // Root there, and nobody here.
    let (status, answer) = stop_as_nobody(&["unshare", "--user", "--map-root-user"], json!({"all": true}));
    assert_eq!((status, &answer["allowed"]), (404, &json!(false)), "{answer}");
    assert!(answer["reason"].as_str().unwrap().contains("user namespace"), "{answer}");
    let (status, answer) = stop_as_nobody(&[], json!({"name": "theirs"}));
    assert_eq!((status, answer["run_ids"].as_array().unwrap().len()), (200, 1), "{answer}");
    assert_eq!(theirs.wrapped.exit_code(), 77);
    assert!(again.is_alive() && roots.is_alive());
    let (status, answer) = stop_as_nobody(&[], json!({"all": true}));
    assert_eq!((status, answer["run_ids"].as_array().unwrap().len()), (200, 1), "{answer}");
    assert_eq!(again.wrapped.exit_code(), 77);
    assert!(roots.is_alive() && roots.terms() == 0);
    assert_eq!(post(&sidecar.socket(), "/v1/stop", &json!({"all": true})).status, 200);
    assert_eq!(roots.wrapped.exit_code(), 77);
}

/// An ordinary user beside [`NOBODY`], and a group of this test's own.
const OPERATOR: u32 = 54_322;
const ADMINS: u32 = 54_400;

#[test]
fn a_member_of_the_admin_group_sees_and_stops_everybodys_agents_and_nobody_else_does() {
    if !is_root("agents and operators of several users") {
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    open_to_all(&mut setup);
    let without = setup.local.clone();
    let with = format!("{without}\nadmin_group = \"{ADMINS}\"");
    setup.local.clone_from(&with);
    let mut sidecar = setup.start();
    let mut theirs = Agent::start_as(NOBODY, &sidecar, &["--name", "theirs"], OBEDIENT);
    let mut roots = Agent::start(&sidecar, &["--name", "roots"], OBEDIENT);
    let socket = sidecar.socket();
    let member = |before: &[&str], text: &str| ask_by(|it| as_member(OPERATOR, ADMINS, it), before, &socket, text);
    let other = |text: &str| ask_by(|it| as_user(OPERATOR, it), &[], &socket, text);
    let status = "GET /v1/status HTTP/1.0\r\n\r\n";
    let seen = |(_, status): (u16, serde_json::Value)| status["agents"].as_array().unwrap().len();
    assert_eq!((seen(member(&[], status)), seen(other(status))), (2, 0));
    let stop = |name: &str| request("/v1/stop", &json!({"name": name}));
    assert_eq!(other(&stop("theirs")).0, 404);
    // A member there; who it is there is not who it is here.
    for elsewhere in [&["unshare", "--user", "--map-current-user"][..], &["unshare", "--user", "--map-root-user"]] {
        let (code, answer) = member(elsewhere, &stop("theirs"));
        assert_eq!(code, 404, "{elsewhere:?}: {answer}");
        assert_eq!(seen(member(elsewhere, status)), 0, "{elsewhere:?}");
    }
    assert!(theirs.is_alive() && theirs.terms() == 0);
    let (code, answer) = member(&[], &stop("theirs"));
    assert_eq!((code, answer["run_ids"].as_array().map(Vec::len)), (200, Some(1)), "{answer}");
    assert_eq!(theirs.wrapped.exit_code(), 77);

    sidecar.setup().local = without;
    sidecar.setup().configuration();
    until("a reload takes the right away", || (seen(member(&[], status)) == 0).then_some(()));
    assert_eq!(member(&[], &stop("roots")).0, 404);
    sidecar.setup().local = with;
    sidecar.setup().configuration();
    until("a reload gives it back", || (seen(member(&[], status)) == 1).then_some(()));
    assert_eq!(member(&[], &stop("roots")).0, 200);
    assert_eq!(roots.wrapped.exit_code(), 77);
}
