//! Clients that name processes which are none of theirs. Never a signal to a process that is not its client's descendant.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use super::bystander::Bystander;
use super::places::new_pid_namespace;
use crate::daemon::agents::ask_by;
use crate::harness::authority::{Authority, Org};
use crate::harness::eventually;
use crate::harness::place::{Place, can_make_cgroups, is_root, own_cgroup, remove_cgroup, skipped};
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{BINARY, Setup, Sidecar, clean_environment, exchange};
use crate::harness::wait::until;

const DEVICE: &str = "host:strangers";

/// What every client here begins with. `supervise` prints the answer as `answer NUMBER CODE-OR-ALLOW`.
const CLIENT: &str = r#"
import json, os, secrets, signal, socket, subprocess, sys, time
path, arguments = sys.argv[1], sys.argv[2:]
held = []
def supervise(pid, run=None, **rest):
    s = socket.socket(socket.AF_UNIX); s.connect(path)
    body = json.dumps({"pid": pid, "run_id": run or secrets.token_hex(16), "stop_grace": "200ms", **rest}).encode()
    s.sendall(b"POST /v1/supervise HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    lines = s.makefile()
    status = lines.readline().split()[1]
    while lines.readline().strip(): pass
    line = json.loads(lines.readline())
    held.append(s)
    print("answer", status, line["code"], line.get("killer"), line.get("containment"), flush=True)
    return line
def child():
    # Ignores TERM, so that the whole ladder is gone through.
    process = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; exec sleep 1000"], stdout=subprocess.PIPE)
    process.stdout.readline()
    print("child", process.pid, flush=True)
    return process.pid
def rest():
    print("resting", flush=True)
    while True: time.sleep(1000)
"#;

struct Scene<'a> {
    org: Org<'a>,
    sidecar: Sidecar,
    bystander: Bystander,
}

impl<'a> Scene<'a> {
    fn new(authority: &'a Authority, place: Place) -> Self {
        let org = authority.org("pro");
        let mut setup = Setup::of(&org, &authority.url(), DEVICE).at(place);
        "interval = \"200ms\"\nlease = \"1m\"\nstop_grace = \"300ms\"".clone_into(&mut setup.enforcement);
        Self { sidecar: setup.start(), org, bystander: Bystander::start() }
    }

