//! The audit file: what is in it, and that nothing happens to it unseen.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::agents::{Agent, OBEDIENT, STUBBORN, is_root, post};
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::{eventually, until};

fn setup(authority: &Authority) -> (Setup, PathBuf) {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "audit-host:1");
    let file = setup.directory.path().join("audit.jsonl");
    "interval = \"200ms\"\nlease = \"6s\"\nstop_grace = \"300ms\"".clone_into(&mut setup.enforcement);
    setup.local = format!("[audit]\nfile = \"{}\"", file.display());
    (setup, file)
}

fn records(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn named(file: &Path, event: &str) -> Vec<Value> {
    records(file).into_iter().filter(|record| record["event"] == event).collect()
}

fn wait_for(file: &Path, event: &str) -> Value {
    until(&format!("{event} is in the audit file"), || named(file, event).pop())
}

fn verify(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_machineid"));
    command.args(["audit", "verify", "--json"]).args(arguments).env_clear().output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn last_hash(sidecar: &Sidecar) -> String {
    sidecar.status()["audit"]["last_hash"].as_str().unwrap().to_owned()
}

/// Verifies against what the daemon says, once that and the file agree.
fn assert_sound(sidecar: &Sidecar, files: &[&Path]) -> Value {
    let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    until("file and daemon agree", || {
        let hash = last_hash(sidecar);
        let output = verify(&[&files[..], &["--expect", &hash]].concat());
        output.status.success().then(|| report(&output))
    })
}

/// Something that is audited: a hold, and that it is in the file.
fn something(sidecar: &Sidecar, device: &str) {
    assert_eq!(post(&sidecar.socket(), "/v1/hold", &json!({"device": device})).status, 200);
}

#[test]
fn who_was_allowed_started_and_stopped_is_written_and_requested_is_not_confirmed() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let sidecar = setup.start();
    let mut agent = Agent::start(&sidecar, &["--name", "worker"], STUBBORN);
    post(&sidecar.socket(), "/v1/stop", &json!({"name": "worker"}));
    assert_eq!(agent.wrapped.exit_code(), 77);
    let (started, requested, confirmed) =
        (wait_for(&file, "agent-started"), wait_for(&file, "agent-stopping"), wait_for(&file, "agent-stopped"));
    let ours = u64::from(rustix::process::geteuid().as_raw());
    for record in [&started, &requested] {
        assert_eq!((&record["device_id"], &record["pid"]), (&json!("audit-host:1"), &json!(agent.pid)), "{record}");
        assert_eq!(record["caller"]["uid"], ours, "{record}");
    }
    assert_eq!(started["caller"]["pid"], agent.wrapped.pid());
    assert_eq!((&requested["code"], &requested["run_id"]), (&json!("LOCAL_STOP"), &started["run_id"]));
    assert_eq!(requested["caller"]["pid"], std::process::id(), "{requested}");
    let exe = std::env::current_exe().unwrap();
    assert_eq!(requested["caller"]["exe"], exe.to_str().unwrap(), "{requested}");
    // What its wrapper killed first, the daemon need not kill.
    assert!(confirmed["killed"].is_u64() && confirmed["took_ms"].as_u64() >= Some(300), "{confirmed}");
    let decision = &named(&file, "decision")[0];
    assert!(decision["code"] == "ALLOW" && decision["request_id"].is_string(), "{decision}");
    for record in records(&file) {
        for key in ["time", "event", "device_id", "code", "request_id", "caller", "prev"] {
            assert!(record.get(key).is_some(), "{key}: {record}");
        }
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_sound(&sidecar, &[&file]);
    eventually("the log has the hash too", || sidecar.log().contains("last_hash"));
}

#[test]
fn an_edit_a_removal_another_order_and_a_cut_are_found() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let sidecar = setup.start();
    for device in ["a", "b", "c", "d"] {
        something(&sidecar, device);
    }
    eventually("all are written", || named(&file, "device-held").len() == 4);
    assert_sound(&sidecar, &[&file]);
    let hash = last_hash(&sidecar);
    let whole = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let forged = sidecar.directory().join("forged.jsonl");
    let check = |text: String, arguments: &[&str], line: Option<u64>| {
        fs::write(&forged, text).unwrap();
        let output = verify(&[&[forged.to_str().unwrap()], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let report = report(&output);
        assert_eq!(report["sound"], false);
        if line.is_some() {
            assert_eq!(report["files"][0]["findings"][0]["line"].as_u64(), line, "{report}");
        }
    };
    check(whole.replace("\"device_id\":\"b\"", "\"device_id\":\"x\""), &[], None);
    let edited = lines[3].replacen("held", "hold", 1);
    check([&lines[..3], &[&edited], &lines[4..]].concat().concat(), &[], Some(5));
    check([&lines[..3], &lines[4..]].concat().concat(), &[], Some(4));
    check([&lines[..3], &[lines[4], lines[3]], &lines[5..]].concat().concat(), &[], Some(4));
    check([&lines[..4], &[lines[3]], &lines[4..]].concat().concat(), &[], Some(5));
    check(lines[..lines.len() - 1].concat(), &["--expect", &hash], None);
    check(whole[..whole.len() - 9].to_owned(), &[], Some(lines.len() as u64));
    check(whole.clone() + "garbage\n", &[], Some(lines.len() as u64 + 1));
    check(String::new(), &["--expect", &hash], None);
    let usage = verify(&[forged.to_str().unwrap(), "--expect", "abc"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    assert_eq!(verify(&["/nonexistent"]).status.code(), Some(2));
}

#[test]
fn the_chain_goes_on_after_a_restart_and_after_a_crash_in_the_middle_of_a_line() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let mut sidecar = setup.start();
    something(&sidecar, "a");
    wait_for(&file, "device-held");
    sidecar.terminate();
    sidecar.start_again();
    something(&sidecar, "b");
    eventually("both are written", || named(&file, "device-held").len() == 2);
    assert_eq!(assert_sound(&sidecar, &[&file])["files"][0]["torn_lines"], 0);
    assert_eq!(named(&file, "audit-opened").len(), 2);
    sidecar.kill();
    let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
    torn.write_all(b"{\"time\":\"2026-11-24T00:00:00Z\",\"event\":\"dec").unwrap();
    let output = verify(&[file.to_str().unwrap()]);
    let found = report(&output)["files"][0]["findings"][0]["problem"].as_str().unwrap().to_owned();
    assert!(output.status.code() == Some(1) && found.contains("not complete"), "{found}");
    sidecar.start_again();
    something(&sidecar, "c");
    eventually("the third is written", || named(&file, "device-held").len() == 3);
    assert_eq!(assert_sound(&sidecar, &[&file])["files"][0]["torn_lines"], 1);
}

#[test]
fn a_rotated_file_is_begun_anew_and_the_two_are_one_chain() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let sidecar = setup.start();
    something(&sidecar, "a");
    wait_for(&file, "device-held");
    let old = file.with_extension("1");
    fs::rename(&file, &old).unwrap();
    something(&sidecar, "b");
    wait_for(&file, "device-held");
    assert_sound(&sidecar, &[&old, &file]);
    let alone = assert_sound(&sidecar, &[&file]);
    assert!(alone["files"][0]["follows"].is_string(), "{alone}");
    // With SIGHUP it is there at once, as logrotate's postrotate wants it.
    let older = file.with_extension("2");
    fs::rename(&old, &older).unwrap();
    fs::rename(&file, &old).unwrap();
    sidecar.signal(Signal::HUP);
    until("the file is there again", || fs::metadata(&file).ok());
    something(&sidecar, "c");
    wait_for(&file, "device-held");
    assert_sound(&sidecar, &[&older, &old, &file]);
    let swapped = verify(&[&old, &older, &file].map(|file| file.to_str().unwrap()));
    assert_eq!(swapped.status.code(), Some(1));
    // copytruncate: the same file, emptied.
    let copy = file.with_extension("copy");
    fs::copy(&file, &copy).unwrap();
    OpenOptions::new().write(true).truncate(true).open(&file).unwrap();
    something(&sidecar, "d");
    wait_for(&file, "device-held");
    assert_sound(&sidecar, &[&copy, &file]);
}

#[test]
fn a_reload_is_written_counted_and_told_with_what_it_changed() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let mut sidecar = setup.start();
    let listener = super::events::Listener::start(&sidecar.socket(), "", None);
    let before = sidecar.setup().enforcement.clone();
    sidecar.setup().enforcement = before.replace("200ms", "300ms");
    sidecar.setup().configuration();
    let told = listener.expect("config-reloaded");
    assert_eq!((&told["result"], &told["changed"]), (&json!("applied"), &json!(["enforcement.interval"])), "{told}");
    let written = wait_for(&file, "config-reloaded");
    assert_eq!((&written["result"], &written["changed"]), (&told["result"], &told["changed"]));
    sidecar.setup().enforcement = before.replace("200ms", "never");
    sidecar.setup().configuration();
    let refused = until("the refusal", || {
        let told = listener.expect("config-reloaded");
        (told["result"] == "refused").then_some(told)
    });
    assert!(refused["reason"].as_str().unwrap().contains("enforcement.interval"), "{refused}");
    let page = sidecar.get("/metrics").unwrap().body;
    for result in ["applied", "refused"] {
        assert!(!page.contains(&format!("reloads_total{{result=\"{result}\"}} 0")), "{page}");
    }
    assert_sound(&sidecar, &[&file]);
}

#[test]
fn a_file_that_was_changed_under_the_daemon_shows_where() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let sidecar = setup.start();
    something(&sidecar, "a");
    wait_for(&file, "device-held");
    let text = fs::read_to_string(&file).unwrap();
    let cut: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(&file, cut[..cut.len() - 1].concat()).unwrap();
    something(&sidecar, "b");
    wait_for(&file, "device-held");
    let output = verify(&[file.to_str().unwrap()]);
    assert_eq!(report(&output)["files"][0]["findings"][0]["line"].as_u64(), Some(cut.len() as u64), "{output:?}");
    assert!(sidecar.log().contains("does not end as this host's daemon left it"), "{}", sidecar.log());
}

/// What a daemon does whose audit file cannot be written: everything, and it says what it lost.
fn assert_goes_on_without(sidecar: &Sidecar, file: &Path, mend: impl FnOnce()) {
    let mut agent = Agent::start(sidecar, &["--name", "worker"], OBEDIENT);
    post(&sidecar.socket(), "/v1/stop", &json!({"name": "worker"}));
    assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
    let audit = until("the loss is told", || {
        let audit = sidecar.status()["audit"].clone();
        (audit["dropped"].as_u64() > Some(0) && audit["problem"].is_string()).then_some(audit)
    });
    let page = sidecar.get("/metrics").unwrap().body;
    assert!(!page.contains("machineid_sidecar_audit_dropped_total 0"), "{audit}\n{page}");
    assert_eq!(sidecar.check().status, 200);
    mend();
    let gap = wait_for(file, "audit-gap");
    assert!(gap["lost"].as_u64() > Some(0) && gap["reason"].is_string(), "{gap}");
    something(sidecar, "after");
    wait_for(file, "device-held");
    let report = assert_sound(sidecar, &[file]);
    let declared: u64 = named(file, "audit-gap").iter().map(|gap| gap["lost"].as_u64().unwrap()).sum();
    assert_eq!(report["files"][0]["declared_lost"].as_u64(), Some(declared), "{report}");
    assert_eq!(sidecar.status()["audit"]["dropped"].as_u64(), Some(declared));
    assert_eq!(sidecar.status()["audit"]["problem"], Value::Null);
}

/// Writes to a file until nothing more can be written.
fn fill_up(file: &Path) {
    let mut file = fs::File::create(file).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    while file.write_all(&[0; 1]).is_ok() {}
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_no_enforcement_and_leaves_a_declared_gap() {
    if !is_root("a small file system") {
        return;
    }
    let authority = Authority::start();
    let (mut setup, _) = setup(&authority);
    let disk = setup.directory.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "audit-test"]).arg(&disk).status();
    if !mounted.is_ok_and(|status| status.success()) {
        crate::harness::place::skipped("a full disk", "tmpfs cannot be mounted here");
        return;
    }
    let _unmount = Unmount(disk.clone());
    let file = disk.join("audit.jsonl");
    setup.local = format!("[audit]\nfile = \"{}\"", file.display());
    let sidecar = setup.start();
    wait_for(&file, "decision");
    let filler = disk.join("filler");
    fill_up(&filler);
    // What is left of the page that the audit file's end is in is used up by and by.
    for number in 0..40 {
        something(&sidecar, &format!("fill:{number}"));
    }
    assert_goes_on_without(&sidecar, &file, || fs::remove_file(&filler).unwrap());
}

