//! Trees and signals: traps 11 to 17. Those before are shapes in [`super::matrix`].

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::census::with_marks;
use super::matrix::{Ender, Mode, User};
use crate::harness::authority::Authority;
use crate::harness::eventually;
use crate::harness::never::Never;
use crate::harness::place::{ORDINARY, Place, cgroup_of, is_root, skipped};
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::until;
use crate::harness::wrapper::unique_sleep;

const DEVICE: &str = "host:traps";

fn start(authority: &Authority, key: &str, place: Place) -> Sidecar {
    let mut setup = Setup::new(&authority.url(), key, DEVICE).at(place);
    "interval = \"200ms\"\nlease = \"1m\"\nstop_grace = \"300ms\"".clone_into(&mut setup.enforcement);
    setup.start()
}

/// An agent with a status file.
struct Agent {
    wrapped: Wrapped,
    status: tempfile::TempDir,
    mark: Ender,
}

impl Agent {
    /// Runs `sh -c script mark argument`.
    fn start(sidecar: &Sidecar, mode: Mode, script: &str, argument: &str) -> Self {
        let mark = unique_sleep().to_string();
        let status = tempfile::tempdir().unwrap();
        sidecar.place().give_to_agents(status.path());
        let file = status.path().join("status.json");
        let flags = ["--containment", mode.word(), "--status-file", file.to_str().unwrap()];
        let wrapped = Wrapped::start(sidecar.wrap(&flags, &["sh", "-c", script, &mark, argument]));
        Self { wrapped, status, mark: Ender(mark) }
    }

    fn status(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.status.path().join("status.json")).unwrap()).unwrap()
    }
}

#[test]
fn a_frozen_control_group_is_ended_all_the_same() {
    let place = match Mode::Cgroup.place(User::Root) {
        Ok(place) => place,
        Err(why) => return skipped("a frozen control group", why),
    };
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&authority, &org.key, place);
    let script = "trap '' TERM; sleep $0 & echo agent $$ $!; sleep $0; true";
    let mut agent = Agent::start(&sidecar, Mode::Cgroup, script, "");
    let pid = number_after(&agent.wrapped.line_with("agent"), "agent");
    let leaf = cgroup_of(&pid.to_string()).unwrap();
    assert!(leaf.file_name().unwrap().to_str().unwrap().starts_with("machineid-"), "{leaf:?}");
    fs::write(leaf.join("cgroup.freeze"), "1").unwrap();
    let frozen = || fs::read_to_string(leaf.join("cgroup.events")).is_ok_and(|text| text.contains("frozen 1"));
    eventually("it is frozen", frozen);
    org.device("revoke", DEVICE);
    assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
    assert!(!is_alive(pid));
    eventually("the control group is removed", || !leaf.exists());
}

#[test]
fn without_a_control_group_auto_says_what_it_is_instead_and_a_named_one_is_refused() {
    // Root would get one.
    let place = if is_root() { Place::ordinary() } else { Place::own() };
    if !is_root() && Mode::Cgroup.place(User::Ordinary).is_ok() {
        return skipped("without a control group", "this user can make one");
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&authority, &org.key, place);
    let mut auto = Agent::start(&sidecar, Mode::Auto, "echo agent; exec sleep $0", "");
    auto.wrapped.line_with("agent");
    let status = sidecar.status();
    let shown = &status["agents"][0];
    assert_eq!((&shown["containment"], &shown["holds_against"]), (&"subreaper".into(), &"bugs".into()), "{status}");
    assert!(shown["containment_reason"].as_str().is_some_and(|reason| reason.len() > 20), "{status}");
    let mut named = Agent::start(&sidecar, Mode::Cgroup, "echo started", "");
    assert_eq!(named.wrapped.exit_code(), 125, "{}", named.wrapped.stderr());
    assert!(named.wrapped.stdout().is_empty(), "it was started");
    assert!(named.wrapped.stderr().contains("cgroup"), "{}", named.wrapped.stderr());
}

