//! The main job: a real agent starts under enforcement, is denied, and is gone with everything it started.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::authority::{Authority, Org};
use crate::harness::official_client::{self, python};
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Setup, Sidecar, clean_environment, write_key};
use crate::harness::wait::until;

const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/agent.py");

/// An agent that works, with the pids of itself and of its helper.
struct Working {
    wrapped: Wrapped,
    agent: i32,
    helper: i32,
}

fn start_agent(sidecar: &Sidecar) -> Working {
    let mut wrapped = Wrapped::start(sidecar.wrap(&[], &["python3", AGENT]));
    let line = wrapped.line_with("started, with a helper");
    let (agent, helper) = (number_after(&line, "agent "), number_after(&line, "pid "));
    wrapped.watch(&[agent, helper]);
    wrapped.line_with("task 1:");
    assert!(is_alive(agent) && is_alive(helper));
    Working { wrapped, agent, helper }
}

/// The agent must be stopped now, by this code, with everything it started, and the wrapper must say so.
fn is_stopped(mut working: Working, code: &str, exit: i32) {
    let ended = working.wrapped.exit_code();
    let lines = working.wrapped.stderr();
    assert_eq!(ended, exit, "{lines}");
    assert!(!is_alive(working.agent), "the agent outlived its stop");
    assert!(!is_alive(working.helper), "the helper outlived its agent's stop");
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains(code) && lines.contains("request_id"), "{lines}");
    let stdout = working.wrapped.stdout();
    assert_eq!(stdout.matches("got SIGTERM").count(), 1, "exactly one SIGTERM: {stdout}");
}

fn check_exit(sidecar: &Sidecar) -> Option<i32> {
    sidecar.machineid(&["check", "-q"]).status.code()
}

/// Denies by `deny`, sees the agent gone, takes it back by `restore`, sees the next one start.
fn denied_then_restored(sidecar: &Sidecar, code: &str, deny: impl FnOnce(), restore: impl FnOnce()) {
    let working = start_agent(sidecar);
    deny();
    is_stopped(working, code, 77);
    assert_eq!(check_exit(sidecar), Some(77), "{code}");
    let mut refused = Wrapped::start(sidecar.wrap(&[], &["python3", AGENT]));
    assert_eq!(refused.exit_code(), 77);
    assert!(refused.stdout().is_empty(), "a denied agent was started");
    restore();
    assert_eq!(check_exit(sidecar), Some(0), "{code} was taken back");
    let mut working = start_agent(sidecar);
    working.wrapped.signal(Signal::TERM);
    assert_eq!(working.wrapped.exit_code(), 0, "the agent's own exit code");
    assert!(!is_alive(working.helper), "a leftover of an agent that ended by itself");
}

fn start(authority: &Authority) -> (Org<'_>, Sidecar) {
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "agent-host:1").start();
    (org, sidecar)
}

#[test]
fn the_official_client_revokes_and_the_agent_is_gone() {
    let Some(python) = python() else { return };
    let authority = Authority::start();
    let (org, sidecar) = start(&authority);
    let official = |verb: &str| {
        let script = "import sys; from machineid import MachineID; url, verb, device = sys.argv[1:]; \
                      client = MachineID(org_key=sys.stdin.readline().strip(), base_url=url); \
                      answer = getattr(client, verb)(device); assert answer['status'] == 'ok', answer";
        official_client::run(&python, &["-c", script, &authority.url(), verb, "agent-host:1"], &org.key);
    };
    denied_then_restored(&sidecar, "DEVICE_REVOKED", || official("revoke"), || official("unrevoke"));
}

