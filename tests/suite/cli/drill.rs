//! `machineid drill`: real canaries under real enforcement, and what it makes of enforcement that fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture::{Ran, RunToEnd, Scripted, machineid, response};
use crate::harness::authority::{Authority, Org};
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::eventually;
use crate::harness::wrapper::{Running, with_mark};

fn daemon(org: &Org<'_>, url: &str, device: &str, grace: &str) -> Sidecar {
    let mut setup = Setup::of(org, url, device);
    setup.enforcement = format!("interval = \"200ms\"\nlease = \"6s\"\nstop_grace = \"{grace}\"");
    setup.start()
}

/// A drill whose directory is below one of this test's own, so that whatever it leaves can be found.
fn drill(sidecar: &Sidecar, scratch: &TempDir, args: &[&str]) -> Command {
    let mut command = machineid(&[&["drill", "--json"], args].concat());
    command.env("MACHINEID_SOCKET", sidecar.socket()).env("TMPDIR", scratch.path());
    command
}

/// No process that was told this directory is alive, and nothing is in it.
fn is_clean(scratch: &TempDir) -> bool {
    let empty = fs::read_dir(scratch.path()).unwrap().next().is_none();
    with_mark(scratch.path().to_str().unwrap()).is_empty() && empty
}

fn is_passed(report: &Value, containment: &str) {
    assert_eq!(report["containment"], containment, "{report}");
    assert_eq!(report["survivors"], json!([]), "{report}");
    assert_eq!(report["others_alive"], json!([]), "{report}");
    assert_eq!((&report["wrapper_exit"], &report["daemon"]["confirmed"]), (&77.into(), &true.into()), "{report}");
    let canaries = report["canaries"].as_array().unwrap();
    let names: Vec<_> = canaries.iter().map(|canary| canary["canary"].as_str().unwrap()).collect();
    assert_eq!(names, ["leader", "session", "stubborn", "orphan"]);
    let after = |name: &str| canaries.iter().find(|canary| canary["canary"] == name).unwrap()["gone_after_ms"].as_u64();
    assert!(after("stubborn") >= Some(1_000), "it must have had its grace: {report}");
    assert_eq!(
        report["took_ms"].as_u64(),
        canaries.iter().map(|canary| canary["gone_after_ms"].as_u64()).max().unwrap()
    );
}

#[test]
fn every_canary_is_gone_in_each_containment_and_nothing_is_left() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = daemon(&org, &authority.url(), "drill-host:1", "1s");
    let scratch = tempfile::tempdir().unwrap();
    let doctor: Ran = sidecar.machineid(&["doctor", "--json"]).into();
    let has = |what: &str| {
        let report = doctor.json();
        report["checks"].as_array().unwrap().iter().any(|check| check["what"] == what && check["level"] == "ok")
    };
    for mode in ["subreaper", "cgroup", "pidns"] {
        if mode != "subreaper" && !has(mode) {
            println!("skipped: {mode} is not available here");
            continue;
        }
        let ran = drill(&sidecar, &scratch, &["--containment", mode]).ran();
        assert_eq!(ran.code, 0, "{mode}: {ran:?}");
        is_passed(&ran.json(), mode);
        assert!(is_clean(&scratch), "{mode}");
    }
    let ran: Ran = sidecar.machineid(&["drill"]).into();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("passed: 4 processes gone") && ran.out.contains("holds against"), "{ran:?}");
    assert!(ran.out.contains("a child that ignores SIGTERM"), "{ran:?}");
}

#[test]
fn a_denied_host_and_no_daemon_have_exit_codes_of_their_own() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = daemon(&org, &authority.url(), "drill-host:2", "1s");
    let scratch = tempfile::tempdir().unwrap();
    org.device("revoke", "drill-host:2");
    eventually("the deny arrives", || sidecar.check().status == 403);
    let ran = drill(&sidecar, &scratch, &[]).ran();
    assert_eq!(ran.code, 77, "{ran:?}");
    assert!(ran.err.contains("no canary tree was started") && ran.err.contains("DEVICE_REVOKED"), "{ran:?}");
    assert!(is_clean(&scratch));
    let ran = machineid(&["drill", "--socket", "/nonexistent/s"]).ran();
    assert!(ran.code == 75 && ran.err.contains("nothing listens on"), "{ran:?}");
    assert_eq!(machineid(&["drill", "--containment", "docker"]).ran().code, 2);
}

