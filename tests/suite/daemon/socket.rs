//! The daemon's socket, start and end.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use rustix::process::Signal;

use crate::harness::authority::{Authority, Org};
use crate::harness::sidecar::{Setup, Sidecar, exchange, write_key};
use crate::harness::wait::until;

fn allowed_host(authority: &Authority) -> (Org<'_>, Sidecar) {
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:test").start();
    (org, sidecar)
}

#[test]
fn the_socket_describes_itself_and_answers_what_it_describes() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "described-host:1").start();
    let document = sidecar.get("/v1/openapi.json").unwrap().json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 13, "{document}");
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            let path = path.replace("{device}", "described-host:1");
            // A stream of events is one that ends.
            let query = if path == "/v1/events" { "?follow=false" } else { "" };
            let request = format!("{} {path}{query} HTTP/1.0\r\nContent-Length: 0\r\n\r\n", method.to_uppercase());
            let answer = exchange(&sidecar.socket(), &request).unwrap();
            let nothing_there = answer.body.contains("there is nothing at this path");
            assert!(answer.status != 405 && !nothing_there, "{method} {path}: {answer:?}");
            let described = &operations[method]["responses"][answer.status.to_string()];
            assert!(described.is_object(), "{method} {path} answers {}, which is not described", answer.status);
        }
    }
}

#[test]
fn the_host_is_registered_on_boot_and_checked_afresh_each_time() {
    let authority = Authority::start();
    let (org, sidecar) = allowed_host(&authority);
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (200, "ALLOW"), "{answer:?}");
    assert_eq!(answer.json()["device_id"], "host:test");
    assert!(answer.head.contains("x-machineid-code: allow") && answer.head.contains("x-machineid-request-id: "));

    org.device("revoke", "host:test");
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (403, "DEVICE_REVOKED"), "{answer:?}");
    org.device("unrevoke", "host:test");
    assert_eq!(sidecar.check().status, 200);
}

#[test]
fn a_removed_device_stays_removed_through_a_restart_of_the_daemon() {
    let authority = Authority::start();
    let (org, mut sidecar) = allowed_host(&authority);
    org.device("remove", "host:test");
    assert_eq!(sidecar.check().code(), "DEVICE_NOT_FOUND");
    assert_eq!(sidecar.terminate().code(), Some(0));
    sidecar.start_again();
    assert_eq!(sidecar.check().code(), "DEVICE_NOT_FOUND");
}

#[test]
fn a_host_is_registered_once_however_many_ask_while_it_boots() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:test").start_unready();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(sidecar.check().status, 200));
        }
    });
    assert_eq!(sidecar.log().matches(" registered ").count(), 1, "{}", sidecar.log());
}

#[test]
fn a_full_plan_denies_with_a_code_of_its_own() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a", "b", "c"]);
    let sidecar = Setup::of(&org, &authority.url(), "host:test").start();
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (403, "DEVICE_LIMIT_REACHED"));
    org.device("remove", "a");
    assert_eq!(sidecar.check().status, 200, "a check tries the registration again");
}

#[test]
fn without_an_authority_it_serves_says_so_and_recovers() {
    let mut authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), "host:test");
    authority.kill();
    let sidecar = setup.start_unready();
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (503, "AUTHORITY_UNREACHABLE"), "{answer:?}");
    assert!(answer.head.contains("retry-after: "));
    assert_eq!(sidecar.get("/readyz").unwrap().status, 503);
    assert_eq!(sidecar.get("/healthz").unwrap().status, 200);
    let status = sidecar.status();
    assert_eq!(status["authority"]["reachable"], false);
    assert!(status["authority"]["last_error"].as_str().unwrap().contains("connect"), "{status}");
    authority.start_again();
    until("the gate recovers by itself", || (sidecar.get("/readyz")?.status == 200).then_some(()));
    assert_eq!(sidecar.check().status, 200);
}