#[test]
fn every_way_an_authority_denies_stops_the_agent() {
    let authority = Authority::start();
    let (org, sidecar) = start(&authority);
    let admin = |verb: &'static str| {
        let org = &org;
        move || drop(org.admin(verb, &[]))
    };
    denied_then_restored(&sidecar, "ORG_DISABLED", admin("disable"), admin("enable"));
    denied_then_restored(&sidecar, "PLAN_FROZEN", admin("freeze"), admin("unfreeze"));
    let pay = || drop(org.admin("set-plan", &["pro"]));
    denied_then_restored(&sidecar, "ENTITLEMENT_EXPIRED", admin("expire"), pay);
    let device = |verb: &'static str| {
        let org = &org;
        move || assert_eq!(org.device(verb, "agent-host:1").status, 200)
    };
    denied_then_restored(&sidecar, "DEVICE_NOT_FOUND", device("remove"), device("register"));
}

#[test]
fn a_rotated_key_stops_the_agent_until_the_file_holds_the_new_one() {
    let authority = Authority::start();
    let (org, sidecar) = start(&authority);
    let working = start_agent(&sidecar);
    let fresh = org.admin("rotate-key", &["--overlap", "0s"])["orgApiKey"].as_str().unwrap().to_owned();
    is_stopped(working, "INVALID_ORG_KEY", 77);
    assert_eq!(check_exit(&sidecar), Some(77));
    write_key(&sidecar.key_file(), &fresh);
    assert_eq!(check_exit(&sidecar), Some(0));
    start_agent(&sidecar);
}

#[test]
fn a_deleted_organisation_stops_the_agent() {
    let authority = Authority::start();
    let (org, sidecar) = start(&authority);
    let working = start_agent(&sidecar);
    org.admin("delete", &["--yes"]);
    is_stopped(working, "ORG_NOT_FOUND", 77);
}

#[test]
fn an_agent_that_ignores_sigterm_is_killed_after_the_grace_with_its_children() {
    let authority = Authority::start();
    let (org, sidecar) = start(&authority);
    let stubborn = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo child $$; while :; do sleep 1; done' & \
                    echo leader $$; while :; do sleep 1; done";
    let mut wrapped = Wrapped::start(sidecar.wrap(&["--stop-grace", "500ms"], &["sh", "-c", stubborn]));
    let leader = number_after(&wrapped.line_with("leader"), "leader ");
    let child = number_after(&wrapped.line_with("child"), "child ");
    wrapped.watch(&[leader, child]);
    org.device("revoke", "agent-host:1");
    assert_eq!(wrapped.exit_code(), 77);
    assert!(!is_alive(leader) && !is_alive(child));
}

#[test]
fn a_stop_is_latched_an_allow_during_the_grace_does_not_save_the_agent() {
    let authority = Authority::start();
    let (org, sidecar) = start(&authority);
    let slow = "trap 'echo asked to stop' TERM; echo up $$; while :; do sleep 0.1; done";
    let mut wrapped = Wrapped::start(sidecar.wrap(&["--stop-grace", "1s"], &["sh", "-c", slow]));
    let leader = number_after(&wrapped.line_with("up"), "up ");
    wrapped.watch(&[leader]);
    org.device("revoke", "agent-host:1");
    wrapped.line_with("asked to stop");
    org.device("unrevoke", "agent-host:1");
    assert_eq!(check_exit(&sidecar), Some(0));
    assert_eq!(wrapped.exit_code(), 77);
    assert!(!is_alive(leader));
    assert_eq!(wrapped.stdout().matches("asked to stop").count(), 1);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own stopwatch")]
fn cut_off_from_the_authority_the_agent_lives_to_the_end_of_its_lease_and_no_longer() {
    let mut authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "agent-host:1");
    setup.enforcement = "interval = \"200ms\"\nlease = \"3s\"\nstop_grace = \"1s\"".to_owned();
    let sidecar = setup.start();
    let mut working = start_agent(&sidecar);
    let cut = Instant::now();
    authority.kill();
    working.wrapped.line_with("got SIGTERM");
    let lived = cut.elapsed();
    assert!(lived > Duration::from_secs(2), "stopped after {lived:?}, long before the end of its lease");
    let lines = {
        assert_eq!(working.wrapped.exit_code(), 75);
        working.wrapped.stderr()
    };
    assert!(lines.contains("LEASE_EXPIRED"), "{lines}");
    // The first of daemon, wrapper and guardian.
    assert!(
        lines.contains("the authority") || lines.contains("the wrapper did not react in time"),
        "it says why: {lines}"
    );
    assert!(!is_alive(working.agent) && !is_alive(working.helper));
    assert_eq!(working.wrapped.stdout().matches("got SIGTERM").count(), 1);
    assert_eq!(check_exit(&sidecar), Some(75));
    authority.start_again();
    until("a check is allowed again", || (check_exit(&sidecar) == Some(0)).then_some(()));
}