#[test]
fn an_interrupted_drill_leaves_nothing_behind() {
    let authority = Authority::start();
    let org = authority.org("pro");
    // A grace that would outlast the test: what ends the canaries is the drill's own clean-up.
    let sidecar = daemon(&org, &authority.url(), "drill-host:3", "5m");
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, None)] {
        let scratch = tempfile::tempdir().unwrap();
        let mark = scratch.path().to_str().unwrap();
        let mut command = drill(&sidecar, &scratch, &[]);
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        eventually("the stubborn canary alone is left", || {
            let lines: Vec<String> = with_mark(mark).iter().map(|pid| command_line(*pid)).collect();
            lines.iter().any(|line| line.contains("stubborn"))
                && !lines.iter().any(|line| line.contains("orphan"))
                && lines.len() > 1
                && stopping(&sidecar)
        });
        running.signal(signal);
        let mut ended = None;
        eventually("the drill ends", || {
            ended = running.0.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), code, "{signal:?}");
        if code.is_some() {
            assert!(is_clean(&scratch), "{signal:?}: {:?}", with_mark(mark));
        }
        // After SIGKILL the canaries notice by themselves, and the wrapper goes with them.
        eventually("no process is left", || with_mark(mark).is_empty());
    }
}

fn command_line(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn stopping(sidecar: &Sidecar) -> bool {
    sidecar.status()["agents"].as_array().unwrap().iter().any(|agent| agent["state"] == "stopping")
}

const RUN: &str = "000102030405060708090a0b0c0d0e0f";

/// This program with something else for a wrapper beside it.
fn beside(directory: &Path, wrapper: &str) -> Command {
    let program = directory.join("bin/machineid");
    fs::create_dir_all(directory.join("bin")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_machineid"), &program).unwrap();
    let script = directory.join("bin/machineid-run");
    fs::write(&script, wrapper).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", directory.join("tmp")).stdin(Stdio::null());
    fs::create_dir(directory.join("tmp")).unwrap();
    command
}

fn status() -> String {
    let agent = json!({"run_id": RUN, "pid": 1, "name": "machineid-drill", "command": [], "device_id": "host:a", "uid": 0,
        "started_at": "2026-11-23T15:00:00Z", "uptime_ms": 1, "lease_left_ms": 1, "state": "running", "stop_code": null,
        "containment": "subreaper", "holds_against": "bugs", "containment_reason": "for the test", "frozen": false,
        "killer": "daemon"});
    let status = json!({"version": "0.1.0", "pid": 1, "started_at": "2026-11-23T15:00:00Z", "socket": "/s",
        "authority": {"url": "http://127.0.0.1:1", "reachable": true, "last_answer_at": null, "last_error": null},
        "stop_bound": {"connected_ms": 100, "cut_off_ms": 100},
        "configuration": {"file": null, "key_source": "k", "key_protection": "p"},
        "devices": [], "agents": [agent], "recent_stops": []});
    response("200 OK", &status.to_string())
}

#[test]
fn a_stop_that_stops_nobody_is_seen_and_the_survivors_are_ended_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let stopped = response("200 OK", &json!({"run_ids": [RUN]}).to_string());
    let _scripted = Scripted::unix(&socket, &[status(), status(), stopped, status()]);
    // It starts the command without any supervision.
    let script =
        format!("#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nMACHINEID_RUN_ID={RUN} exec \"$@\"\n");
    let mut command = beside(directory.path(), &script);
    let ran = command.args(["drill", "--json", "--socket"]).arg(&socket).ran();
    assert_eq!(ran.code, 1, "{ran:?}");
    let report = ran.json();
    let survivors = report["survivors"].as_array().unwrap();
    assert_eq!(survivors.len(), 4, "{report}");
    assert!(report["canaries"].as_array().unwrap().iter().all(|canary| canary["gone_after_ms"].is_null()), "{report}");
    assert!(with_mark(directory.path().to_str().unwrap()).is_empty());
    assert!(fs::read_dir(directory.path().join("tmp")).unwrap().next().is_none());
}

#[test]
fn a_wrapper_that_starts_nothing_is_no_drill() {
    for (wrapper, words) in [
        ("#!/bin/sh\necho 'no cgroup to be had' >&2\nexit 125\n", "no cgroup to be had"),
        ("#!/bin/sh\nexit 0\n", "exit code 0"),
        ("#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"\n", "no run id in its environment"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let _scripted = Scripted::unix(&socket, &[status()]);
        let mut command = beside(directory.path(), wrapper);
        let ran = command.args(["drill", "--socket"]).arg(&socket).ran();
        assert!(ran.code == 1 && ran.err.contains(words), "{words}: {ran:?}");
        assert!(with_mark(directory.path().to_str().unwrap()).is_empty());
    }
}