/// A client whose agent's number goes to a stranger between the stop signal and SIGKILL. Runs as pid 1 of a namespace, where
/// numbers can be chosen.
const RECYCLED: &str = r#"
import json, os, secrets, signal, socket, sys, time
path, notes = sys.argv[1:3]
def note(text): print(text, flush=True)
client = os.fork()
if client == 0:
    agent = os.fork()
    if agent == 0:
        os.setpgid(0, 0)
        # One more, so that the stop goes on after the leader's end; in a group of its own, or the number stays taken.
        if os.fork() == 0: os.setpgid(0, 0); signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True: time.sleep(1000)
    time.sleep(0.2)
    s = socket.socket(socket.AF_UNIX); s.connect(path)
    body = json.dumps({"pid": agent, "run_id": secrets.token_hex(16)}).encode()
    s.sendall(b"POST /v1/supervise HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    lines = s.makefile()
    while '"event":"allow"' not in lines.readline(): pass
    note('allowed')
    _, status = os.waitpid(agent, 0)
    open(notes, 'w').write(str(agent))
    while True: time.sleep(1000)
while not os.path.exists(notes) or not open(notes).read(): time.sleep(0.001)
number = int(open(notes).read())
for attempt in range(100):
    with open('/proc/sys/kernel/ns_last_pid', 'w') as last: last.write(str(number - 1))
    stranger = os.fork()
    if stranger == 0:
        for n in range(1, 65):
            if n not in (9, 17, 19, 32, 33): signal.signal(n, lambda n, _: note('stranger got %d' % n))
        if os.getpid() == number: note('recycled')
        while True: time.sleep(1000)
    if stranger == number: break
    os.kill(stranger, 9); os.waitpid(stranger, 0)
while True:
    pid, status = os.wait()
    if pid == stranger: note('the stranger was killed')
"#;

#[test]
fn a_number_that_went_to_a_stranger_between_the_two_signals_brings_him_none() {
    if !is_root() {
        return skipped("a number that went to a stranger", "this takes root");
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&authority, &org.key, Place::own());
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "python3", "-S", "-c", RECYCLED]);
    command.arg(sidecar.socket()).arg(sidecar.directory().join("notes")).stdin(Stdio::null());
    let mut client = Wrapped::start(command);
    client.line_with("allowed");
    org.device("revoke", DEVICE);
    client.line_with("recycled");
    eventually("the stop is over", || sidecar.log().contains("nothing of it is left"));
    let said = client.stdout();
    assert!(!said.contains("stranger got") && !said.contains("was killed"), "{said}");
    assert!(!client.has_ended());
}

fn is_roots(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().skip(1).all(|uid| uid == "0"))
}

#[test]
fn a_child_of_another_user_is_reported_where_it_cannot_be_killed_and_nowhere_called_gone() {
    if !is_root() {
        return skipped("a setuid child", "this takes root");
    }
    let programs = tempfile::tempdir().unwrap();
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // What is setuid alone may still be signalled by its parent; this gives up the last trace of them, as sudo does.
    let setpriv = programs.path().join("setpriv");
    fs::copy("/usr/bin/setpriv", &setpriv).unwrap();
    chown(&setpriv, Some(0), Some(ORDINARY)).unwrap();
    fs::set_permissions(&setpriv, fs::Permissions::from_mode(0o4750)).unwrap();
    for (mode, survives) in [(Mode::Subreaper, true), (Mode::Cgroup, false), (Mode::Pidns, false)] {
        let place = match mode.place(User::Ordinary) {
            Ok(place) => place,
            Err(why) => {
                skipped("a setuid child", why);
                continue;
            }
        };
        let authority = Authority::start();
        let org = authority.org("pro");
        let sidecar = start(&authority, &org.key, place);
        let script = "setsid \"$1\" --reuid 0 --clear-groups sleep $0 & echo child $!; exec sleep $0";
        let mut agent = Agent::start(&sidecar, mode, script, setpriv.to_str().unwrap());
        agent.wrapped.line_with("child");
        let mark = agent.mark.mark().to_owned();
        if mode == Mode::Pidns {
            // In a user namespace of this user's own, there is no root.
            eventually("the setuid program has failed", || agent.wrapped.stderr().contains("setpriv"));
            org.device("revoke", DEVICE);
            assert_eq!(agent.wrapped.exit_code(), 77, "{}", agent.wrapped.stderr());
            continue;
        }
        let child = until("the setuid program has become root's", || {
            let found = with_marks(&[&mark]);
            found.iter().find(|found| found.comm == "sleep" && is_roots(found.pid)).map(|found| found.pid)
        });
        org.device("revoke", DEVICE);
        let code = agent.wrapped.exit_code();
        let (status, lines) = (agent.status(), agent.wrapped.stderr());
        assert_eq!(is_alive(child), survives, "{}: {status}", mode.word());
        if survives {
            // The run was denied; the line and the account say that a process is left.
            assert_eq!(code, 77, "{lines}");
            let survivors = status["survivors"].as_array().unwrap();
            assert!(survivors.len() == 1 && survivors[0]["pid"] == child, "{status}");
            assert!(survivors[0]["reason"].as_str().unwrap().contains("another user"), "{status}");
            assert!(lines.contains(&child.to_string()), "{lines}");
            // The daemon does not call it gone either.
            eventually("the daemon names the survivor", || sidecar.log().contains(&format!("pid={child}")));
            assert!(!sidecar.log().contains("nothing of it is left"), "{}", sidecar.log());
        } else {
            assert_eq!((code, &status["survivors"]), (77, &Value::Array(Vec::new())), "{lines}");
        }
    }
}

