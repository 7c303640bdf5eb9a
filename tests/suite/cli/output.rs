//! What is printed, and on which stream.

use std::process::Stdio;

use super::fixture::{RunToEnd, Scripted, machineid, response};

#[test]
fn hostile_text_of_an_authority_does_not_reach_the_terminal() {
    let hostile = r#"{"status":"ok","devices":[{"deviceId":"a\u001b]0;x\u0007\u009b2J\u202e","status":"active","lastSeenAt":"\u001b[31mnow"}]}"#;
    let (_server, address) = Scripted::tcp(&[response("200 OK", hostile)]);
    let run = |args: &[&str]| {
        machineid(&[args, &["--url", &format!("http://{address}")]].concat()).env("MACHINEID_ORG_KEY", "org_x").ran()
    };
    let is_hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    let ran = run(&["list"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.out.contains(is_hostile), "{ran:?}");
    let ran = run(&["list", "--json"]);
    assert!(!ran.out.contains(is_hostile), "{ran:?}");
    let id = ran.json()["devices"][0]["deviceId"].as_str().unwrap().to_owned();
    assert_eq!(id, "a\u{1b}]0;x\u{7}\u{9b}2J\u{202e}", "JSON keeps it whole, escaped");

    let refusal = r#"{"status":"error","error":"no\u001b[2J\u009b1m"}"#;
    let (_server, address) = Scripted::tcp(&[response("400 Bad Request", refusal)]);
    let ran = machineid(&["usage", "--url", &format!("http://{address}")]).env("MACHINEID_ORG_KEY", "org_x").ran();
    assert!(ran.code == 1 && !ran.err.contains(is_hostile), "{ran:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error_and_stops_nothing() {
    let items: Vec<_> =
        (0..20_000).map(|n| serde_json::json!({"deviceId": format!("worker:{n}"), "status": "active"})).collect();
    let body = serde_json::json!({"status": "ok", "devices": items}).to_string();
    let (_server, address) = Scripted::tcp(&[response("200 OK", &body)]);
    for json in [None, Some("--json")] {
        let mut command = machineid(&["list", "--url", &format!("http://{address}")]);
        command.args(json).env("MACHINEID_ORG_KEY", "org_x").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("machineid: "), "{output:?}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let (_server, address) = Scripted::tcp(&[response("200 OK", r#"{"planTier":"free"}"#)]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = machineid(&["usage", "--url", &format!("http://{address}")]);
    let output = command
        .env("MACHINEID_ORG_KEY", "org_x")
        .stdout(Stdio::from(full))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not be written"), "{output:?}");
}

#[test]
fn help_shows_what_there_is_and_nothing_else() {
    let ran = machineid(&["--help"]).ran();
    assert_eq!(ran.code, 0);
    for verb in [
        "check", "status", "register", "validate", "revoke", "unrevoke", "restore", "remove", "list", "usage",
        "checkout", "key", "org", "stop", "release", "events", "audit", "doctor", "drill",
    ] {
        assert!(ran.out.contains(verb), "{verb}: {}", ran.out);
    }
    assert!(!ran.out.contains("drill-canary"), "{}", ran.out);
    let ran = machineid(&["remove", "--help"]).ran();
    assert!(ran.out.contains("Remove devices, which frees their places (to stop a device, revoke it)"), "{ran:?}");
    // With what it was built from behind it.
    let version = machineid(&["--version"]).ran().out;
    assert!(version.starts_with(concat!("machineid ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
    assert_eq!(machineid(&[]).ran().code, 2);
    assert_eq!(machineid(&["nonsense"]).ran().code, 2);
}
