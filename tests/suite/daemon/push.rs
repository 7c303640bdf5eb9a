//! Push: an authority that can be watched is, and what it says is a reason to ask and nothing else.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::agents::{Agent, OBEDIENT};
use crate::harness::authority::Authority;
use crate::harness::fake_authority::{FakeAuthority, STREAM, json};
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::{clock, until};
use crate::harness::{eventually, let_time_pass};

/// Nothing that happens within a test is found by polling.
const HARDLY_EVER: &str = "interval = \"1h\"\nlease = \"2h\"\nstop_grace = \"2s\"";

const VALIDATE: &str = "/api/v1/devices/validate";
const WATCH: &str = "/api/v1/devices/watch";

fn hardly_polling(mut setup: Setup) -> Setup {
    HARDLY_EVER.clone_into(&mut setup.enforcement);
    setup
}

fn is_watching(sidecar: &Sidecar) -> bool {
    sidecar.status()["authority"]["push"] == true
}

#[test]
fn a_revoke_reaches_an_agent_long_before_the_next_validation() {
    let authority = Authority::start();
    let org = authority.org("free");
    let sidecar = hardly_polling(Setup::of(&org, &authority.url(), "host:1")).start();
    eventually("the authority is watched", || is_watching(&sidecar));
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    org.device("revoke", "host:1");
    assert_eq!(agent.wrapped.exit_code(), 77);
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED");
    org.device("unrevoke", "host:1");
    eventually("the unrevoke is found as well", || sidecar.status()["devices"][0]["standing"] == "allowed");
}

#[test]
fn a_device_that_changes_often_never_makes_its_next_revoke_wait() {
    let authority = Authority::start();
    let org = authority.org("free");
    let sidecar = hardly_polling(Setup::of(&org, &authority.url(), "host:1")).start();
    eventually("the authority is watched", || is_watching(&sidecar));
    let stands_at = |standing: &str| {
        let began = clock();
        eventually(standing, || sidecar.status()["devices"][0]["standing"] == standing);
        began.elapsed()
    };
    stands_at("allowed");
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..12 {
        org.device("revoke", "host:1");
        took.push(stands_at("denied"));
        org.device("unrevoke", "host:1");
        stands_at("allowed");
    }
    took.sort();
    // A budget of one hint in half a second would be felt by most of them.
    assert!(took[took.len() / 2] < Duration::from_millis(300), "{took:?}");
}

#[test]
fn a_change_for_the_whole_organisation_reaches_every_device() {
    let authority = Authority::start();
    let org = authority.org("free");
    let sidecar = hardly_polling(Setup::of(&org, &authority.url(), "host:1")).start();
    eventually("the authority is watched", || is_watching(&sidecar));
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    authority.admin_json(&["disable", &org.id]);
    assert_eq!(agent.wrapped.exit_code(), 77);
}

#[test]
fn a_device_that_an_agent_brings_is_watched_too_with_no_moment_in_between() {
    let authority = Authority::start();
    let org = authority.org("free");
    let mut setup = hardly_polling(Setup::of(&org, &authority.url(), "host:1"));
    "allow = [\"*\"]".clone_into(&mut setup.devices);
    let sidecar = setup.start();
    eventually("the authority is watched", || is_watching(&sidecar));
    let mut agent = Agent::start(&sidecar, &["--device", "worker:1"], OBEDIENT);
    let bystander = Agent::start(&sidecar, &[], OBEDIENT);
    // At once: whether the new subscription stands by now or not, the revoke must be found.
    org.device("revoke", "worker:1");
    assert_eq!(agent.wrapped.exit_code(), 77);
    assert!(bystander.is_alive(), "another device's agent");
}