    fn client(&self, before: &[&str], program: &str, arguments: &[String]) -> Wrapped {
        let mut words = before.to_vec();
        words.extend(["python3", "-S", "-c"]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(format!("{CLIENT}{program}")).arg(self.sidecar.socket()).args(arguments);
        command.stdin(Stdio::null());
        clean_environment(&mut command, self.sidecar.directory());
        Wrapped::start(self.sidecar.place().as_agent(command))
    }

    /// Revokes, and waits until the stops that come of it are over: one for each ALLOW this client was given.
    fn revoke(&self, client: &Wrapped) {
        let stops = client.stdout().matches(" ALLOW daemon").count();
        self.org.device("revoke", DEVICE);
        until("the deny has arrived", || (self.sidecar.check().status == 403).then_some(()));
        eventually("the stops are over", || self.sidecar.log().matches("nothing of it is left").count() == stops);
    }

    fn nobody_was_hurt(&self) {
        self.bystander.is_untouched();
        assert!(self.sidecar.get("/healthz").is_some(), "the daemon ended");
    }
}

#[test]
fn who_names_a_process_that_is_no_descendant_is_refused_and_nobody_is_signalled() {
    let authority = Authority::start();
    let places = if is_root() { vec![Place::own(), Place::ordinary_under_root()] } else { vec![Place::own()] };
    for place in places {
        let scene = Scene::new(&authority, place);
        let strangers =
            [scene.bystander.pid(), scene.bystander.child(), 1, i32::try_from(scene.sidecar.pid()).unwrap()];
        let numbers: Vec<String> = strangers.iter().map(ToString::to_string).collect();
        // Its parent, itself by a number that no process has, and none at all, too.
        let program =
            "for pid in [int(a) for a in arguments] + [os.getppid(), 0, -1, 2 ** 31 - 1]: supervise(pid)\nrest()";
        let mut client = scene.client(&["env"], program, &numbers);
        client.line_with("resting");
        let said = client.stdout();
        assert_eq!(said.matches("answer").count(), 8, "{said}");
        assert!(!said.contains(" ALLOW"), "{said}");
        assert!(said.matches("PID_NOT_PERMITTED").count() >= 5, "{said}");
        scene.revoke(&client);
        scene.nobody_was_hurt();
        assert!(!client.has_ended());
    }
}

#[test]
fn pid_1_of_a_child_namespace_is_that_namespaces_and_never_the_hosts() {
    let Some(flags) = new_pid_namespace() else {
        return skipped("pid 1 of a child namespace", "this user can make no PID namespace");
    };
    let authority = Authority::start();
    let scene = Scene::new(&authority, Place::own());
    let unshare = [&["unshare"], &flags[..], &["--mount-proc", "--kill-child"]].concat();
    // Its parent there is pid 1: no descendant of it.
    let below = [&unshare[..], &["sh", "-c", "\"$@\"; true", "sh"]].concat();
    let mut below = scene.client(&below, "supervise(1)\nrest()", &[]);
    below.line_with("resting");
    assert!(below.stdout().contains("answer 403 PID_NOT_PERMITTED"), "{}", below.stdout());
    // It is pid 1 itself, and may be supervised.
    let mut first = scene.client(&unshare, "supervise(os.getpid())\nrest()", &[]);
    first.line_with("resting");
    assert!(first.stdout().contains("answer 200 ALLOW daemon"), "{}", first.stdout());
    scene.revoke(&first);
    eventually("it is ended", || first.has_ended());
    assert!(!below.has_ended());
    scene.nobody_was_hurt();
}

#[test]
fn root_of_a_user_namespace_has_no_rights_over_others() {
    if !is_root() {
        return skipped("root of a user namespace", "this takes root");
    }
    let authority = Authority::start();
    let scene = Scene::new(&authority, Place::ordinary_under_root());
    // An agent of root's own.
    let mut command = Command::new(env!("CARGO_BIN_EXE_machineid-run"));
    clean_environment(&mut command, scene.sidecar.directory());
    command.arg("--socket").arg(scene.sidecar.socket()).args(["--", "sh", "-c", "echo agent $$; exec sleep 1000"]);
    let mut agent = Wrapped::start(command);
    let pid = number_after(&agent.line_with("agent"), "agent");
    agent.watch(&[pid]);
    let program = "assert os.getuid() == 0\n\
        for pid in [int(a) for a in arguments]: supervise(pid)\n\
        s = socket.socket(socket.AF_UNIX); s.connect(path); s.sendall(b'GET /v1/status HTTP/1.0\\r\\n\\r\\n')\n\
        text = s.makefile().read(); print('sees', len(json.loads(text[text.index('{'):])['agents']), flush=True)\n\
        rest()";
    let numbers = [scene.bystander.pid(), pid, 1].map(|pid| pid.to_string());
    let unshare = ["unshare", "--user", "--map-root-user"];
    let mut client = scene.client(&unshare, program, &numbers);
    client.line_with("resting");
    let said = client.stdout();
    assert_eq!(said.matches("answer 403 PID_NOT_PERMITTED").count(), 3, "{said}");
    assert!(said.contains("sees 0"), "{said}");
    assert!(is_alive(pid) && !agent.has_ended());
    scene.nobody_was_hurt();
}

#[test]
fn a_guardian_that_is_none_brings_no_signal_to_it_or_its_children() {
    let authority = Authority::start();
    let scene = Scene::new(&authority, Place::own());
    let strangers = [scene.bystander.pid(), scene.bystander.child(), 1, i32::try_from(scene.sidecar.pid()).unwrap()];
    let numbers: Vec<String> = strangers.iter().map(ToString::to_string).collect();
    // Also itself, its parent, the leader, and a real child of it that is not the leader's parent, with a child.
    let program = "other = subprocess.Popen(['sh', '-c', 'sleep 1000 & echo other $! $$; wait'])\n\
        for guardian in [int(a) for a in arguments] + [os.getpid(), os.getppid(), other.pid]:\n\
        \x20   supervise(child(), guardian=guardian)\n\
        leader = child(); supervise(leader, guardian=leader)\n\
        rest()";
    let mut client = scene.client(&["env"], program, &numbers);
    client.line_with("resting");
    let said = client.stdout();
    let others = said.lines().find_map(|line| line.strip_prefix("other ")).unwrap();
    let others: Vec<i32> = others.split(' ').map(|number| number.parse().unwrap()).collect();
    let children: Vec<i32> = said.lines().filter_map(|line| line.strip_prefix("child ")?.parse().ok()).collect();
    client.watch(&[&children[..], &others[..]].concat());
    assert_eq!(children.len(), 8, "{said}");
    scene.revoke(&client);
    // Those that were accepted are gone; the process that was named as a guardian is not, nor are its children.
    let answers: Vec<&str> = said.lines().filter(|line| line.starts_with("answer")).collect();
    for (child, answer) in children.iter().zip(&answers) {
        if answer.contains(" ALLOW ") {
            eventually("a supervised child is gone", || !is_alive(*child));
        }
    }
    scene.nobody_was_hurt();
    assert!(others.iter().all(|pid| is_alive(*pid)), "a child of the client that is in no tree was killed: {said}");
    assert!(!client.has_ended(), "the client itself was killed: {said}");
}

/// A control group named as a run's, with others in it. Removed when dropped.
struct Trap(PathBuf);

impl Trap {
    fn add(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        let above = self.0.parent().unwrap().join("cgroup.procs");
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&above, pid);
        }
        eventually("the control group is removed", || !self.0.exists() || remove_cgroup(&self.0).is_ok());
    }
}