#[test]
fn a_daemon_that_is_killed_and_restarted_keeps_its_agents_under_enforcement() {
    let authority = Authority::start();
    let (org, mut sidecar) = start(&authority);
    let working = start_agent(&sidecar);
    sidecar.kill();
    sidecar.start_again();
    until("the wrapper comes back", || (sidecar.status()["agents"].as_array()?.len() == 1).then_some(()));
    assert!(is_alive(working.agent) && is_alive(working.helper));
    org.device("revoke", "agent-host:1");
    is_stopped(working, "DEVICE_REVOKED", 77);
}

#[test]
fn a_daemon_that_is_gone_for_good_does_not_let_the_agent_outlive_its_lease() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "agent-host:1");
    setup.enforcement = "interval = \"200ms\"\nlease = \"3s\"\nstop_grace = \"1s\"".to_owned();
    let mut sidecar = setup.start();
    let mut working = start_agent(&sidecar);
    sidecar.kill();
    assert_eq!(working.wrapped.exit_code(), 75);
    let lines = working.wrapped.stderr();
    assert!(lines.contains("LEASE_EXPIRED"), "{lines}");
    assert!(
        lines.contains("does not answer") || lines.contains("the wrapper did not react in time"),
        "it says why: {lines}"
    );
    assert!(!is_alive(working.agent) && !is_alive(working.helper));
}

#[test]
fn a_daemon_that_is_stopped_does_not_let_the_agent_outlive_its_lease() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "agent-host:1");
    setup.enforcement = "interval = \"200ms\"\nlease = \"3s\"\nstop_grace = \"1s\"".to_owned();
    let sidecar = setup.start();
    let mut working = start_agent(&sidecar);
    sidecar.signal(Signal::STOP);
    assert_eq!(working.wrapped.exit_code(), 75);
    assert!(!is_alive(working.agent) && !is_alive(working.helper));
    sidecar.signal(Signal::CONT);
}

#[test]
fn when_the_wrapper_is_killed_the_daemon_stops_the_agent_at_once() {
    let authority = Authority::start();
    let (_org, sidecar) = start(&authority);
    let working = start_agent(&sidecar);
    working.wrapped.signal(Signal::KILL);
    until("the agent is gone", || (!is_alive(working.agent)).then_some(()));
    until("the daemon has forgotten the run", || sidecar.status()["agents"].as_array()?.is_empty().then_some(()));
}

#[test]
fn a_stopped_wrapper_does_not_save_its_agent_from_a_deny_and_is_continued_to_report_it() {
    let authority = Authority::start();
    let (org, sidecar) = start(&authority);
    let mut working = start_agent(&sidecar);
    working.wrapped.signal(Signal::STOP);
    org.device("revoke", "agent-host:1");
    assert_eq!(working.wrapped.exit_code(), 77);
    assert!(!is_alive(working.agent) && !is_alive(working.helper));
    assert_eq!(working.wrapped.stdout().matches("got SIGTERM").count(), 1);
}

