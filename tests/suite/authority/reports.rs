//! `/devices/report`, `/org/fleet`, `/org/stops`: what is told is kept, for keys that may read it, and decides nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::authority::{Authority, Org};
use crate::harness::wait::let_time_pass;

const SIDECAR: &str = "000000000000000000000000000000a1";

#[expect(clippy::needless_pass_by_value, reason = "made where they are passed")]
fn report(devices: Value, stops: Value) -> Value {
    json!({
        "sidecarId": SIDECAR, "sequence": 1, "version": "9", "hostDeviceId": "a", "push": true, "agents": 2,
        "stopBound": {"connectedMs": 19_500, "cutOffMs": 41_000}, "devices": devices, "stops": stops,
    })
}

fn device(id: &str, standing: &str, stamp: Option<&str>, agents: u32) -> Value {
    json!({"deviceId": id, "standing": standing, "revokedAt": stamp, "leaseLeftMs": 1_000, "agents": agents, "stopping": 0})
}

fn fleet(org: &Org<'_>) -> Vec<Value> {
    org.get("/org/fleet").json()["devices"].as_array().unwrap().clone()
}

fn tell(org: &Org<'_>, body: &Value) {
    let reply = org.post("/devices/report", body);
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[test]
fn what_a_sidecar_tells_can_be_read_until_it_tells_something_else() {
    let authority = Authority::start();
    let org = authority.org("pro");
    for id in ["a", "b"] {
        org.device("register", id);
    }
    let unknown = device("ghost", "allowed", None, 1);
    tell(&org, &report(json!([device("a", "allowed", None, 2), device("b", "allowed", None, 0), unknown]), json!([])));
    let told = fleet(&org);
    assert_eq!(told.len(), 2, "a report makes no device");
    let sidecar = &told[0]["sidecars"][0];
    assert_eq!((&sidecar["sidecarId"], &sidecar["agents"]), (&json!(SIDECAR), &json!(2)));
    assert_eq!((&sidecar["stopBound"]["cutOffMs"], &sidecar["stop"]), (&json!(41_000), &Value::Null));
    tell(&org, &report(json!([device("a", "allowed", None, 1)]), json!([])));
    let told = fleet(&org);
    assert_eq!((&told[0]["sidecars"][0]["agents"], &told[1]["sidecars"]), (&json!(1), &json!([])));
}

#[test]
fn only_the_echo_of_this_very_revoke_confirms_it() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.device("register", "a");
    org.device("revoke", "a");
    let first = org.device("validate", "a").json()["revokedAt"].as_str().unwrap().to_owned();
    let state = || fleet(&org)[0]["sidecars"][0]["stop"]["state"].clone();
    tell(&org, &report(json!([device("a", "denied", Some(&first), 0)]), json!([])));
    assert_eq!(state(), "confirmed");
    org.device("unrevoke", "a");
    org.device("revoke", "a");
    let stop = fleet(&org)[0]["sidecars"][0]["stop"].clone();
    assert_eq!(stop["state"], "pending", "what confirmed the first revoke says nothing about the second");
    let left = stop["inMs"].as_u64().unwrap();
    assert!((30_000..=41_000).contains(&left), "its lease ends it: {stop}");
    let second = org.device("validate", "a").json()["revokedAt"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    tell(&org, &report(json!([device("a", "denied", Some(&second), 1)]), json!([])));
    assert_eq!(state(), "stopping");
    tell(&org, &report(json!([device("a", "denied", Some(&second), 0)]), json!([])));
    assert_eq!(state(), "confirmed");
}

#[test]
fn a_validation_names_the_revoke_in_every_deny_of_a_revoked_device_and_in_no_allow() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.device("register", "a");
    assert!(org.device("validate", "a").json().get("revokedAt").is_none());
    org.device("revoke", "a");
    let stamp = org.device("validate", "a").json()["revokedAt"].clone();
    authority.admin_json(&["disable", &org.id]);
    let disabled = org.device("validate", "a").json();
    assert_eq!((&disabled["code"], &disabled["revokedAt"]), (&json!("ORG_DISABLED"), &stamp));
    assert_eq!(org.device("revoke", "a").status, 200);
    assert_eq!(org.device("validate", "a").json()["revokedAt"], stamp, "revoking again is the same revoke");
}

#[test]
fn stops_are_remembered_bounded_and_harmless_to_whoever_reads_them() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.device("register", "a");
    // A stop that began before the device was registered is one of an earlier device of that name.
    let_time_pass(Duration::from_millis(50));
    let stop = |number: u32, confirmed: bool| {
        json!({
            "deviceId": "a", "runId": format!("{number:032x}"), "name": format!("<script>\u{202e}{number}"),
            "code": "DEVICE_REVOKED", "agoMs": 30 - number, "tookMs": 12, "signalled": 1, "killed": 0,
            "confirmed": confirmed, "survivors": [{"pid": 7, "reason": "\u{1b}[2J"}],
        })
    };
    for batch in (0..30).collect::<Vec<u32>>().chunks(10) {
        let stops: Vec<Value> = batch.iter().map(|number| stop(*number, false)).collect();
        tell(&org, &report(json!([device("a", "denied", None, 0)]), json!(stops)));
    }
    tell(&org, &report(json!([device("a", "denied", None, 0)]), json!([stop(29, true)])));
    let reply = org.get("/org/stops?deviceId=a");
    assert!(!reply.text.contains('\u{202e}') && !reply.text.contains("\\u001b"), "{}", reply.text);
    let stops = reply.json()["stops"].as_array().unwrap().clone();
    assert_eq!(stops.len(), 20);
    assert_eq!((&stops[0]["runId"], &stops[0]["confirmed"]), (&json!(format!("{:032x}", 29)), &json!(true)));
    assert_eq!(fleet(&org)[0]["lastStop"]["runId"], stops[0]["runId"]);
}

#[test]
fn reports_need_the_organisations_key_and_some_sense_and_survive_a_crash() {
    let mut authority = Authority::start();
    let made = authority.admin_json(&["create"]);
    let key = made["orgApiKey"].as_str().unwrap().to_owned();
    let post = |authority: &Authority, key: &str, body: &Value| {
        authority.call("POST", "/devices/report", Some(key), body.to_string().as_bytes()).status
    };
    let good = report(json!([device("a", "allowed", None, 3)]), json!([]));
    assert_eq!(post(&authority, "org_wrong", &good), 401);
    assert_eq!(post(&authority, &key, &json!({"sidecarId": "x"})), 400);
    assert_eq!(post(&authority, &key, &report(json!([]), json!([]))), 200, "a sidecar without devices");
    let id = br#"{"deviceId":"a"}"#;
    assert_eq!(authority.call("POST", "/devices/register", Some(&key), id).status, 200);
    assert_eq!(post(&authority, &key, &good), 200);
    authority.kill();
    authority.start_again();
    let told = authority.call("GET", "/org/fleet?limit=1&q=a&status=active", Some(&key), b"").json();
    assert_eq!(told["devices"][0]["sidecars"][0]["agents"], 3, "what was answered is kept");
    for query in ["limit=0", "limit=1001", "status=maybe"] {
        assert_eq!(authority.call("GET", &format!("/org/fleet?{query}"), Some(&key), b"").status, 400);
    }
    let other = authority.admin_json(&["create"])["orgApiKey"].as_str().unwrap().to_owned();
    assert_eq!(authority.call("GET", "/org/fleet", Some(&other), b"").json()["devices"], json!([]));
}
