//! `POST /v1/hold`, `/v1/release`: a device denied on this host until it is taken back.

use serde_json::{Value, json};

use super::agents::{Agent, NOBODY, OBEDIENT, is_root, open_to_all, post, post_as};
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::eventually;

const DEVICE: &str = "holding-host:1";

fn start(authority: &Authority) -> Sidecar {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE);
    setup.devices = String::from("allow = [\"agent:*\"]");
    open_to_all(&mut setup);
    setup.start()
}

fn holds(sidecar: &Sidecar) -> Vec<Value> {
    sidecar.status()["holds"].as_array().unwrap().clone()
}

fn refused_start(sidecar: &Sidecar, flags: &[&str]) -> (Option<i32>, String) {
    let output = sidecar.wrap(flags, &["true"]).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_held_device_is_stopped_and_denied_without_the_network_until_it_is_released() {
    let mut authority = Authority::start();
    let sidecar = start(&authority);
    let mut held = Agent::start(&sidecar, &["--device", "agent:1"], OBEDIENT);
    let other = Agent::start(&sidecar, &["--device", "agent:2"], OBEDIENT);
    let answer = post(&sidecar.socket(), "/v1/hold", &json!({"device": "agent:1"}));
    assert_eq!((answer.status, &answer.json()["devices"]), (200, &json!(["agent:1"])), "{answer:?}");
    assert_eq!(answer.json()["run_ids"].as_array().unwrap().len(), 1);
    assert_eq!(answer.json()["problem"], Value::Null);
    assert_eq!(held.wrapped.exit_code(), 77, "{}", held.wrapped.stderr());
    assert!(held.wrapped.stderr().contains("LOCAL_STOP"), "{}", held.wrapped.stderr());
    let check = |device: &str| sidecar.get(&format!("/v1/check?device={device}")).unwrap();
    assert_eq!((check("agent:1").status, check("agent:1").code().as_str()), (403, "LOCAL_STOP"));
    assert_eq!(sidecar.check().status, 200, "the host is not held");
    assert!(other.is_alive() && other.terms() == 0);
    assert_eq!(holds(&sidecar)[0]["device_id"], "agent:1");
    authority.kill();
    assert_eq!((check("agent:1").status, check("agent:1").code().as_str()), (403, "LOCAL_STOP"));
    let (code, said) = refused_start(&sidecar, &["--device", "agent:1"]);
    assert!(code == Some(77) && said.contains("machineid release"), "{code:?} {said}");
    authority.start_again();
    let answer = post(&sidecar.socket(), "/v1/release", &json!({"device": "agent:1"}));
    assert_eq!((answer.status, &answer.json()["devices"]), (200, &json!(["agent:1"])), "{answer:?}");
    eventually("the authority decides again", || check("agent:1").status == 200);
    assert_eq!(holds(&sidecar), Vec::<Value>::new());
    let answer = post(&sidecar.socket(), "/v1/release", &json!({"device": "agent:1"}));
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[test]
fn holding_all_holds_the_host_which_rules_every_agent() {
    let authority = Authority::start();
    let sidecar = start(&authority);
    let mut own = Agent::start(&sidecar, &["--device", "agent:1"], OBEDIENT);
    let mut hosts = Agent::start(&sidecar, &[], OBEDIENT);
    let answer = post(&sidecar.socket(), "/v1/hold", &json!({"all": true}));
    assert_eq!((answer.status, &answer.json()["devices"]), (200, &json!([DEVICE])), "{answer:?}");
    assert_eq!((own.wrapped.exit_code(), hosts.wrapped.exit_code()), (77, 77));
    for device in [DEVICE, "agent:1", "agent:9"] {
        let answer = sidecar.get(&format!("/v1/check?device={device}")).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (403, "LOCAL_STOP"), "{answer:?}");
    }
    eventually("the gate knows too", || sidecar.status()["devices"][0]["standing"] == "denied");
    assert_eq!(post(&sidecar.socket(), "/v1/release", &json!({"all": true})).status, 200);
    eventually("the host is allowed again", || sidecar.check().status == 200);
    assert_eq!(refused_start(&sidecar, &[]).0, Some(0));
}

#[test]
fn a_hold_survives_the_daemon_and_stops_what_lives_on() {
    let authority = Authority::start();
    let mut sidecar = start(&authority);
    post(&sidecar.socket(), "/v1/hold", &json!({"device": "agent:1"}));
    sidecar.kill();
    sidecar.start_again();
    assert_eq!(holds(&sidecar).len(), 1);
    assert_eq!(refused_start(&sidecar, &["--device", "agent:1"]).0, Some(77));
    sidecar.terminate();
    let state = sidecar.directory().join("state");
    let mut files = std::fs::read_dir(&state).unwrap().map(|file| file.unwrap().path());
    let file = files.find(|path| path.to_string_lossy().contains("holds-")).unwrap();
    std::fs::write(&file, "{").unwrap();
    let output = sidecar.setup().command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("remove it to release"), "{said}");
    std::fs::remove_file(file).unwrap();
    sidecar.start_again();
    assert_eq!(holds(&sidecar), Vec::<Value>::new());
}

#[test]
fn an_ordinary_user_may_neither_hold_nor_release() {
    if !is_root("a hold as another user") {
        return;
    }
    let authority = Authority::start();
    let sidecar = start(&authority);
    let mut theirs = Agent::start_as(NOBODY, &sidecar, &["--name", "theirs"], OBEDIENT);
    for (path, request) in [
        ("/v1/hold", json!({"all": true})),
        ("/v1/hold", json!({"device": DEVICE})),
        ("/v1/release", json!({"all": true})),
    ] {
        let (status, answer) = post_as(NOBODY, &[], &sidecar.socket(), path, &request);
        assert_eq!((status, &answer["allowed"]), (403, &json!(false)), "{answer}");
        assert!(answer["reason"].as_str().unwrap().contains("root"), "{answer}");
    }
    assert!(theirs.is_alive() && holds(&sidecar).is_empty());
    let text = sidecar.get("/metrics").unwrap().body;
    assert!(text.contains("machineid_sidecar_peers_rejected_total{reason=\"not_privileged\"} 3"), "{text}");
    assert_eq!(post_as(NOBODY, &[], &sidecar.socket(), "/v1/stop", &json!({"name": "theirs"})).0, 200);
    assert_eq!(theirs.wrapped.exit_code(), 77);
}

#[test]
fn what_is_no_hold_is_refused() {
    let authority = Authority::start();
    let sidecar = start(&authority);
    for request in [json!({}), json!({"all": false}), json!({"device": "a b"}), json!({"all": true, "device": "x"})] {
        for path in ["/v1/hold", "/v1/release"] {
            let answer = post(&sidecar.socket(), path, &request);
            assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"), "{path} {request}: {answer:?}");
        }
    }
    assert!(holds(&sidecar).is_empty() && sidecar.check().status == 200);
}