#[test]
fn a_child_that_cannot_be_interrupted_is_reported_after_a_bounded_wait() {
    if !Never::is_possible() {
        return skipped("a child that cannot be interrupted", "this takes root and /dev/fuse");
    }
    for mode in [Mode::Subreaper, Mode::Cgroup, Mode::Pidns] {
        let place = match mode.place(User::Root) {
            Ok(place) => place,
            Err(why) => {
                skipped("a child that cannot be interrupted", why);
                continue;
            }
        };
        let authority = Authority::start();
        let org = authority.org("pro");
        let sidecar = start(&authority, &org.key, place);
        let never = Never::start();
        let script = "cat \"$1/x\" $0 & echo child $!; exec sleep $0";
        let mut agent = Agent::start(&sidecar, mode, script, never.path().to_str().unwrap());
        agent.wrapped.line_with("child");
        let mark = agent.mark.mark().to_owned();
        let child = until("the child runs", || {
            let found = with_marks(&[&mark]);
            found.iter().find(|found| found.comm == "cat").map(|found| found.pid)
        });
        eventually("the child waits for the file system", || never.waiting() > 0);
        org.device("revoke", DEVICE);
        // That it ends at all is what is tested.
        let code = agent.wrapped.exit_code();
        let (status, lines) = (agent.status(), agent.wrapped.stderr());
        assert_eq!(code, 77, "{}: {lines}", mode.word());
        let survivors = status["survivors"].as_array().unwrap();
        assert!(survivors.iter().any(|survivor| survivor["pid"] == child), "{}: {child} {status}", mode.word());
        assert!(status.to_string().contains("uninterruptible"), "{status}");
        assert!(!sidecar.log().contains("nothing of it is left"), "{}", sidecar.log());
        drop(never);
        // They went on trying.
        eventually("the child is gone", || !is_alive(child));
        eventually("the daemon says so", || sidecar.log().contains("nothing of it is left"));
    }
}

/// A group of the freezer of version 1 that stands still with all that is in it, until dropped.
struct FreezerOne(std::path::PathBuf);

impl FreezerOne {
    fn around(pid: i32) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let freezes = |line: &&str| line.contains(" - cgroup ") && line.split([' ', ',']).any(|word| word == "freezer");
        let mount = mounts.lines().find(freezes)?.split(' ').nth(4)?;
        let group = Path::new(mount).join(format!("test-{}-{pid}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let made = Self(group);
        fs::write(made.0.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(made.0.join("freezer.state"), "FROZEN").unwrap();
        Some(made)
    }
}

impl Drop for FreezerOne {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        until("the group is empty", || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn an_agent_in_a_freezer_of_version_1_is_reported_and_ends_with_the_thaw() {
    let name = "a freezer of version 1";
    if !is_root() {
        return skipped(name, "this takes root");
    }
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&authority, &org.key, Place::own());
    let mut agent = Agent::start(&sidecar, Mode::Auto, "echo agent $$; exec sleep $0", "");
    let pid = number_after(&agent.wrapped.line_with("agent"), "agent ");
    let Some(frozen) = FreezerOne::around(pid) else {
        return skipped(name, "there is none on this host");
    };
    until("it stands", || {
        (fs::read_to_string(frozen.0.join("freezer.state")).unwrap().trim() == "FROZEN").then_some(())
    });
    org.device("revoke", DEVICE);
    assert_eq!(agent.wrapped.exit_code(), 77);
    let status = agent.status();
    assert_eq!(status["survivors"][0]["pid"], pid, "{status}");
    assert!(status.to_string().contains("freezer of cgroup version 1"), "{status}");
    assert!(!sidecar.log().contains("nothing of it is left"), "{}", sidecar.log());
    drop(frozen);
    eventually("the agent is gone", || !is_alive(pid));
    eventually("the daemon says so", || sidecar.log().contains("nothing of it is left"));
}

#[test]
fn a_zombie_is_nobody_who_is_left() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&authority, &org.key, if is_root() { Place::ordinary() } else { Place::own() });
    // A client that never reaps its agent.
    let program = r#"
import json, os, secrets, socket, sys, time
agent = os.fork()
if agent == 0:
    os.setpgid(0, 0)
    os.execvp("sleep", ["sleep", "1000"])
time.sleep(0.2)
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
body = json.dumps({"pid": agent, "run_id": secrets.token_hex(16)}).encode()
s.sendall(b"POST /v1/supervise HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
lines = s.makefile()
while '"event":"allow"' not in lines.readline(): pass
print("agent", agent, flush=True)
while True: time.sleep(1000)
"#;
    let mut command = Command::new("python3");
    command.args(["-S", "-c", program]).arg(sidecar.socket()).stdin(Stdio::null());
    let mut client = Wrapped::start(sidecar.place().as_agent(command));
    let agent = number_after(&client.line_with("agent"), "agent");
    client.watch(&[agent]);
    org.device("revoke", DEVICE);
    eventually("the stop is over", || sidecar.log().contains("nothing of it is left"));
    let stat = fs::read_to_string(format!("/proc/{agent}/stat")).unwrap();
    assert!(stat.contains(") Z "), "{stat}");
    assert!(!sidecar.log().contains("outlived"), "{}", sidecar.log());
}
