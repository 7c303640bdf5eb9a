//! An authority that cannot complete a decision and marks its answers so: an outage, and no deny. Without the mark the same
//! body stays the deny that the service documents.

use std::time::Duration;

use machineid_clock::BootTime;

use crate::harness::authority::{Authority, Org};
use crate::harness::fault::{Answer, Fault, Injector};
use crate::harness::let_time_pass;
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Setup, Sidecar, exchange};
use crate::harness::wait::until;

const AGENTS: usize = 20;
/// How long the authority cannot decide.
const OUTAGE: Duration = Duration::from_secs(8);
const DEVICE: &str = "host:test";
const CANNOT: &str = r#"{"allowed":false,"code":"SYSTEM_UNAVAILABLE","request_id":"r-1"}"#;

fn cannot() -> Answer {
    Answer::new("503 Service Unavailable").with("content-type", "application/json").saying(CANNOT)
}

fn marked(answer: Answer) -> Fault {
    Fault::Replace(answer.with("x-machineid-undecided", "1"))
}

fn sidecar(org: &Org<'_>, injector: &Injector, lease: &str) -> Sidecar {
    let mut setup = Setup::of(org, &injector.url(), DEVICE);
    setup.enforcement = format!("interval = \"200ms\"\nlease = \"{lease}\"\nstop_grace = \"2s\"");
    setup.start()
}

fn agent(sidecar: &Sidecar) -> (Wrapped, i32) {
    let mut agent = Wrapped::start(sidecar.wrap(&["--wait"], &["sh", "-c", "echo agent $$; exec sleep 600"]));
    let pid = number_after(&agent.line_with("agent "), "agent ");
    agent.watch(&[pid]);
    (agent, pid)
}

fn standing(sidecar: &Sidecar) -> String {
    sidecar.status()["devices"][0]["standing"].as_str().unwrap_or("").to_owned()
}

#[test]
fn agents_live_through_eight_seconds_of_answers_that_are_marked_as_no_decision_and_no_answer_says_yes_meanwhile() {
    let authority = Authority::start();
    let org = authority.org("max");
    let injector = Injector::start(authority.address());
    let sidecar = sidecar(&org, &injector, "30s");
    let mut agents: Vec<_> = (0..AGENTS).map(|_| agent(&sidecar)).collect();
    let alive = |agents: &[(Wrapped, i32)]| agents.iter().filter(|(_, pid)| is_alive(*pid)).count();

    injector.set(marked(cannot()));
    let began = BootTime::now();
    until("the daemon notices", || (standing(&sidecar) == "unavailable").then_some(()));
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (503, "SYSTEM_UNAVAILABLE"), "{answer:?}");
    let status = sidecar.status();
    let said = status["devices"][0]["last_error"].as_str().unwrap_or("").to_owned();
    assert!(said.contains("could not complete a decision"), "{status}");
    assert_eq!(status["authority"]["reachable"], false, "{status}");
    assert_eq!(sidecar.machineid(&["check"]).status.code(), Some(75));
    let mut refused = Wrapped::start(sidecar.wrap(&[], &["true"]));
    assert_eq!(refused.exit_code(), 75, "{}", refused.stderr());
    assert!(refused.stderr().contains("SYSTEM_UNAVAILABLE"), "{}", refused.stderr());
    // A program on an official client sees what it would see at the authority, the mark included.
    let body = format!("{{\"deviceId\":\"{DEVICE}\"}}");
    let head = format!("POST /api/v1/devices/validate HTTP/1.0\r\nHost: localhost\r\ncontent-length: {}", body.len());
    let told = exchange(&sidecar.socket(), &format!("{head}\r\n\r\n{body}")).unwrap();
    assert_eq!((told.status, told.code().as_str()), (503, "SYSTEM_UNAVAILABLE"), "{told:?}");
    assert!(told.json()["allowed"] == false && told.head.contains("x-machineid-undecided: 1"), "{told:?}");
    let left = OUTAGE.saturating_sub(BootTime::now().saturating_since(began));
    let_time_pass(left);
    assert_eq!(alive(&agents), AGENTS, "no agent was denied: {}", sidecar.log());

    injector.set(Fault::None);
    until("allowed again", || (standing(&sidecar) == "allowed").then_some(()));
    assert_eq!(alive(&agents), AGENTS);

    // The same body without the mark is the service's own deny.
    injector.set(Fault::Replace(cannot()));
    for (agent, _) in &mut agents {
        assert_eq!(agent.exit_code(), 75, "{}", agent.stderr());
        assert!(agent.stderr().contains("SYSTEM_UNAVAILABLE"), "{}", agent.stderr());
    }
    assert_eq!(standing(&sidecar), "denied");
    let told = exchange(&sidecar.socket(), &format!("{head}\r\n\r\n{body}")).unwrap();
    assert!(!told.head.contains("x-machineid-undecided"), "a deny is passed on as one: {told:?}");
}

#[test]
fn an_authority_that_marks_every_answer_as_no_decision_stops_agents_at_the_end_of_their_lease() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let sidecar = sidecar(&org, &injector, "4s");
    let (mut agent, pid) = agent(&sidecar);
    injector.set(marked(cannot()));
    until("the daemon notices", || (standing(&sidecar) == "unavailable").then_some(()));
    assert!(is_alive(pid), "its lease has not ended");
    assert_eq!(agent.exit_code(), 75, "{}", agent.stderr());
    let said = agent.stderr();
    assert!(said.contains("LEASE_EXPIRED"), "{said}");
}

#[test]
fn the_mark_turns_no_other_deny_into_an_outage_and_no_allow_into_a_yes() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let sidecar = sidecar(&org, &injector, "10m");
    let (mut agent, pid) = agent(&sidecar);

    injector.set(marked(Answer::allow("200 OK")));
    until("an ALLOW that is marked as no decision is none", || (standing(&sidecar) == "unavailable").then_some(()));
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (503, "AUTHORITY_UNREACHABLE"), "{answer:?}");
    assert!(answer.body.contains("contradicts itself") && is_alive(pid), "{answer:?}");

    let revoked = Answer::new("200 OK").with("content-type", "application/json");
    injector.set(marked(revoked.saying(r#"{"allowed":false,"code":"DEVICE_REVOKED"}"#)));
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED");
}

#[test]
fn an_authority_that_cannot_decide_is_asked_again_no_sooner_than_it_says() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let injector = Injector::start(authority.address());
    let sidecar = sidecar(&org, &injector, "10m");
    injector.set(marked(cannot().with("retry-after", "60")));
    until("the daemon notices", || (standing(&sidecar) == "unavailable").then_some(()));
    // Without agents the authority's word holds as it is.
    let next = until("nothing is in flight", || sidecar.status()["devices"][0]["next_validation_ms"].as_u64());
    assert!(next > 30_000, "{next}");
    let answer = sidecar.check();
    assert!(answer.head.to_lowercase().contains("retry-after: 60"), "{answer:?}");
}