#[test]
fn status_shows_the_agent_and_what_holds_it() {
    let authority = Authority::start();
    let (_org, sidecar) = start(&authority);
    let working = start_agent(&sidecar);
    let status = sidecar.status();
    let agent = &status["agents"][0];
    assert_eq!(agent["pid"], working.agent, "{status}");
    assert_eq!((agent["state"].as_str(), agent["killer"].as_str()), (Some("running"), Some("daemon")));
    assert_eq!(status["devices"][0]["agents"], 1);
    let page = sidecar.machineid(&["status"]);
    let text = String::from_utf8(page.stdout).unwrap();
    assert!(page.status.success() && text.contains("agent-host:1") && text.contains("python3"), "{text}");
}

#[test]
fn agents_with_devices_of_their_own_are_stopped_one_by_one_and_by_the_host() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "agent-host:1");
    setup.devices = "allow = [\"agent:*\"]".to_owned();
    let sidecar = setup.start();
    let agent = |device: &str| {
        let mut wrapped = Wrapped::start(
            sidecar.wrap(&["--device", device], &["sh", "-c", "echo $MACHINEID_DEVICE_ID $$; exec sleep 600"]),
        );
        let pid = number_after(&wrapped.line_with(device), &format!("{device} "));
        wrapped.watch(&[pid]);
        (wrapped, pid)
    };
    let (mut one, one_pid) = agent("agent:1");
    let (mut two, two_pid) = agent("agent:2");
    org.device("revoke", "agent:1");
    assert_eq!(one.exit_code(), 77);
    assert!(!is_alive(one_pid) && is_alive(two_pid) && !two.has_ended());
    org.device("revoke", "agent-host:1");
    assert_eq!(two.exit_code(), 77);
    assert!(!is_alive(two_pid));
    let mut refused = Wrapped::start(sidecar.wrap(&["--device", "other"], &["true"]));
    assert_eq!(refused.exit_code(), 77);
    assert!(refused.stderr().contains("DEVICE_NOT_PERMITTED"), "{}", refused.stderr());
}

#[test]
fn an_agent_that_asks_for_itself_is_answered_for_its_own_device() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "agent-host:1");
    setup.devices = "allow = [\"agent:*\"]".to_owned();
    let sidecar = setup.start();
    let ask = format!("{} check --json", env!("CARGO_BIN_EXE_machineid"));
    let mut wrapped = Wrapped::start(sidecar.wrap(&["--device", "agent:7"], &["sh", "-c", &format!("{ask}; true")]));
    assert_eq!(wrapped.exit_code(), 0, "{}", wrapped.stderr());
    assert!(wrapped.stdout().contains("\"agent:7\""), "{}", wrapped.stdout());
}

#[test]
fn an_agent_whose_stop_has_begun_is_told_which_deny_it_was() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "agent-host:1");
    setup.devices = "allow = [\"agent:*\"]".to_owned();
    let sidecar = setup.start();
    // Asks by itself: a command of its own would be sent the stop signal as well.
    let program = "import os, signal, socket, sys\n\
        def stopped(*_):\n\
        \x20   asking = socket.socket(socket.AF_UNIX); asking.connect(os.environ['MACHINEID_SOCKET'])\n\
        \x20   asking.sendall(b'GET /v1/check HTTP/1.0\\r\\n\\r\\n'); print(asking.makefile().read(), flush=True); sys.exit(0)\n\
        signal.signal(signal.SIGTERM, stopped); print('ready', flush=True)\n\
        while True: signal.pause()";
    let mut wrapped = Wrapped::start(sidecar.wrap(&["--device", "agent:7"], &["python3", "-c", program]));
    wrapped.line_with("ready");
    org.device("revoke", "agent:7");
    assert_eq!(wrapped.exit_code(), 77, "{}", wrapped.stderr());
    let told = wrapped.stdout();
    let answer: serde_json::Value = serde_json::from_str(&told[told.find('{').unwrap()..]).unwrap();
    assert_eq!((&answer["code"], &answer["device_id"]), (&"DEVICE_REVOKED".into(), &"agent:7".into()), "{told}");
    let request_id = answer["request_id"].as_str().expect("the deny has a name");
    assert!(wrapped.stderr().contains(request_id), "{told}{}", wrapped.stderr());
}

