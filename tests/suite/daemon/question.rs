//! A start's question: the authority is asked while the processes are looked at.

use std::io::Write;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::agents::{by_hand, post, request, run_id};
use crate::harness::authority::{Authority, Org};
use crate::harness::fault::{Fault, Injector};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Answer, Setup, Sidecar};
use crate::harness::wait::until;

const DEVICE: &str = "asking-host:1";

/// A daemon that asks only when it is asked.
fn start(org: &Org<'_>, url: &str) -> Sidecar {
    let mut setup = Setup::of(org, url, DEVICE);
    setup.authority = format!("url = \"{url}\"\ntimeout = \"60s\"");
    setup.enforcement = String::from("interval = \"1h\"\nlease = \"2h\"");
    setup.start()
}

fn ask(sidecar: &Sidecar, id: &str, pid: u32) -> Answer {
    post(&sidecar.socket(), "/v1/supervise", &json!({"pid": pid, "run_id": id, "containment": "subreaper"}))
}

#[test]
fn a_process_that_is_none_of_the_callers_is_refused_while_the_authority_is_still_asked() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let sidecar = start(&org, &injector.url());
    injector.set(Fault::Silent);
    let answer = ask(&sidecar, &run_id(), 1);
    assert_eq!((answer.status, answer.code().as_str()), (403, "PID_NOT_PERMITTED"), "{answer:?}");
    until("the authority was asked all the same", || (injector.validations().in_flight > 0).then_some(()));
}

#[test]
fn who_was_refused_can_ask_again_at_once_under_the_same_id() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&org, &authority.url());
    org.device("revoke", DEVICE);
    let id = run_id();
    for _ in 0..50 {
        let answer = ask(&sidecar, &id, std::process::id());
        assert_eq!((answer.status, answer.code().as_str()), (403, "DEVICE_REVOKED"), "{answer:?}");
    }
    assert_eq!(sidecar.status()["agents"], Value::Array(Vec::new()));
}

#[test]
fn a_wrapper_that_asks_again_before_its_question_is_answered_is_told_to_wait_and_nobody_else_is() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let sidecar = start(&org, &injector.url());
    injector.set(Fault::Silent);
    let id = run_id();
    let question = json!({"pid": std::process::id(), "run_id": id, "containment": "subreaper"});
    let mut open = UnixStream::connect(sidecar.socket()).unwrap();
    open.write_all(request("/v1/supervise", &question).as_bytes()).unwrap();
    let recorded = || sidecar.get(&format!("/v1/supervise?run_id={id}")).filter(|answer| answer.status == 200);
    until("the question is recorded", recorded);
    let again = ask(&sidecar, &id, std::process::id());
    assert_eq!((again.status, again.code().as_str()), (503, "OVERLOADED"), "{again:?}");
    let fields = json!({"run_id": id, "containment": "subreaper"});
    let mut other = Wrapped::start(by_hand(&sidecar, &id, &fields, &["true"]));
    let said = other.line_with("error");
    assert!(said.contains("BAD_REQUEST") && said.contains("in use"), "{said}");
    drop(open);
}

#[test]
fn a_deny_is_told_before_a_containment_that_cannot_be_had() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&org, &authority.url());
    let ask = || {
        let question = json!({"pid": std::process::id(), "run_id": run_id(), "containment": "pidns"});
        let answer = post(&sidecar.socket(), "/v1/supervise", &question);
        (answer.status, answer.code())
    };
    assert_eq!(ask(), (400, "BAD_REQUEST".to_owned()), "this test is in no namespace of its own");
    org.device("revoke", DEVICE);
    assert_eq!(ask(), (403, "DEVICE_REVOKED".to_owned()));
}
