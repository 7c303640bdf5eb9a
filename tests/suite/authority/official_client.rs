//! The service's own Python client, unmodified, against this authority.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::authority::Authority;
use crate::harness::official_client::{self, python};

/// What the client returned, by step.
fn drive(python: &Path, authority: &Authority, key: &str) -> HashMap<String, Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/official_client/drive.py");
    let lines = official_client::run(python, &[script, &authority.url()], key);
    lines
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            (line["step"].as_str().unwrap().to_owned(), line["value"].take())
        })
        .collect()
}

#[test]
fn the_official_client_drives_every_method_and_understands_every_answer() {
    let Some(python) = python() else { return };
    let authority = Authority::start();
    let org = authority.org("free");
    let steps = drive(&python, &authority, &org.key);
    let expect = |step: &str, fields: Value| {
        let answer = steps.get(step).unwrap_or_else(|| panic!("no step {step}"));
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(answer.get(name), Some(value), "{step}: {name} in {answer}");
        }
        assert_eq!(answer["request_id"].as_str().map(str::len), Some(36), "{step}");
    };
    let allow = || json!({"allowed": true, "code": "ALLOW", "handler": "devices/validate"});
    let deny = |code: &str| json!({"allowed": false, "code": code});
    let full =
        || json!({"status": "blocked", "error": "device_limit_reached", "limit": 3, "devicesUsed": 3, "remaining": 0});
    let ok = |handler: &str| json!({"status": "ok", "handler": handler});

    expect("register", json!({"status": "ok", "handler": "devices/register", "deviceId": "agent:a", "devicesUsed": 1}));
    expect("register again", json!({"status": "exists"}));
    expect("validate", allow());
    expect("revoke", ok("devices/revoke"));
    expect("validate revoked", deny("DEVICE_REVOKED"));
    expect("register revoked", json!({"status": "revoked", "error": "device_revoked"}));
    expect("unrevoke", ok("devices/unrevoke"));
    expect("validate unrevoked", allow());
    expect("restore", ok("devices/unrevoke"));
    expect("register full", full());
    expect("validate full", deny("DEVICE_NOT_FOUND"));
    expect("usage", json!({"status": "ok", "planTier": "free", "planState": "active", "limit": 3, "devicesUsed": 3}));
    expect("list", json!({"status": "ok", "handler": "devices/list", "devicesUsed": 3}));
    let listed: Vec<_> =
        steps["list"]["devices"].as_array().unwrap().iter().map(|d| (&d["deviceId"], &d["status"])).collect();
    let active = json!("active");
    assert_eq!(listed, [(&json!("agent:a"), &active), (&json!("agent:b"), &active), (&json!("agent:c"), &active)]);
    expect("register d", json!({"status": "ok"}));
    expect("unrevoke full", full());
    expect("remove", ok("devices/remove"));
    expect("validate removed", deny("DEVICE_NOT_FOUND"));
    expect("remove again", json!({"status": "error", "error": "not_found"}));
    expect("revoke unknown", json!({"status": "error", "error": "not_found"}));
    expect("validate invalid", deny("INVALID_DEVICE_ID"));
    expect("register invalid", json!({"status": "error", "code": "INVALID_DEVICE_ID"}));
    expect("wrong key", deny("INVALID_ORG_KEY"));
    expect("wrong key usage", json!({"status": "error", "error": "invalid_org_key"}));
    assert_eq!(steps["not called"], json!([]));
}