#[test]
fn a_limit_on_the_size_of_files_is_no_end_of_the_daemon() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    let mut limited = Command::new("prlimit");
    let command = setup.command();
    limited.arg("--fsize=6000:unlimited").arg(command.get_program()).args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut daemon = limited.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let socket = setup.socket();
    let ask =
        |path: &str, body: &Value| crate::harness::sidecar::exchange(&socket, &super::agents::request(path, body));
    until("the daemon answers", || ask("/v1/hold", &json!({"device": "first"})));
    let mut number = 0;
    until("records are lost", || {
        number += 1;
        ask("/v1/hold", &json!({"device": format!("fill:{number}")}));
        let status = crate::harness::sidecar::exchange(&socket, "GET /v1/status HTTP/1.0\r\n\r\n")?.json();
        (status["audit"]["dropped"].as_u64() > Some(0)).then_some(())
    });
    assert_eq!(daemon.try_wait().unwrap(), None, "it was ended by SIGXFSZ");
    let pid = rustix::process::Pid::from_child(&daemon);
    let unlimited =
        Command::new("prlimit").arg("--fsize=unlimited:unlimited").arg(format!("--pid={}", daemon.id())).status();
    let mended = unlimited.is_ok_and(|status| status.success());
    if mended {
        wait_for(&file, "audit-gap");
    }
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    until("the daemon ends", || daemon.try_wait().unwrap());
    if mended {
        let output = verify(&[file.to_str().unwrap()]);
        assert!(
            output.status.success() && report(&output)["files"][0]["declared_gaps"].as_u64() >= Some(1),
            "{output:?}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_an_audit_file_is_left_alone_and_enforcement_goes_on() {
    let authority = Authority::start();
    let (setup, file) = setup(&authority);
    fs::write(&file, "my diary\n").unwrap();
    let sidecar = setup.start();
    assert_goes_on_without(&sidecar, &file, || {
        assert_eq!(fs::read_to_string(&file).unwrap(), "my diary\n");
        fs::remove_file(&file).unwrap();
    });
}

#[test]
fn a_place_where_no_audit_file_can_be_is_an_error_of_the_configuration() {
    let authority = Authority::start();
    let (mut setup, _) = setup(&authority);
    for (place, says) in
        [("/nonexistent/audit.jsonl", "does not exist"), ("/tmp", "not a regular file"), ("here", "absolute")]
    {
        setup.local = format!("[audit]\nfile = \"{place}\"");
        let output = setup.command().arg("--check-config").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("audit.file") && said.contains(says), "{said}");
    }
}
