//! One program that supervises several agents itself, each with a device of its own: a caller is answered for the runs whose
//! tree it is in, and not for those that its wrapper also holds.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::agents::{has_cgroups, post};
use crate::harness::authority::{Authority, Org};
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;

/// Asks the daemon what it is told to ask, as itself, as a child of its own, or as an orphan that has lost its parent. Ignores
/// SIGTERM.
const ASKER: &str = r#"
import os, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def ask(request):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.sendall(request)
    return b"".join(iter(lambda: s.recv(65536), b""))
def as_child(request, orphan):
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        above = os.getpid()
        if orphan and os.fork() != 0: os._exit(0)
        while orphan and os.getppid() == above: pass
        os.write(into, ask(request))
        os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    return b"".join(iter(lambda: os.read(out, 65536), b""))
def serve(path):
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen()
    print("asker", os.path.basename(path), os.getpid(), flush=True)
    while True:
        s, _ = door.accept()
        how, request = s.makefile("rb").read().split(b"\n", 1)
        s.sendall(ask(request) if how == b"self" else as_child(request, how == b"orphan"))
        s.close()
"#;

/// Supervises an asker for each device that it is given, inherits their orphans, and is an asker itself.
const SUPERVISOR: &str = r#"
import ctypes, json, subprocess, uuid
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
asker = os.environ["ASKER"]
waiting = ["sh", "-c", 'read go && exec "$@" < /dev/null', "waiting"]
streams = []
for device in sys.argv[3:]:
    program = asker + "serve(sys.argv[2])"
    command = ["python3", "-S", "-c", program, sys.argv[1], os.path.join(sys.argv[2], device)]
    child = subprocess.Popen(waiting + command, stdin=subprocess.PIPE)
    body = json.dumps({"pid": child.pid, "run_id": uuid.uuid4().hex, "device": device}).encode()
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(sys.argv[1])
    stream.sendall(b"POST /v1/supervise HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    lines = stream.makefile()
    line = next(line for line in lines if line.startswith("{"))
    assert '"event":"allow"' in line, line
    streams.append(lines)
    child.stdin.write(b"go\n")
    child.stdin.flush()
serve(os.path.join(sys.argv[2], "supervisor"))
"#;

fn start(org: &Org<'_>, authority: &Authority) -> Sidecar {
    let mut setup = Setup::of(org, &authority.url(), "host:test");
    setup.devices = String::from("allow = [\"agent-*\"]");
    // On a busy machine too: what is asked here is who is answered for what.
    setup.authority = format!("url = \"{}\"\ntimeout = \"60s\"", authority.url());
    setup.enforcement = String::from("interval = \"200ms\"\nlease = \"5m\"\nstop_grace = \"60s\"");
    setup.start()
}

/// The askers of one supervisor.
struct Family {
    program: Wrapped,
    doors: PathBuf,
    pids: Vec<i32>,
}

impl Family {
    /// `outer`: the device of a run around the supervisor.
    fn start(sidecar: &Sidecar, outer: Option<&str>, devices: &[&str]) -> Self {
        let doors = sidecar.directory().join("doors");
        std::fs::create_dir(&doors).unwrap();
        let program = format!("{ASKER}{SUPERVISOR}");
        let (socket, at) = (sidecar.socket(), doors.clone());
        let words = ["python3", "-S", "-c", &program, socket.to_str().unwrap(), at.to_str().unwrap()];
        let words: Vec<&str> = words.into_iter().chain(devices.iter().copied()).collect();
        let mut command = if let Some(device) = outer {
            sidecar.wrap(&["--device", device], &words)
        } else {
            let mut command = std::process::Command::new(words[0]);
            command.args(&words[1..]);
            command
        };
        let mut program = Wrapped::start({
            command.env("ASKER", ASKER);
            command
        });
        let names = devices.iter().copied().chain(["supervisor"]);
        let pid = |name: &str| number_after(&program.line_with(&format!("asker {name} ")), &format!("asker {name} "));
        let pids: Vec<_> = names.map(pid).collect();
        program.watch(&pids);
        Self { program, doors, pids }
    }

    /// What the asker of this name is told; its status and body.
    fn ask(&self, name: &str, how: &str, request: &str) -> (u16, Value) {
        let text = exchange(&self.doors.join(name), &format!("{how}\n{request}"));
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    fn check(&self, name: &str, how: &str) -> (u16, String, String) {
        let (status, body) = self.ask(name, how, "GET /v1/check HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let word = |field: &str| body[field].as_str().unwrap_or("").to_owned();
        (status, word("code"), word("device_id"))
    }
}

fn exchange(door: &Path, said: &str) -> String {
    let mut stream = UnixStream::connect(door).unwrap();
    stream.write_all(said.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn said(status: u16, code: &str, device: &str) -> (u16, String, String) {
    (status, code.to_owned(), device.to_owned())
}

#[test]
fn of_two_siblings_under_one_program_each_is_answered_for_its_own_device_and_not_for_the_others() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&org, &authority);
    let family = Family::start(&sidecar, None, &["agent-a", "agent-b"]);
    for (name, how) in [("agent-a", "self"), ("agent-a", "child"), ("agent-b", "self")] {
        assert_eq!(family.check(name, how), said(200, "ALLOW", name), "{name} {how}");
    }
    org.device("revoke", "agent-b");
    until("the stop of the one begins", || (family.check("agent-b", "self").0 == 403).then_some(()));
    assert_eq!(family.check("agent-b", "self"), said(403, "DEVICE_REVOKED", "agent-b"));
    assert_eq!(family.check("agent-b", "child"), said(403, "DEVICE_REVOKED", "agent-b"));
    for how in ["self", "child"] {
        assert_eq!(family.check("agent-a", how), said(200, "ALLOW", "agent-a"), "{how}");
    }
    // The program that supervises both is in no run: it is answered for the host.
    assert_eq!(family.check("supervisor", "self"), said(200, "ALLOW", "host:test"));
    if has_cgroups("the orphan of one of two siblings") {
        assert_eq!(family.check("agent-a", "orphan"), said(200, "ALLOW", "agent-a"));
    }
    assert_eq!(family.check("agent-b", "orphan").0, 403);

    // The same on every path that asks for a caller.
    let authorize = "GET /v1/authz/agent-a HTTP/1.0\r\nHost: localhost\r\n\r\n";
    assert_eq!(family.ask("agent-a", "self", authorize).0, 200);
    let body = r#"{"deviceId":"agent-a"}"#;
    let head = format!("POST /api/v1/devices/validate HTTP/1.0\r\nHost: localhost\r\ncontent-length: {}", body.len());
    let validate = format!("{head}\r\n\r\n{body}");
    assert_eq!(family.ask("agent-a", "self", &validate).1["code"], "ALLOW");
    assert_eq!(family.ask("agent-b", "self", &validate).1["code"], "DEVICE_REVOKED", "its stop has begun");
    let stopped = post(&sidecar.socket(), "/v1/stop", &json!({"device": "agent-b"}));
    assert_eq!((stopped.status, stopped.json()["run_ids"].as_array().unwrap().len()), (200, 0), "{stopped:?}");
    assert!(is_alive(family.pids[0]), "the other one runs on");
    let agents = sidecar.status()["agents"].as_array().unwrap().clone();
    let state = |device: &str| agents.iter().find(|agent| agent["device_id"] == device).map(|agent| &agent["state"]);
    assert_eq!((state("agent-a"), state("agent-b")), (Some(&json!("running")), Some(&json!("stopping"))));
    drop(family.program);
}

#[test]
fn a_caller_inside_an_inner_run_needs_both_and_not_its_sibling() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&org, &authority);
    let family = Family::start(&sidecar, Some("agent-outer"), &["agent-a", "agent-b"]);
    assert_eq!(family.check("agent-a", "self").0, 200);
    org.device("revoke", "agent-b");
    until("the stop of the one begins", || (family.check("agent-b", "self").0 == 403).then_some(()));
    assert_eq!(family.check("agent-a", "self").0, 200, "the sibling is not denied");
    assert_eq!(family.check("supervisor", "self"), said(200, "ALLOW", "agent-outer"), "it is the outer run's agent");
    org.device("revoke", "agent-outer");
    until("the outer stop begins", || (family.check("supervisor", "self").0 == 403).then_some(()));
    let denied = family.check("agent-a", "self");
    assert_eq!((denied.0, denied.1.as_str()), (403, "DEVICE_REVOKED"), "both must allow");
}
