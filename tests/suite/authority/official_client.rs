//! The service's own Python client, unmodified, against this authority.

use std::collections::HashMap;
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::authority::Authority;

const REMEDY: &str = "python3 -m venv target/official-client && target/official-client/bin/pip install machineid-io";

/// A Python that has the client. Without one the test is skipped, but never in CI.
#[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
fn python() -> Option<PathBuf> {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/official-client/bin/python");
    let python = env::var_os("MACHINEID_TEST_PYTHON").map_or(usual, PathBuf::from);
    let has_client = Command::new(&python).args(["-c", "import machineid"]).output().is_ok_and(|o| o.status.success());
    if has_client {
        return Some(python);
    }
    let missing = format!("{} has no official client; install it with\n    {REMEDY}", python.display());
    assert!(env::var_os("CI").is_none(), "{missing}");
    // Not `eprintln!`: the test harness would swallow that.
    let _ = writeln!(io::stderr(), "SKIPPED the test with the official client: {missing}");
    None
}

/// What the client returned, by step.
fn drive(python: &Path, authority: &Authority, key: &str) -> HashMap<String, Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/official_client/drive.py");
    let mut child = Command::new(python)
        .arg(script)
        .arg(authority.url())
        .env_remove("MACHINEID_ORG_KEY")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{key}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
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
