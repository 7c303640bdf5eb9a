//! Agents for the tests of the daemon, and a wrapper made by hand that does nothing but ask.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Answer, Setup, Sidecar, chmod, exchange};
use crate::harness::wait::until;

/// The user as which tests of root's daemon run agents.
pub(crate) const NOBODY: u32 = 65_534;

/// Says its pid, and each SIGTERM. Ends by one.
pub(crate) const OBEDIENT: &str = "trap 'echo got TERM; exit 0' TERM; echo agent ready $$; while :; do sleep 0.1; done";
/// The same, and does not end by it.
pub(crate) const STUBBORN: &str = "trap 'echo got TERM' TERM; echo agent ready $$; while :; do sleep 0.1; done";

/// Asks for its child, which waits as long, prints what it is told, and otherwise does nothing: it neither ends the child
/// nor comes back.
const BY_HAND: &str = r#"
import json, os, socket, subprocess, sys, time
waiting = ["sh", "-c", 'read go && exec "$@" < /dev/null', "waiting"]
child = subprocess.Popen(waiting + sys.argv[3:], start_new_session=True, stdin=subprocess.PIPE)
body = json.dumps({"pid": child.pid, "alone": True, **json.loads(sys.argv[2])}).encode()
stream = socket.socket(socket.AF_UNIX)
stream.connect(sys.argv[1])
stream.sendall(b"POST /v1/supervise HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
for line in stream.makefile():
    print(line, end="", flush=True)
    if '"event":"allow"' in line:
        child.stdin.write(b"go\n")
        child.stdin.flush()
    if '"event":"error"' in line: sys.exit()
while True: time.sleep(60)
"#;

/// An agent under a wrapper.
pub(crate) struct Agent {
    pub(crate) wrapped: Wrapped,
    pub(crate) pid: i32,
}

impl Agent {
    /// Under the real wrapper.
    pub(crate) fn start(sidecar: &Sidecar, flags: &[&str], script: &str) -> Self {
        Self::of(Wrapped::start(sidecar.wrap(flags, &["sh", "-c", script])))
    }

    /// Under the real wrapper, as another user. Needs root.
    pub(crate) fn start_as(uid: u32, sidecar: &Sidecar, flags: &[&str], script: &str) -> Self {
        Self::of(Wrapped::start(as_user(uid, &sidecar.wrap(flags, &["sh", "-c", script]))))
    }

    /// Under a wrapper made by hand, with these further fields of its request.
    pub(crate) fn start_by_hand(sidecar: &Sidecar, id: &str, fields: &Value, script: &str) -> Self {
        Self::of(Wrapped::start(by_hand(sidecar, id, fields, &["sh", "-c", script])))
    }

    fn of(mut wrapped: Wrapped) -> Self {
        let pid = number_after(&wrapped.line_with("agent ready"), "agent ready ");
        wrapped.watch(&[pid]);
        Self { wrapped, pid }
    }

    pub(crate) fn is_alive(&self) -> bool {
        is_alive(self.pid)
    }

    pub(crate) fn is_gone(&self) {
        until("the agent is gone", || (!self.is_alive()).then_some(()));
    }

    /// How often it got SIGTERM.
    pub(crate) fn terms(&self) -> usize {
        self.wrapped.stdout().matches("got TERM").count()
    }
}

/// The command of a wrapper made by hand.
pub(crate) fn by_hand(sidecar: &Sidecar, id: &str, fields: &Value, command: &[&str]) -> Command {
    let mut fields = fields.clone();
    fields["run_id"] = id.into();
    let mut wrapper = Command::new("python3");
    wrapper.args(["-c", BY_HAND]).arg(sidecar.socket()).arg(fields.to_string()).args(command).stdin(Stdio::null());
    wrapper
}

/// The same command as another user, without capabilities.
pub(crate) fn as_user(uid: u32, command: &Command) -> Command {
    with_identity(uid, &["--clear-groups"], command)
}

/// The same command as another user who is in one more group.
pub(crate) fn as_member(uid: u32, gid: u32, command: &Command) -> Command {
    with_identity(uid, &["--groups", &gid.to_string()], command)
}

fn with_identity(uid: u32, groups: &[&str], command: &Command) -> Command {
    let uid = uid.to_string();
    let mut other = Command::new("setpriv");
    // A search path that leads to no home directory.
    other
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .args(["--reuid", &uid, "--regid", &uid])
        .args(groups)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs().filter(|(name, _)| *name != "PATH") {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other.stdin(Stdio::null());
    other
}

/// Lets every user ask this daemon.
pub(crate) fn open_to_all(setup: &mut Setup) {
    setup.local = String::from("mode = \"0666\"");
    chmod(setup.directory.path(), 0o755);
}

/// A run id of the test's own.
pub(crate) fn run_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// The agents that `status` shows to this test.
pub(crate) fn agents(sidecar: &Sidecar) -> Vec<Value> {
    sidecar.status()["agents"].as_array().unwrap().clone()
}

/// The stop of this run, as `status` remembers it.
pub(crate) fn stop_of(sidecar: &Sidecar, id: &str) -> Option<Value> {
    let stops = sidecar.status()["recent_stops"].as_array().unwrap().clone();
    stops.into_iter().find(|stop| stop["run_id"] == id)
}

pub(crate) fn post(socket: &Path, path: &str, body: &Value) -> Answer {
    exchange(socket, &request(path, body)).expect("the daemon answers")
}

pub(crate) fn request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A request by another user, `before` the client as that user; the status and the body. Needs root.
pub(crate) fn post_as(uid: u32, before: &[&str], socket: &Path, path: &str, body: &Value) -> (u16, Value) {
    ask_by(|client| as_user(uid, client), before, socket, &request(path, body))
}

/// A request by a client whose command this makes another identity's; the status and the body.
pub(crate) fn ask_by(
    identity: impl Fn(&Command) -> Command,
    before: &[&str],
    socket: &Path,
    request: &str,
) -> (u16, Value) {
    let client = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                  s.sendall(sys.argv[2].encode()); print(s.makefile(newline='').read())";
    let mut words = before.to_vec();
    words.extend(["python3", "-c", client]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(socket).arg(request);
    let output = identity(&command).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (status, serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap())
}

/// The file in which a run is written down.
pub(crate) fn record(sidecar: &Sidecar, id: &str) -> PathBuf {
    sidecar.directory().join("runtime/runs").join(format!("{id}.json"))
}

/// What is written down about the one run there is.
pub(crate) fn only_record(sidecar: &Sidecar) -> Option<Value> {
    let files: Vec<_> =
        fs::read_dir(sidecar.directory().join("runtime/runs")).unwrap().map(|file| file.unwrap().path()).collect();
    let file = files.iter().find(|file| file.extension().is_some_and(|suffix| suffix == "json"))?;
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Whether this test runs as root; says so when it does not and the test is skipped.
pub(crate) fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        // Not `eprintln!`: the test harness would swallow that.
        let _ = writeln!(std::io::stderr(), "SKIPPED a test that needs root: {what}");
    }
    root
}

/// Whether root may make control groups here.
pub(crate) fn has_cgroups(what: &str) -> bool {
    let mounted = cgroup_root().is_some();
    if !mounted {
        let _ = writeln!(std::io::stderr(), "SKIPPED a test that needs cgroup2: {what}");
    }
    is_root(what) && mounted
}

/// Where cgroup2 is mounted.
pub(crate) fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.into_iter().find(|fields| fields[2] == "cgroup2").map(|fields| PathBuf::from(fields[1]))
}

/// The control group of a process.
pub(crate) fn cgroup_of(pid: i32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    cgroup_root().unwrap().join(path)
}

/// The result of a question about another user's run.
pub(crate) fn strangers_question(sidecar: &Sidecar, id: &Value) -> Answer {
    post(&sidecar.socket(), "/v1/supervise", &json!({"pid": std::process::id(), "run_id": id}))
}