#[test]
fn the_daemon_in_front_of_a_command_is_an_entrypoint() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), "agent-host:1");
    for (script, code) in [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)] {
        let output = setup.command().args(["--", "sh", "-c", script]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut command = setup.command();
    command.args(["--", "python3", AGENT]);
    let mut wrapped = Wrapped::start(command);
    let line = wrapped.line_with("started, with a helper");
    let (agent, helper) = (number_after(&line, "agent "), number_after(&line, "pid "));
    wrapped.watch(&[agent, helper]);
    org.device("revoke", "agent-host:1");
    assert_eq!(wrapped.exit_code(), 77, "{}", wrapped.stderr());
    assert!(!is_alive(agent) && !is_alive(helper));
    let mut refused = setup.command();
    let proof = setup.directory.path().join("started");
    refused.arg("--").arg("touch").arg(&proof);
    assert_eq!(refused.output().unwrap().status.code(), Some(77));
    assert!(!proof.exists());
}

#[test]
fn sigterm_to_the_entrypoint_reaches_the_agent() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), "agent-host:1");
    let mut command = setup.command();
    command.args(["--", "python3", AGENT]);
    let mut wrapped = Wrapped::start(command);
    let line = wrapped.line_with("started, with a helper");
    let helper = number_after(&line, "pid ");
    wrapped.watch(&[number_after(&line, "agent "), helper]);
    wrapped.line_with("task 1:");
    wrapped.signal(Signal::TERM);
    assert_eq!(wrapped.exit_code(), 0);
    assert!(wrapped.stdout().contains("got SIGTERM"));
    assert!(!is_alive(helper));
}

#[test]
fn every_other_signal_to_the_entrypoint_is_the_agents_as_well() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), "agent-host:1");
    let script = "for s in HUP INT QUIT USR1 USR2; do trap \"echo got $s\" $s; done; trap 'exit 3' TERM; echo up; \
                  while :; do sleep 0.1; done";
    let mut command = setup.command();
    command.args(["--", "sh", "-c", script]);
    let mut wrapped = Wrapped::start(command);
    wrapped.line_with("up");
    for (name, signal) in [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
    ] {
        wrapped.signal(signal);
        wrapped.line_with(&format!("got {name}"));
    }
    wrapped.signal(Signal::TERM);
    assert_eq!(wrapped.exit_code(), 3);
}

#[test]
fn dev_starts_everything_and_prints_the_command_that_revokes() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(crate::harness::sidecar::BINARY);
    clean_environment(&mut command, scratch.path());
    command.env("TMPDIR", scratch.path()).args(["--dev", "--", "python3", AGENT]).stdin(std::process::Stdio::null());
    let mut wrapped = Wrapped::start(command);
    let line = wrapped.line_with("started, with a helper");
    let (agent, helper) = (number_after(&line, "agent "), number_after(&line, "pid "));
    wrapped.watch(&[agent, helper]);
    let banner = wrapped.stderr();
    let typed = |what: &str, more: &str| {
        let line = banner.lines().map(str::trim).find(|line| line.contains(what) && line.starts_with('/'));
        let line = line.unwrap_or_else(|| panic!("no {what:?} to type in\n{banner}"));
        std::process::Command::new("sh").arg("-c").arg(format!("{line}{more}")).output().unwrap()
    };
    let status = typed("/machineid status", "");
    assert!(String::from_utf8_lossy(&status.stdout).contains("python3 "), "{status:?}");
    let console = typed("/machineid-authority console-link", "");
    assert!(String::from_utf8_lossy(&console.stdout).contains("/console/operator/"), "{console:?}");
    // The authority ends with the agent, and must not before it has told of that end.
    let revoke = typed("/machineid revoke ", " --wait");
    assert!(revoke.status.success(), "{revoke:?}");
    assert!(String::from_utf8_lossy(&revoke.stdout).contains("nothing runs any more on 1 device,"), "{revoke:?}");
    assert_eq!(wrapped.exit_code(), 77);
    assert!(!is_alive(agent) && !is_alive(helper));
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "--dev left {left:?} behind");
}