#[test]
fn a_control_group_that_holds_others_is_never_ended_whatever_its_name() {
    let name = "a control group that holds others";
    if !is_root() || !can_make_cgroups() {
        return skipped(name, "this takes root and a control group of version 2");
    }
    for (number, containment) in ["cgroup", "auto"].into_iter().enumerate() {
        for other in ["bystander", "the client", "the daemon"] {
            let authority = Authority::start();
            let scene = Scene::new(&authority, Place::own());
            let run = format!("{:024x}{:04x}{number:04x}", std::process::id(), other.len());
            let group = Trap(own_cgroup().unwrap().join(format!("machineid-{run}")));
            fs::create_dir(&group.0).unwrap();
            let program = "pid = child()\n\
                open(arguments[0] + '/cgroup.procs', 'w').write(str(pid))\n\
                while not os.path.exists(arguments[3]): time.sleep(0.01)\n\
                supervise(pid, run=arguments[1], containment=arguments[2])\n\
                rest()";
            let go = scene.sidecar.directory().join("go");
            let words = [group.0.display().to_string(), run, containment.to_owned(), go.display().to_string()];
            let mut client = scene.client(&["env"], program, &words);
            let child = number_after(&client.line_with("child"), "child");
            client.watch(&[child]);
            match other {
                "bystander" => group.add(u32::try_from(scene.bystander.pid()).unwrap()),
                "the client" => group.add(u32::try_from(client.pid()).unwrap()),
                _ => group.add(scene.sidecar.pid()),
            }
            fs::write(&go, "").unwrap();
            client.line_with("resting");
            let answer = client.line_with("answer");
            scene.revoke(&client);
            if answer.contains(" ALLOW ") {
                eventually("the child is gone", || !is_alive(child));
            }
            scene.nobody_was_hurt();
            assert!(!client.has_ended(), "with {other} in it, the client was killed: {answer}");
        }
    }
}

fn as_is(command: &Command) -> Command {
    let mut same = Command::new(command.get_program());
    same.args(command.get_args());
    same
}

#[test]
fn an_agent_the_daemon_cannot_see_is_ended_by_its_wrapper_and_status_says_so() {
    let Some(flags) = new_pid_namespace() else {
        return skipped("an agent the daemon cannot see", "this user can make no PID namespace");
    };
    let authority = Authority::start();
    let org = authority.org("pro");
    let setup = Setup::of(&org, &authority.url(), DEVICE);
    // Its namespace does not contain the wrapper, which it can therefore neither see nor signal.
    let mut command = Command::new("unshare");
    command.args(&flags).args(["--mount-proc", "--kill-child", BINARY, "--config"]).arg(setup.configuration());
    clean_environment(&mut command, setup.directory.path());
    let daemon = Wrapped::start(command);
    let socket = setup.socket();
    until("the daemon is ready", || (exchange(&socket, "GET /readyz HTTP/1.0\r\n\r\n")?.status == 200).then_some(()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_machineid-run"));
    clean_environment(&mut command, setup.directory.path());
    command
        .arg("--socket")
        .arg(&socket)
        .args(["--", "sh", "-c", "echo agent $$; exec sleep 1000"])
        .stdin(Stdio::null());
    let mut agent = Wrapped::start(command);
    let pid = number_after(&agent.line_with("agent"), "agent");
    agent.watch(&[pid]);
    if geteuid().is_root() {
        // From the daemon's own namespace: it cannot tell where this test is, and would show it no agent.
        let first = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap();
        let enter = ["nsenter", "--target", first.trim(), "--pid"];
        let (_, status) = ask_by(as_is, &enter, &socket, "GET /v1/status HTTP/1.0\r\n\r\n");
        assert_eq!(status["agents"][0]["killer"], "wrapper", "{status}");
        assert_eq!(status["agents"][0]["pid"], serde_json::Value::Null, "{status}");
    }
    org.device("revoke", DEVICE);
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
    assert!(!is_alive(pid));
}