#[test]
fn it_is_not_ready_any_more_when_its_newest_decision_is_older_than_the_lease() {
    let mut authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    setup.authority = setup.authority.replace("2s", "500ms");
    setup.enforcement = "interval = \"100ms\"\nlease = \"1s\"".to_owned();
    org.device("register", "host:test");
    org.device("revoke", "host:test");
    let sidecar = setup.start();
    assert_eq!(sidecar.check().status, 403, "ready is not allowed");
    authority.kill();
    until("it says so", || (sidecar.get("/readyz")?.status == 503).then_some(()));
    authority.start_again();
    until("it is ready again", || (sidecar.get("/readyz")?.status == 200).then_some(()));
}

#[test]
fn a_rotated_key_in_the_file_is_taken_without_one_failed_check() {
    let authority = Authority::start();
    let (org, sidecar) = allowed_host(&authority);
    let fresh = org.admin("rotate-key", &["--overlap", "0s"])["orgApiKey"].as_str().unwrap().to_owned();
    write_key(&sidecar.key_file(), &fresh);
    assert_eq!(sidecar.check().status, 200, "{}", sidecar.log());
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_serves_on() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), "host:test");
    let mut second = setup.command();
    let sidecar = setup.start();
    let output = second.stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("another machineid-sidecar serves"), "{text}");
    assert_eq!(sidecar.check().status, 200);
}

#[test]
fn a_stale_socket_is_replaced_but_nothing_else_is() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut sidecar = Setup::of(&org, &authority.url(), "host:test").start();
    sidecar.kill();
    assert!(fs::metadata(sidecar.socket()).unwrap().file_type().is_socket(), "a killed daemon leaves its socket");
    sidecar.start_again();
    assert_eq!(sidecar.check().status, 200);
    assert_eq!(sidecar.terminate().code(), Some(0));
    assert!(!sidecar.socket().exists(), "a daemon that ends takes its socket with it");

    let other = Setup::of(&org, &authority.url(), "host:test");
    let mut command = other.command();
    fs::write(other.socket(), "precious").unwrap();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(other.socket()).unwrap(), "precious");

    fs::remove_file(other.socket()).unwrap();
    let _listener = UnixListener::bind(other.socket()).unwrap();
    let output = other.command().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("something else serves"), "{text}");
}

#[test]
fn the_socket_has_its_mode_and_answers_bad_questions_clearly() {
    let authority = Authority::start();
    let (_org, sidecar) = allowed_host(&authority);
    let mode = fs::metadata(sidecar.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    for (path, status, code) in [
        ("/v1/check?devcie=x", 400, "BAD_REQUEST"),
        ("/v1/check?device=a%20b", 400, "BAD_REQUEST"),
        ("/v1/check?max_age=soon", 400, "BAD_REQUEST"),
        ("/v1/check?device=other", 403, "DEVICE_NOT_PERMITTED"),
        ("/v1/authz/other", 403, "DEVICE_NOT_PERMITTED"),
        ("/v1/supervise", 400, "BAD_REQUEST"),
        ("/v1/supervise?run_id=0123456789abcdef0123456789abcdef", 404, "BAD_REQUEST"),
        ("/nothing", 404, "BAD_REQUEST"),
    ] {
        let answer = sidecar.get(path).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}: {answer:?}");
        assert_eq!(answer.json()["allowed"], false);
    }
    let other_method = exchange(&sidecar.socket(), "DELETE /v1/check HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((other_method.status, other_method.code().as_str()), (405, "BAD_REQUEST"));
    assert_eq!(sidecar.get("/v1/authz/host:test/some/path?x=1").unwrap().status, 200);
    let post = "POST /v1/authz/host%3Atest HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(exchange(&sidecar.socket(), post).unwrap().status, 200);
}

#[test]
fn a_named_device_needs_permission_and_both_gates() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    setup.devices = "allow = [\"agent:*\"]".to_owned();
    let sidecar = setup.start();
    let check = |device: &str| sidecar.get(&format!("/v1/check?device={device}")).unwrap();
    assert_eq!(check("agent:1").code(), "DEVICE_NOT_FOUND", "a check registers nothing");
    org.register(&["agent:1", "agent:2"]);
    assert_eq!(check("agent:1").code(), "ALLOW");
    let stranger = check("worker:1");
    assert_eq!((stranger.code().as_str(), &stranger.json()["device_id"]), ("DEVICE_NOT_PERMITTED", &"worker:1".into()));
    org.device("revoke", "agent:1");
    assert_eq!(check("agent:1").code(), "DEVICE_REVOKED");
    assert_eq!(check("agent:2").code(), "ALLOW");
    assert_eq!(sidecar.check().code(), "ALLOW");
    org.device("revoke", "host:test");
    assert_eq!(check("agent:2").code(), "DEVICE_REVOKED", "the host rules all");
}