#[test]
fn a_command_that_cannot_be_started_says_so_and_exits_126_or_127() {
    let authority = Authority::start();
    let (_org, sidecar) = start(&authority);
    let mut missing = Wrapped::start(sidecar.wrap(&[], &["/nonexistent/agent"]));
    assert_eq!(missing.exit_code(), 127);
    assert!(missing.stderr().contains("/nonexistent/agent"), "{}", missing.stderr());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).display().to_string();
    let mut refused = Wrapped::start(sidecar.wrap(&[], &[&directory]));
    assert_eq!(refused.exit_code(), 126);
}

#[test]
fn the_configured_stop_signal_is_used_by_daemon_and_wrapper_alike() {
    let mut authority = Authority::start();
    let org = authority.org("pro");
    let (id, key) = (org.id.clone(), org.key.clone());
    let mut setup = Setup::new(&authority.url(), &key, "agent-host:1");
    setup.enforcement = "interval = \"200ms\"\nlease = \"3s\"\nstop_grace = \"2s\"\nstop_signal = \"USR2\"".to_owned();
    let sidecar = setup.start();
    let script = "trap 'echo got USR2; exit 0' USR2; echo up $$; while :; do sleep 0.1; done";
    let agent = || {
        let mut wrapped = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", script]));
        let pid = number_after(&wrapped.line_with("up"), "up ");
        wrapped.watch(&[pid]);
        wrapped
    };
    // A deny: the daemon signals.
    let mut denied = agent();
    authority.admin_json(&["disable", &id]);
    assert_eq!(denied.exit_code(), 77);
    assert!(denied.stdout().contains("got USR2"), "{}", denied.stderr());
    authority.admin_json(&["enable", &id]);
    // The end of the lease: the wrapper signals.
    let mut expired = agent();
    authority.kill();
    assert_eq!(expired.exit_code(), 75);
    assert!(expired.stdout().contains("got USR2"), "{}", expired.stderr());
}

#[test]
fn a_program_that_supervises_several_children_itself_loses_only_the_denied_one() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "agent-host:1");
    setup.devices = "allow = [\"agent:*\"]".to_owned();
    let sidecar = setup.start();
    let program = r#"
import json, os, secrets, socket, subprocess, sys
held = []
for number in (1, 2):
    child = subprocess.Popen(["sleep", "600"])
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(sys.argv[1])
    body = json.dumps({"pid": child.pid, "run_id": secrets.token_hex(16), "device": f"agent:{number}"}).encode()
    stream.sendall(b"POST /v1/supervise HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    lines = stream.makefile()
    while '"event":"allow"' not in lines.readline(): pass
    held.append((child, stream))
    print(f"child {number} {child.pid}", flush=True)
for child, stream in held:
    print("ended", child.wait(), flush=True)
"#;
    let mut command = std::process::Command::new("python3");
    command.args(["-c", program]).arg(sidecar.socket()).stdin(std::process::Stdio::null());
    let mut wrapped = Wrapped::start(command);
    let [first, second] = ["child 1 ", "child 2 "].map(|child| number_after(&wrapped.line_with(child), child));
    wrapped.watch(&[first, second]);
    org.device("revoke", "agent:1");
    until("the first stop is over", || sidecar.log().contains("nothing of it is left").then_some(()));
    assert!(!is_alive(first) && is_alive(second));
    org.device("revoke", "agent:2");
    until("the second is gone", || (!is_alive(second)).then_some(()));
}
