//! `machineid adopt`: a process that runs already is put under supervision, with its descendants, or refused in a sentence.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{FileType, Mode};
use serde_json::{Value, json};

use super::agents::{NOBODY, agents, as_user, is_root, only_record, open_to_all, post_as, stop_of};
use crate::harness::authority::{Authority, Org};
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::{eventually, until};
use crate::harness::wrapper::{children_of, somebody_runs, unique_sleep, with_mark};

const HOST: &str = "adopting-host:2";

fn start(authority: &Authority) -> (Org<'_>, Sidecar) {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), HOST);
    setup.enforcement = String::from("interval = \"200ms\"\nlease = \"8s\"\nstop_grace = \"300ms\"");
    setup.devices = String::from("allow = [\"agent-*\"]");
    open_to_all(&mut setup);
    (org, setup.start())
}

/// A process that was started without the wrapper. Ended when dropped.
struct Stray(Child);

impl Stray {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn shell(script: &str) -> Self {
        Self::start(Command::new("sh").args(["-c", script]))
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn adopt(sidecar: &Sidecar, pid: i32, flags: &[&str]) -> Output {
    sidecar.machineid(&[&["adopt", &pid.to_string()], flags].concat())
}

/// The sentence of a refusal, and the exit code.
fn refusal(output: &Output) -> (String, Option<i32>) {
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

fn sleepers(mark: &str) -> Vec<i32> {
    with_mark(&format!("sleep\0{mark}"))
}

#[test]
fn a_process_that_runs_is_adopted_with_its_descendants_and_ended_at_a_deny() {
    let authority = Authority::start();
    let (org, mut sidecar) = start(&authority);
    let mark = unique_sleep();
    // One obeys, one must be killed, one has left session and group, and one was an orphan already.
    let mut stray = Stray::shell(&format!(
        "setsid sleep {mark} & (trap '' TERM; exec sleep {mark}) & sleep {mark} & (exec sleep {mark}) & wait; wait"
    ));
    let beside = Stray::start(Command::new("sleep").arg("1000"));
    eventually("all run", || sleepers(&mark).len() == 4);
    let output = adopt(&sidecar, stray.pid(), &["--device", "agent-1", "--name", "codex", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["pid"], &answer["processes"]), (&json!(stray.pid()), &json!(5)), "{answer}");
    let listed = agents(&sidecar)[0].clone();
    for (key, value) in [("adopted", json!(true)), ("name", json!("codex")), ("device_id", json!("agent-1"))] {
        assert_eq!(listed[key], value, "{listed}");
    }
    assert_eq!((&listed["pid"], &listed["run_id"]), (&answer["pid"], &answer["run_id"]), "{listed}");
    assert!(listed["command"][0] == "sh", "{listed}");
    let page = String::from_utf8(sidecar.machineid(&["status"]).stdout).unwrap();
    assert!(page.contains("adopted"), "{page}");
    // Neither it nor a process of its tree can be adopted again.
    for pid in [stray.pid(), children_of(stray.pid())[0]] {
        let (text, code) = refusal(&adopt(&sidecar, pid, &[]));
        assert!(code == Some(1) && text.contains("supervised already, as run"), "{text}");
    }
    // The next daemon holds it to what was recorded.
    sidecar.kill();
    sidecar.start_again();
    let after = agents(&sidecar)[0].clone();
    for key in ["run_id", "pid", "device_id", "adopted", "state", "containment"] {
        assert_eq!(after[key], listed[key], "{key}");
    }
    assert_eq!(sleepers(&mark).len(), 4);
    assert_eq!(org.device("revoke", "agent-1").status, 200);
    eventually("nothing of it is left", || !somebody_runs(&mark));
    assert_eq!(stray.0.wait().unwrap().signal(), Some(15));
    let stop = until("the stop is over", || stop_of(&sidecar, answer["run_id"].as_str().unwrap()));
    assert_eq!((&stop["code"], &stop["confirmed"]), (&json!("DEVICE_REVOKED"), &json!(true)), "{stop}");
    until("the record is removed", || only_record(&sidecar).is_none().then_some(()));
    assert!(agents(&sidecar).is_empty());
    // A denied device gets no process, and the process runs on.
    let (text, code) = refusal(&adopt(&sidecar, beside.pid(), &["--device", "agent-1"]));
    assert!(code == Some(77) && text.contains("nothing was adopted: DEVICE_REVOKED"), "{text}");
    assert!(agents(&sidecar).is_empty());
}

#[test]
fn what_is_forked_later_belongs_to_it_and_its_own_end_ends_what_it_left() {
    let authority = Authority::start();
    let (_org, sidecar) = start(&authority);
    let (mark, directory) = (unique_sleep(), tempfile::tempdir().unwrap());
    let go = directory.path().join("go");
    rustix::fs::mknodat(rustix::fs::CWD, &go, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let gate = File::options().read(true).write(true).open(&go).unwrap();
    let opened = || std::io::Write::write_all(&mut &gate, b"\n").unwrap();
    let wait = format!("read x <{}", go.display());
    let mut stray = Stray::shell(&format!("{wait}; setsid sleep {mark} & {wait}; exit 3"));
    assert_eq!(adopt(&sidecar, stray.pid(), &[]).status.code(), Some(0));
    assert_eq!(agents(&sidecar)[0]["device_id"], HOST);
    opened();
    eventually("the child has been forked", || sleepers(&mark).len() == 1);
    opened();
    assert_eq!(stray.0.wait().unwrap().code(), Some(3));
    // Where there is no control group, a child whose parent has ended is no longer known as its child.
    if agents(&sidecar).first().is_none_or(|agent| agent["containment"] == "cgroup") {
        eventually("what it left is ended", || !somebody_runs(&mark));
    } else {
        eprintln!("SKIPPED the end of what it left: no control group here");
    }
    eventually("it is no longer listed", || agents(&sidecar).is_empty());
    for pid in sleepers(&mark) {
        crate::harness::wrapper::send(pid, rustix::process::Signal::KILL);
    }
}

#[test]
fn what_must_not_be_adopted_is_refused_in_a_sentence_and_left_alone() {
    let authority = Authority::start();
    let (_org, sidecar) = start(&authority);
    let refused = |pid: i32, why: &str| {
        let (text, code) = refusal(&adopt(&sidecar, pid, &[]));
        assert!(code == Some(1) && text.contains(why) && text.lines().count() == 1, "{pid}: {code:?} {text}");
    };
    refused(1, "the first process");
    refused(sidecar.pid().try_into().unwrap(), "holds this daemon");
    refused(std::process::id().try_into().unwrap(), "holds this daemon");
    let mut gone = Stray::start(&mut Command::new("true"));
    gone.0.wait().unwrap();
    refused(gone.pid(), "there is no process");
    // A zombie: it has ended, and is not reaped.
    let zombie = Stray::start(&mut Command::new("true"));
    let stat = format!("/proc/{}/stat", zombie.pid());
    eventually("it has ended", || std::fs::read_to_string(&stat).unwrap().contains(") Z "));
    refused(zombie.pid(), "has ended meanwhile");
    match std::fs::read_to_string("/proc/2/comm") {
        Ok(name) if name == "kthreadd\n" => refused(2, "a thread of the kernel"),
        _ => eprintln!("SKIPPED: no kernel thread can be seen here"),
    }
    // A shell that asks for itself, and a wrapper whose agent is supervised.
    let asks = format!("{} adopt $$; exit $?", env!("CARGO_BIN_EXE_machineid"));
    let output = Command::new("sh").args(["-c", &asks]).env("MACHINEID_SOCKET", sidecar.socket()).output().unwrap();
    let (text, code) = refusal(&output);
    assert!(code == Some(1) && text.contains("holds the process that asks"), "{text}");
    let wrapped = Stray::start(&mut sidecar.wrap(&[], &["sleep", "1000"]));
    eventually("the agent runs", || agents(&sidecar).len() == 1);
    refused(wrapped.pid(), "holds a supervised agent");
    refused(agents(&sidecar)[0]["pid"].as_i64().unwrap().try_into().unwrap(), "supervised already");
    assert_eq!(agents(&sidecar).len(), 1);
    for arguments in [&["adopt"][..], &["adopt", "0"], &["adopt", "x"]] {
        assert_eq!(sidecar.machineid(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_user_adopts_its_own_processes_and_no_others() {
    if !is_root("processes of two users") {
        return;
    }
    let authority = Authority::start();
    let (_org, sidecar) = start(&authority);
    let socket = sidecar.socket();
    let of_root = Stray::start(Command::new("sleep").arg("1000"));
    let mut sleep = Command::new("sleep");
    let own = Stray::start(&mut as_user(NOBODY, sleep.arg("1000")));
    let ask = |before: &[&str], pid: i32| post_as(NOBODY, before, &socket, "/v1/adopt", &json!({"pid": pid}));
    let (status, answer) = ask(&[], of_root.pid());
    assert_eq!((status, &answer["code"]), (403, &json!("PID_NOT_PERMITTED")), "{answer}");
    assert!(answer["reason"].as_str().unwrap().contains("may adopt its own processes only"), "{answer}");
    let (status, answer) = ask(&["unshare", "--user", "--map-root-user"], own.pid());
    assert_eq!(status, 403, "{answer}");
    assert!(agents(&sidecar).is_empty());
    let (status, answer) = ask(&[], own.pid());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(agents(&sidecar)[0]["uid"], NOBODY);
}
