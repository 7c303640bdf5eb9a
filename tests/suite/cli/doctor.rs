//! `machineid doctor`: what it finds on the real host, with and without a real daemon.

use std::fs;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use super::confirm::on_a_terminal;
use super::fixture::{Ran, RunToEnd, machineid};
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, Sidecar, chmod};

const NOBODY: u32 = 65_534;

fn levels(ran: &Ran) -> Vec<(String, String)> {
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    ran.json()["checks"].as_array().unwrap().iter().map(|check| (text(check, "what"), text(check, "level"))).collect()
}

/// What a check found, with its remedy.
fn found(ran: &Ran, what: &str) -> String {
    let report = ran.json();
    let all = report["checks"].as_array().unwrap().iter().filter(|check| check["what"] == what);
    let texts: Vec<String> = all
        .map(|check| format!("{}; {}", check["found"].as_str().unwrap(), check["remedy"].as_str().unwrap_or_default()))
        .collect();
    assert!(!texts.is_empty(), "no {what}: {report}");
    texts.join("\n")
}

fn level(ran: &Ran, what: &str) -> String {
    levels(ran).into_iter().find(|(name, _)| name == what).unwrap_or_else(|| panic!("no {what}: {ran:?}")).1
}

fn ask(sidecar: &Sidecar, args: &[&str]) -> Ran {
    sidecar.machineid(args).into()
}

#[test]
fn without_a_daemon_that_line_fails_and_the_others_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let ran = machineid(&["doctor", "--json", "--socket", socket.to_str().unwrap()]).ran();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.json()["result"], "fail");
    assert_eq!(level(&ran, "daemon"), "fail");
    assert!(found(&ran, "daemon").contains("nothing listens on"), "{ran:?}");
    for what in ["versions", "clock", "containment", "cgroup", "pidns", "kernel", "/proc", "escape route"] {
        assert_ne!(level(&ran, what), "fail", "{ran:?}");
    }
    let ran = machineid(&["doctor", "--socket", socket.to_str().unwrap()]).ran();
    assert_eq!(ran.code, 1);
    assert!(ran.out.lines().any(|line| line.starts_with("fail  daemon")), "{ran:?}");
    assert!(ran.out.lines().last().unwrap().starts_with("1 failed, "), "{ran:?}");
}

#[test]
fn beside_a_daemon_nothing_fails_and_a_deny_is_told_with_its_remedy() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "doctor-host:1").start();
    let ran = ask(&sidecar, &["doctor", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for what in ["versions", "socket", "daemon", "standing", "authority", "clock", "stop bound", "past stops"] {
        assert_eq!(level(&ran, what), "ok", "{what}: {}", ran.out);
    }
    assert!(found(&ran, "daemon").contains(&format!("pid {}", sidecar.pid())), "{ran:?}");
    assert!(found(&ran, "stop bound").contains("while the authority answers"), "{ran:?}");
    // The daemon runs as this test's user: whoever that is, its agents could read the key.
    assert_eq!(level(&ran, "org key"), "warn", "{ran:?}");

    org.device("revoke", "doctor-host:1");
    crate::harness::wait::eventually("the deny arrives", || sidecar.check().status == 403);
    let ran = ask(&sidecar, &["doctor", "--json"]);
    assert_eq!((ran.code, level(&ran, "standing").as_str()), (0, "warn"), "{ran:?}");
    assert!(found(&ran, "standing").contains("machineid unrevoke doctor-host:1"), "{ran:?}");
}

/// What the doctor expects must be what the drill got, and what it says for people must be the same.
fn agree(doctor: &Ran, drill: &Ran) {
    assert_eq!(drill.code, 0, "{drill:?}");
    let (auto, got) = (&doctor.json()["auto"], drill.json());
    assert_eq!(
        (&auto["containment"], &auto["holds_against"]),
        (&got["containment"], &got["holds_against"]),
        "{doctor:?}"
    );
    let text = found(doctor, "containment");
    assert!(text.contains(&format!("agents get {}", auto["containment"].as_str().unwrap())), "{text}");
    assert_eq!(text.contains("it holds against hostile agents"), auto["holds_against"] == "hostile", "{text}");
}

#[test]
fn what_the_doctor_expects_is_what_a_drill_gets() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "doctor-host:2").start();
    agree(&ask(&sidecar, &["doctor", "--json"]), &ask(&sidecar, &["drill", "--json"]));
}

#[test]
fn an_ordinary_user_beside_a_daemon_of_roots_gets_what_the_doctor_says() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can start a daemon of root's");
        return;
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let host = org.with_role(&["--role", "host"]);
    let mut setup = Setup::of(&host, &authority.url(), "doctor-host:3");
    "mode = \"0666\"".clone_into(&mut setup.local);
    let sidecar = setup.start();
    chmod(sidecar.directory(), 0o755);
    chmod(&sidecar.directory().join("s"), 0o755);
    let as_nobody = |args: &[&str]| -> Ran {
        let mut command: Command = machineid(args);
        command.env("MACHINEID_SOCKET", sidecar.socket()).uid(NOBODY).gid(NOBODY);
        command.ran()
    };
    let ran = as_nobody(&["doctor", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(level(&ran, "org key"), "ok", "{ran:?}");
    assert_eq!(level(&ran, "socket"), "warn", "everybody may open it: {ran:?}");
    agree(&ran, &as_nobody(&["drill", "--json"]));
}

#[test]
fn services_that_would_start_something_outside_the_tree_are_named_while_they_run() {
    let directory = tempfile::tempdir().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let tmux = directory.path().join(format!("tmux-{uid}"));
    fs::create_dir(&tmux).unwrap();
    let sockets = [tmux.join("work"), directory.path().join("engine.sock"), directory.path().join("bus")];
    let ask = || {
        let mut command = machineid(&["doctor", "--json"]);
        command.env("TMUX_TMPDIR", directory.path()).env("XDG_RUNTIME_DIR", directory.path());
        command.env("DOCKER_HOST", format!("unix://{}", sockets[1].display()));
        found(&command.ran(), "escape route")
    };
    let listeners: Vec<_> = sockets.iter().map(|socket| UnixListener::bind(socket).unwrap()).collect();
    let routes = ask();
    for socket in &sockets {
        assert!(routes.contains(socket.to_str().unwrap()), "{}: {routes}", socket.display());
    }
    drop(listeners);
    let routes = ask();
    for socket in &sockets {
        assert!(!routes.contains(socket.to_str().unwrap()), "nobody listens any more: {routes}");
    }
}

#[test]
fn on_a_terminal_no_line_is_wider_than_it() {
    let (code, screen) = on_a_terminal(machineid(&["doctor", "--socket", "/nonexistent/s"]), 80, None);
    assert_eq!(code, 1, "{screen}");
    for line in screen.lines() {
        let colours = ["\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"];
        let plain = colours.iter().fold(line.to_owned(), |text, colour| text.replace(colour, ""));
        assert!(plain.trim_end().chars().count() <= 80, "{plain:?}");
    }
    assert!(screen.lines().count() > 12, "it is folded: {screen}");
}
