//! A start's question: the authority is asked while the processes are looked at.

use serde_json::{Value, json};

use super::agents::{post, run_id};
use crate::harness::authority::Authority;
use crate::harness::fault::{Fault, Injector};
use crate::harness::sidecar::{Answer, Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "asking-host:1";

fn ask(sidecar: &Sidecar, id: &str, pid: u32) -> Answer {
    post(&sidecar.socket(), "/v1/supervise", &json!({"pid": pid, "run_id": id, "containment": "subreaper"}))
}

#[test]
fn a_process_that_is_none_of_the_callers_is_refused_while_the_authority_is_still_asked() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let mut setup = Setup::of(&org, &injector.url(), DEVICE);
    setup.authority = format!("url = \"{}\"\ntimeout = \"60s\"", injector.url());
    setup.enforcement = String::from("interval = \"1h\"\nlease = \"2h\"");
    let sidecar = setup.start();
    injector.set(Fault::Silent);
    let answer = ask(&sidecar, &run_id(), 1);
    assert_eq!((answer.status, answer.code().as_str()), (403, "PID_NOT_PERMITTED"), "{answer:?}");
    until("the authority was asked all the same", || (injector.validations().in_flight > 0).then_some(()));
}

#[test]
fn who_was_refused_can_ask_again_at_once_under_the_same_id() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement = String::from("interval = \"1h\"\nlease = \"2h\"");
    let sidecar = setup.start();
    org.device("revoke", DEVICE);
    let id = run_id();
    for _ in 0..50 {
        let answer = ask(&sidecar, &id, std::process::id());
        assert_eq!((answer.status, answer.code().as_str()), (403, "DEVICE_REVOKED"), "{answer:?}");
    }
    assert_eq!(sidecar.status()["agents"], Value::Array(Vec::new()));
}

#[test]
fn a_deny_is_told_before_a_containment_that_cannot_be_had() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.enforcement = String::from("interval = \"1h\"\nlease = \"2h\"");
    let sidecar = setup.start();
    let ask = || {
        let question = json!({"pid": std::process::id(), "run_id": run_id(), "containment": "pidns"});
        let answer = post(&sidecar.socket(), "/v1/supervise", &question);
        (answer.status, answer.code())
    };
    assert_eq!(ask(), (400, "BAD_REQUEST".to_owned()), "this test is in no namespace of its own");
    org.device("revoke", DEVICE);
    assert_eq!(ask(), (403, "DEVICE_REVOKED".to_owned()));
}
