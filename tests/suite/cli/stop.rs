//! `machineid stop`: real agents under a real daemon; a scripted one where no real one would leave a survivor.

use serde_json::{Value, json};

use super::confirm::on_a_terminal;
use super::fixture::{Ran, RunToEnd, Scripted, machineid, response};
use crate::harness::authority::Authority;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::{eventually, until};
use crate::harness::wrapper::{somebody_runs, unique_sleep, with_mark};

fn ask(sidecar: &Sidecar, args: &[&str]) -> Ran {
    sidecar.machineid(args).into()
}

fn daemon(authority: &Authority, device: &str) -> Sidecar {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), device);
    "allow = [\"worker:*\"]".clone_into(&mut setup.devices);
    setup.start()
}

fn agents(sidecar: &Sidecar) -> Vec<Value> {
    sidecar.status()["agents"].as_array().unwrap().clone()
}

/// Starts an agent and waits until the daemon lists it as running.
fn start(sidecar: &Sidecar, flags: &[&str], command: &[&str]) -> (Wrapped, Value) {
    let before: Vec<Value> = agents(sidecar).iter().map(|agent| agent["run_id"].clone()).collect();
    let wrapped = Wrapped::start(sidecar.wrap(flags, command));
    let new = |agent: &Value| agent["state"] == "running" && !before.contains(&agent["run_id"]);
    let agent = until("the agent runs", || agents(sidecar).into_iter().find(new));
    (wrapped, agent)
}

