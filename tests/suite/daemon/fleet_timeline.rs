//! What a sidecar tells of what happens: the authority's timeline of a device.

use serde_json::Value;

use super::agents::{Agent, OBEDIENT};
use crate::harness::authority::{Authority, Org};
use crate::harness::eventually;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::Setup;

fn timeline(authority: &Authority, org: &Org<'_>, device: &str) -> Vec<Value> {
    let answer = authority.call("GET", &format!("/org/timeline?deviceId={device}"), Some(&org.key), b"").json();
    answer["events"].as_array().unwrap().clone()
}

fn setup(authority: &Authority, org: &Org<'_>) -> Setup {
    let mut setup = Setup::of(org, &authority.url(), "host:1");
    "interval = \"1s\"\nlease = \"30s\"\nstop_grace = \"1s\"".clone_into(&mut setup.enforcement);
    setup
}

#[test]
fn the_authority_remembers_what_was_decided_started_and_stopped_and_how_long_it_took() {
    let authority = Authority::start();
    let org = authority.org("free");
    let mut sidecar = setup(&authority, &org).start();
    let before = jiff::Timestamp::now();
    let agent = Agent::start(&sidecar, &["--name", "scraper"], OBEDIENT);
    let revoked = org.post("/devices/revoke", &serde_json::json!({"deviceId": "host:1", "reason": "it went mad"}));
    assert_eq!(revoked.status, 200);
    eventually("the agent's end is told", || {
        timeline(&authority, &org, "host:1").iter().any(|event| event["event"] == "agent-stopped")
    });
    assert!(!agent.is_alive(), "it was told before it was so");
    let told = timeline(&authority, &org, "host:1");
    let named = |name: &str, standing: Option<&str>| -> &Value {
        told.iter()
            .find(|event| event["event"] == name && standing.is_none_or(|word| event["standing"] == word))
            .unwrap_or_else(|| panic!("no {name} {standing:?} in {told:#?}"))
    };
    let (started, stopping, stopped) =
        (named("agent-started", None), named("agent-stopping", None), named("agent-stopped", None));
    let denied = named("decision", Some("denied"));
    assert_eq!(named("decision", Some("allowed"))["code"], "ALLOW");
    assert_eq!(
        (&denied["code"], &denied["reason"]),
        (&"DEVICE_REVOKED".into(), &"The device is revoked: it went mad".into())
    );
    assert!(denied["requestId"].is_string() && stopping["requestId"] == denied["requestId"], "{told:#?}");
    for event in [started, stopping, stopped] {
        assert_eq!((&event["name"], &event["runId"]), (&"scraper".into(), &started["runId"]));
    }
    assert!(stopped["tookMs"].is_u64() && stopped["killed"] == 0 && stopped["survivors"] == 0, "{stopped}");
    let at = |event: &Value| event["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(before <= at(started) && at(started) <= at(stopping) && at(stopping) <= at(stopped));
    assert!(at(stopped) <= jiff::Timestamp::now());

    // Another life of the daemon: its events are others, though they are counted from one again.
    let number = told.len();
    sidecar.kill();
    sidecar.start_again();
    eventually("the new daemon tells too", || timeline(&authority, &org, "host:1").len() > number);
    assert!(timeline(&authority, &org, "host:1").iter().any(|event| event["id"] == started["id"]));
}

#[test]
fn an_entrypoint_that_ends_with_its_agent_says_so_before_it_is_gone() {
    let authority = Authority::start();
    let org = authority.org("free");
    let setup = setup(&authority, &org);
    let mut command = setup.command();
    command.args(["--", "sh", "-c", OBEDIENT]);
    let mut whole = Wrapped::start(command);
    whole.line_with("agent ready");
    let fleet = || authority.call("GET", "/org/fleet", Some(&org.key), b"").json();
    eventually("its agent is told of", || fleet()["devices"][0]["sidecars"][0]["agents"] == 1);
    org.device("revoke", "host:1");
    assert_eq!(whole.exit_code(), 77);
    // At once: no process is left that could tell it later.
    let told = fleet();
    let sidecar = &told["devices"][0]["sidecars"][0];
    assert_eq!((&sidecar["stop"]["state"], &told["agents"]), (&"confirmed".into(), &0.into()), "{told:#}");
    assert!(timeline(&authority, &org, "host:1").iter().any(|event| event["event"] == "agent-stopped"));
}