#[test]
fn a_kill_file_denies_without_the_network() {
    let mut authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    let kill_file = setup.directory.path().join("kill");
    setup.enforcement = format!("{}\nkill_file = \"{}\"", setup.enforcement, kill_file.display());
    let sidecar = setup.start();
    authority.kill();
    fs::write(&kill_file, "").unwrap();
    let answer = sidecar.check();
    assert_eq!((answer.status, answer.code().as_str()), (403, "LOCAL_KILL"));
    fs::remove_file(&kill_file).unwrap();
    std::os::unix::fs::symlink("/nonexistent", &kill_file).unwrap();
    assert_eq!(sidecar.check().code(), "LOCAL_KILL", "a dangling link exists");
}

#[test]
fn a_cached_answer_needs_the_configurations_leave() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut strict = Setup::of(&org, &authority.url(), "host:test");
    strict.enforcement = "interval = \"10s\"\nlease = \"30s\"".to_owned();
    let mut lenient = Setup::of(&org, &authority.url(), "host:test");
    lenient.enforcement.clone_from(&strict.enforcement);
    lenient.local = "max_age_cap = \"1m\"".to_owned();
    let (strict, lenient) = (strict.start(), lenient.start());
    let named = |sidecar: &Sidecar| {
        let answer = sidecar.get("/v1/check?max_age=30s").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["request_id"].clone()
    };
    // Again, should its own validation have come in between.
    until("one validation answers twice", || (named(&lenient) == named(&lenient)).then_some(()));
    assert_ne!(named(&strict), named(&strict), "without leave every check is fresh");
    org.device("revoke", "host:test");
    assert_eq!(strict.get("/v1/check?max_age=30s").unwrap().status, 403);
    assert_eq!(lenient.check().status, 403, "without max_age every check is fresh");
}

#[test]
fn the_key_is_in_no_log_argument_environment_or_answer() {
    let authority = Authority::start();
    let (org, sidecar) = allowed_host(&authority);
    sidecar.check();
    let proc = |name: &str| fs::read(format!("/proc/{}/{name}", sidecar.pid())).unwrap_or_default();
    let secret = org.key.strip_prefix("org_").unwrap();
    for text in [
        sidecar.log(),
        sidecar.get("/v1/status").unwrap().body,
        String::from_utf8_lossy(&proc("cmdline")).into_owned(),
        String::from_utf8_lossy(&proc("environ")).into_owned(),
    ] {
        assert!(!text.contains(secret));
    }
}

#[test]
fn sigusr1_validates_at_once_and_sighup_does_not_end_the_daemon() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    setup.enforcement = "interval = \"1h\"\nlease = \"2h\"".to_owned();
    let sidecar = setup.start();
    org.device("revoke", "host:test");
    sidecar.signal(Signal::HUP);
    sidecar.signal(Signal::USR1);
    until("the hint is followed", || (sidecar.status()["devices"][0]["standing"] == "denied").then_some(()));
}

#[test]
fn healthcheck_tells_a_living_daemon_from_a_dead_one() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), "host:test");
    let mut before = setup.command();
    let mut after = setup.command();
    assert_eq!(before.arg("healthcheck").output().unwrap().status.code(), Some(75));
    let sidecar = setup.start();
    assert_eq!(after.arg("healthcheck").output().unwrap().status.code(), Some(0));
    let mut named_behind = std::process::Command::new(crate::harness::sidecar::BINARY);
    let config = sidecar.directory().join("machineid-sidecar.toml");
    crate::harness::sidecar::clean_environment(&mut named_behind, sidecar.directory());
    named_behind.arg("healthcheck").arg("--config").arg(config);
    assert_eq!(named_behind.output().unwrap().status.code(), Some(0));
}