#[test]
fn what_happened_while_nobody_watched_is_found_when_the_authority_is_watched_again() {
    let mut authority = Authority::start();
    let made = authority.admin_json(&["create"]);
    let key = made["orgApiKey"].as_str().unwrap().to_owned();
    let sidecar = hardly_polling(Setup::new(&authority.url(), &key, "host:1")).start();
    eventually("the authority is watched", || is_watching(&sidecar));
    let mut agent = Agent::start(&sidecar, &[], OBEDIENT);
    authority.kill();
    eventually("the loss is noticed", || !is_watching(&sidecar));
    authority.start_again();
    let revoked = authority.call("POST", "/devices/revoke", Some(&key), br#"{"deviceId":"host:1"}"#);
    assert_eq!(revoked.status, 200);
    assert_eq!(agent.wrapped.exit_code(), 77);
}

#[test]
fn where_nothing_is_announced_nothing_is_opened() {
    let fake = FakeAuthority::start(|path, stream| {
        let body = if path == VALIDATE { r#"{"allowed":true,"code":"ALLOW"}"# } else { r#"{"status":"ok"}"# };
        let _ = stream.write_all(json("", body).as_bytes());
    });
    let sidecar = Setup::new(&fake.url(), "org_x", "host:1").start();
    until("it has validated a few times", || (fake.count(VALIDATE) > 5).then_some(()));
    assert!(!is_watching(&sidecar));
    assert_eq!(fake.paths(), ["/api/v1/devices/register", VALIDATE]);
}

fn deny(stream: &mut TcpStream) {
    let body = r#"{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r"}"#;
    let _ = stream.write_all(json("x-machineid-extensions: watch\r\n", body).as_bytes());
}

#[test]
fn a_stream_that_lies_allows_nothing_and_floods_nobody() {
    let fake = FakeAuthority::start(|path, stream| match path {
        VALIDATE => deny(stream),
        WATCH => {
            let ready = "event: ready\ndata: {\"heartbeatMs\":1}\n\n";
            let lies = "event: allow\ndata: {\"allowed\":true,\"code\":\"ALLOW\"}\n\nevent: validate\ndata: {\"all\":true}\n\n\
                        data: {\"allowed\":true}\n\nevent: validate\ndata: {\"deviceIds\":[\"host:1\",\"other\"]}\n\n";
            let _ = stream.write_all(format!("{STREAM}{ready}").as_bytes());
            while stream.write_all(lies.as_bytes()).is_ok() {}
        }
        _ => drop(stream.write_all(json("", r#"{"status":"ok"}"#).as_bytes())),
    });
    let sidecar = hardly_polling(Setup::new(&fake.url(), "org_x", "host:1")).start();
    eventually("it is watched", || is_watching(&sidecar));
    let before = fake.count(VALIDATE);
    let_time_pass(Duration::from_secs(3));
    let caused = fake.count(VALIDATE) - before;
    assert!((1..=12).contains(&caused), "{caused} validations in 3 s");
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED");
    assert_eq!(sidecar.status()["devices"][0]["standing"], "denied");
}

#[test]
fn a_stream_of_garbage_is_given_up_and_tried_again_at_a_bearable_pace() {
    let fake = FakeAuthority::start(|path, stream| match path {
        VALIDATE => deny(stream),
        WATCH => drop(stream.write_all(format!("{STREAM}event: ready\ndata: {{}}\n\n").as_bytes())),
        _ => drop(stream.write_all(json("", r#"{"status":"ok"}"#).as_bytes())),
    });
    let sidecar = hardly_polling(Setup::new(&fake.url(), "org_x", "host:1")).start();
    until("it is tried again", || (fake.count(WATCH) >= 2).then_some(()));
    let_time_pass(Duration::from_secs(3));
    assert!(fake.count(WATCH) < 40, "{} attempts", fake.count(WATCH));
    assert!(!is_watching(&sidecar));
    assert_eq!(sidecar.check().code(), "DEVICE_REVOKED");
}

#[test]
fn a_stream_that_falls_silent_is_given_up() {
    let fake = FakeAuthority::start(|path, stream| match path {
        VALIDATE => deny(stream),
        WATCH => {
            let ready = "event: ready\ndata: {\"heartbeatMs\":1000}\n\n";
            let _ = stream.write_all(format!("{STREAM}{ready}").as_bytes());
            // Open, and dead to the world.
            std::thread::park();
        }
        _ => drop(stream.write_all(json("", r#"{"status":"ok"}"#).as_bytes())),
    });
    let sidecar = hardly_polling(Setup::new(&fake.url(), "org_x", "host:1")).start();
    eventually("it is watched", || is_watching(&sidecar));
    until("it is connected anew", || (fake.count(WATCH) >= 2).then_some(()));
    assert!(sidecar.log().contains("push connection lost"), "{}", sidecar.log());
}