#[test]
fn an_agent_is_stopped_by_name_by_pid_by_run_id_and_by_device() {
    let authority = Authority::start();
    let sidecar = daemon(&authority, "stop-host:1");
    let (mut bystander, _) = start(&sidecar, &["--name", "bystander"], &["sleep", "1000"]);
    for by in ["name", "pid", "run_id", "device"] {
        let mark = unique_sleep();
        let script = format!("setsid sleep {mark} & exec sleep {mark}");
        let (mut wrapped, agent) =
            start(&sidecar, &["--name", "scraper", "--device", "worker:1"], &["sh", "-c", &script]);
        eventually("both run", || with_mark(&format!("sleep\0{mark}")).len() == 2);
        let word = match by {
            "name" => vec!["scraper".to_owned()],
            "pid" => vec![agent["pid"].to_string()],
            "run_id" => vec![agent["run_id"].as_str().unwrap().to_owned()],
            _ => vec!["--device".to_owned(), "worker:1".to_owned()],
        };
        let words: Vec<&str> = word.iter().map(String::as_str).collect();
        let ran = ask(&sidecar, &[&["stop", "--json"], &words[..]].concat());
        assert_eq!(ran.code, 0, "by {by}: {ran:?}");
        // Not the mark alone: the wrapper's command line has it too, and it may take a moment more to end.
        assert!(!somebody_runs(&format!("sleep\0{mark}")), "by {by}: it was said to be gone");
        let report = ran.json();
        assert_eq!((&report["requested"], &report["confirmed"]), (&1.into(), &1.into()), "{report}");
        let stop = &report["stops"][0];
        assert_eq!((&stop["outcome"], &stop["run_id"]), (&"gone".into(), &agent["run_id"]), "{report}");
        assert_eq!(
            (&stop["report"]["code"], &stop["report"]["survivors"]),
            (&"LOCAL_STOP".into(), &json!([])),
            "{report}"
        );
        assert_eq!(wrapped.exit_code(), 77, "by {by}");
    }
    assert!(!bystander.has_ended(), "another agent was stopped");
    let ran = ask(&sidecar, &["stop", "bystander"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.starts_with("stopping bystander (pid "), "{ran:?}");
    let row = ran.out.lines().nth(1).unwrap();
    assert!(row.starts_with("bystander (pid ") && row.contains("gone") && row.contains("signalled"), "{ran:?}");
    assert_eq!(bystander.exit_code(), 77);
    let page = ask(&sidecar, &["status"]).out;
    assert!(page.contains("bystander") && page.contains("confirmed") && page.contains("LOCAL_STOP"), "{page}");
}

#[test]
fn stopping_all_is_confirmed_by_the_number() {
    let authority = Authority::start();
    let sidecar = daemon(&authority, "stop-host:2");
    let (mut one, _) = start(&sidecar, &[], &["sleep", "1000"]);
    let (mut two, _) = start(&sidecar, &[], &["sleep", "1000"]);
    let ran = ask(&sidecar, &["stop", "--all"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("stop 2 agents on this host") && ran.err.contains("--yes"), "{ran:?}");

    let command = || {
        let mut command = machineid(&["stop", "--all"]);
        command.env("MACHINEID_SOCKET", sidecar.socket());
        command
    };
    let (code, screen) = on_a_terminal(command(), 80, Some("3"));
    assert!(code == 1 && screen.contains("not confirmed"), "{screen}");
    assert!(!one.has_ended() && !two.has_ended());
    let (code, screen) = on_a_terminal(command(), 80, Some("2"));
    assert_eq!(code, 0, "{screen}");
    assert_eq!((one.exit_code(), two.exit_code()), (77, 77));

    let ran = ask(&sidecar, &["stop", "--all", "--yes"]);
    assert!(ran.code == 1 && ran.err.contains("no agent runs here"), "{ran:?}");
}

#[test]
fn without_waiting_it_is_requested_and_not_confirmed() {
    let authority = Authority::start();
    let sidecar = daemon(&authority, "stop-host:3");
    let mark = unique_sleep();
    let script = format!("trap '' TERM; sleep {mark} & wait; sleep {mark}");
    let (mut wrapped, _) = start(&sidecar, &["--name", "stubborn"], &["sh", "-c", &script]);
    eventually("the agent is at work", || somebody_runs(&format!("sleep\0{mark}")));
    let ran = ask(&sidecar, &["stop", "stubborn", "--no-wait", "--json"]);
    assert_eq!((ran.code, &ran.json()["stops"][0]["outcome"]), (0, &"requested".into()), "{ran:?}");
    assert!(somebody_runs(&mark), "its grace has just begun");
    // The second request meets a stop that is under way, and waits for its end.
    let ran = ask(&sidecar, &["stop", "stubborn", "--json"]);
    assert_eq!((ran.code, &ran.json()["stops"][0]["outcome"]), (0, &"gone".into()), "{ran:?}");
    assert_eq!(wrapped.exit_code(), 77);
    assert!(!somebody_runs(&mark));
}

#[test]
fn who_means_nobody_is_told_who_runs() {
    let authority = Authority::start();
    let sidecar = daemon(&authority, "stop-host:4");
    let (wrapped, agent) = start(&sidecar, &["--name", "scraper"], &["sleep", "1000"]);
    let ran = ask(&sidecar, &["stop", "scrapper"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains(&format!("these run: scraper (pid {})", agent["pid"])), "{ran:?}");
    assert_eq!(ask(&sidecar, &["stop"]).code, 2, "stop what?");
    assert_eq!(ask(&sidecar, &["stop", "scraper", "--all"]).code, 2, "one or all?");
    drop(wrapped);
    let nowhere = sidecar.directory().join("none.sock");
    for words in [&["scraper"][..], &["--all", "--yes"], &["--all"]] {
        let ran = machineid(&[&["stop", "--socket", nowhere.to_str().unwrap()], words].concat()).ran();
        assert!(ran.code == 75 && ran.err.contains("nothing listens on"), "{ran:?}");
    }
}

const RUN: &str = "000102030405060708090a0b0c0d0e0f";

fn status(stops: &Value) -> String {
    let agent = json!({"run_id": RUN, "pid": 4712, "name": "scraper", "command": ["python3"], "device_id": "host:a",
        "uid": 1000, "started_at": "2026-11-23T15:00:00Z", "uptime_ms": 1, "lease_left_ms": 1, "state": "running",
        "stop_code": null, "containment": "subreaper", "holds_against": "bugs", "containment_reason": null,
        "frozen": false, "killer": "daemon"});
    let status = json!({"version": "0.1.0", "pid": 1, "started_at": "2026-11-23T15:00:00Z", "socket": "/s",
        "authority": {"url": "http://127.0.0.1:1", "reachable": true, "last_answer_at": null, "last_error": null},
        "stop_bound": {"connected_ms": 100, "cut_off_ms": 100},
        "configuration": {"file": null, "key_source": "k", "key_protection": "p"},
        "devices": [], "agents": [agent], "recent_stops": stops});
    response("200 OK", &status.to_string())
}

fn report(survivors: &Value) -> Value {
    json!([{"run_id": RUN, "name": "scraper", "device_id": "host:a", "code": "LOCAL_STOP", "request_id": null,
        "began_at": "2026-11-23T15:00:00Z", "mechanism": "subreaper", "holds_against": "bugs", "signalled": 3, "killed": 2,
        "took_ms": 12000, "confirmed": false, "survivors": survivors}])
}

#[test]
fn survivors_are_named_and_the_exit_code_says_so() {
    let survivors = json!([{"pid": 4713, "reason": "it runs as another user"}]);
    for (stops, words) in [
        (report(&survivors), &["1 SURVIVOR", "pid 4713 is still alive: it runs as another user"][..]),
        (report(&json!([])), &["not confirmed"]),
        (json!([]), &["requested, not confirmed"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let stopped = response("200 OK", &json!({"run_ids": [RUN]}).to_string());
        let scripted = Scripted::unix(&socket, &[status(&json!([])), stopped, status(&stops)]);
        let ran = machineid(&["stop", "scraper", "--socket", socket.to_str().unwrap()]).ran();
        assert_eq!(ran.code, 1, "{ran:?}");
        for word in words {
            assert!(ran.out.contains(word), "{word}: {ran:?}");
        }
        let asked = &scripted.requests()[1];
        assert!(asked.starts_with("POST /v1/stop HTTP/1.1\r\n") && asked.ends_with(r#"{"name":"scraper"}"#), "{asked}");
    }
}

#[test]
fn a_stop_does_not_depend_on_a_status_that_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let odd = response("200 OK", r#"{"of":"another version"}"#);
    let stopped = response("200 OK", &json!({"run_ids": [RUN]}).to_string());
    let scripted = Scripted::unix(&socket, &[odd, stopped]);
    let ran = machineid(&["stop", "--all", "--yes", "--no-wait", "--socket", socket.to_str().unwrap()]).ran();
    assert!(ran.code == 0 && ran.out.contains(RUN), "{ran:?}");
    assert!(scripted.requests()[1].ends_with(r#"{"all":true}"#));
}

#[test]
fn a_refusal_is_a_failure_in_the_daemon_s_words() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let refusal = json!({"allowed": false, "code": "BAD_REQUEST", "request_id": null, "device_id": null,
        "validated_at": null, "age_ms": null, "reason": "nothing to stop: it has just ended"});
    let _scripted = Scripted::unix(&socket, &[status(&json!([])), response("404 Not Found", &refusal.to_string())]);
    let ran = machineid(&["stop", "scraper", "--socket", socket.to_str().unwrap()]).ran();
    assert!(ran.code == 1 && ran.err.contains("it has just ended"), "{ran:?}");
}
