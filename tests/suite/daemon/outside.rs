//! What an agent uses outside its tree: it is seen, named after a stop, and ended with it where the configuration says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::agents::{Agent, agents, run_id, stop_of};
use crate::harness::authority::{Authority, Org};
use crate::harness::place::{Place, is_root, skipped};
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Setup, Sidecar, chmod};
use crate::harness::wait::until;

const DEVICE: &str = "host:outside";

/// A broker: says its pid and where it listens, and starts a process for each client, as an agent's daemon starts tools.
const BROKER: &str = r#"
import os, socket, subprocess, sys
clients = []
if "tcp" in sys.argv:
    server = socket.create_server(("127.0.0.1", 0))
    at = str(server.getsockname()[1])
else:
    at = sys.argv[-1].removeprefix("unix://")
    server = socket.socket(socket.AF_UNIX)
    server.bind(at)
    server.listen()
print("broker at", at, flush=True)
print("broker ready", os.getpid(), flush=True)
while True:
    clients.append(server.accept()[0])
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print("tool ready", child.pid, flush=True)
"#;

/// An agent that has the broker work for it.
const CLIENT: &str = r#"
import os, signal, socket, sys, time
at = sys.argv[1]
broker = socket.create_connection(("127.0.0.1", int(at))) if at.isdigit() else socket.socket(socket.AF_UNIX)
if not at.isdigit(): broker.connect(at)
print("agent ready", os.getpid(), flush=True)
signal.pause()
"#;

struct Broker {
    process: Wrapped,
    at: String,
    pid: i32,
    directory: tempfile::TempDir,
}

impl Broker {
    /// As a program of this name with these arguments, outside every tree. A last argument `unix://` gets a path.
    fn start(program: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join(program);
        fs::write(&script, BROKER).unwrap();
        let socket = format!("unix://{}", directory.path().join("broker.sock").display());
        let arguments =
            arguments.iter().map(|argument| if *argument == "unix://" { socket.as_str() } else { argument });
        let mut command = Command::new("python3");
        command.arg(&script).args(arguments).stdin(Stdio::null());
        let mut process = Wrapped::start(command);
        let at = process.line_with("broker at").trim_start_matches("broker at ").trim().to_owned();
        let pid = number_after(&process.line_with("broker ready"), "broker ready ");
        process.watch(&[pid]);
        Self { process, at, pid, directory }
    }

    /// The daemon of an agent, by the name and the arguments of codex.
    fn codex() -> Self {
        Self::start("codex", &["app-server", "--listen", "unix://"])
    }

    fn tool(&mut self) -> i32 {
        let tool = number_after(&self.process.line_with("tool ready"), "tool ready ");
        self.process.watch(&[tool]);
        tool
    }
}

fn start(org: &Org<'_>, authority: &Authority, more: &str) -> Sidecar {
    let mut setup = Setup::of(org, &authority.url(), DEVICE);
    setup.enforcement = format!("interval = \"1s\"\nlease = \"30s\"\nstop_grace = \"1s\"\n{more}");
    setup.start()
}

fn client(sidecar: &Sidecar, flags: &[&str], at: &str) -> Agent {
    let mut wrapped = Wrapped::start(sidecar.wrap(flags, &["python3", "-c", CLIENT, at]));
    let pid = number_after(&wrapped.line_with("agent ready"), "agent ready ");
    wrapped.watch(&[pid]);
    Agent { wrapped, pid }
}

/// The process of this number among what the agent uses, as status shows it.
fn seen(sidecar: &Sidecar, pid: i32) -> Value {
    until("the process outside is seen", || {
        let outside = agents(sidecar)[0]["outside"].as_array().unwrap().clone();
        outside.into_iter().find(|helper| helper["pid"] == pid)
    })
}

fn revoke(authority: &Authority, org: &Org<'_>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_machineid"));
    command.args(["revoke", DEVICE, "--wait"]).env_clear().stdin(Stdio::null());
    command.env("MACHINEID_BASE_URL", authority.url()).env("MACHINEID_ORG_KEY", &org.key);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn events(sidecar: &Sidecar) -> String {
    sidecar.get("/v1/events?from=oldest&follow=false").unwrap().body
}

fn status_file(directory: &Path) -> PathBuf {
    directory.join("status.json")
}

#[test]
fn an_agents_daemon_outside_is_seen_and_a_stop_that_leaves_it_is_not_complete() {
    let authority = Authority::start();
    let org = authority.org("free");
    let sidecar = start(&org, &authority, "");
    let mut broker = Broker::codex();
    let place = tempfile::tempdir().unwrap();
    let file = status_file(place.path());
    let mut agent = client(&sidecar, &["--status-file", file.to_str().unwrap()], &broker.at);
    let tool = broker.tool();
    let helper = seen(&sidecar, broker.pid);
    assert_eq!((&helper["kind"], &helper["name"]), (&json!("agent-daemon"), &json!("codex app-server")), "{helper}");
    assert_eq!(helper["via"], format!("unix:{}", broker.at));
    assert_eq!(helper["uid"], rustix::process::geteuid().as_raw());
    until("it is an event", || events(&sidecar).contains("outside-helper").then_some(()));
    let line = format!("codex app-server (pid {})", broker.pid);
    let shown = text(&sidecar.machineid(&["status"]).stdout);
    assert!(shown.contains(&format!("uses outside its tree: {line}")), "{shown}");

    let output = revoke(&authority, &org);
    let left = format!("still running outside: {line}, which this agent used");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains(&left), "{output:?}");
    assert!(text(&output.stdout).contains("confirmed, 1 outside helper"), "{output:?}");
    assert_eq!(agent.wrapped.exit_code(), 77);
    let said = agent.wrapped.stderr();
    assert!(said.contains(&format!("; {left}")), "{said}");
    let written: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(written["outside"][0]["pid"], broker.pid, "{written}");
    let status = sidecar.status();
    assert_eq!(status["recent_stops"][0]["outside"][0]["pid"], broker.pid, "{status}");
    assert_eq!(status["recent_stops"][0]["confirmed"], true);
    let shown = text(&sidecar.machineid(&["status"]).stdout);
    assert!(shown.contains("confirmed, 1 outside helper") && shown.contains(&left), "{shown}");
    let told = events(&sidecar);
    let stopped = told.lines().find(|line| line.contains("\"agent-stopped\"")).unwrap();
    assert!(stopped.contains(&format!("\"pid\":{}", broker.pid)), "{stopped}");
    assert!(is_alive(broker.pid) && is_alive(tool), "it is named, and left alone");

    // Once it has ended, nothing is left.
    broker.process.signal(rustix::process::Signal::KILL);
    until("it is no longer named", || {
        sidecar.status()["recent_stops"][0]["outside"].as_array().unwrap().is_empty().then_some(())
    });
    until("the authority knows", || (revoke(&authority, &org).status.code() == Some(0)).then_some(()));
}

#[test]
fn where_helpers_are_stopped_an_agents_daemon_ends_with_what_it_started_and_no_other_process_does() {
    let authority = Authority::start();
    let org = authority.org("free");
    let sidecar = start(&org, &authority, "outside_helpers = \"stop\"");
    let mut daemon = Broker::codex();
    // An unknown program by TCP, which is no agent's daemon.
    let mut other = Broker::start("broker", &["tcp"]);
    let mut agent = client(&sidecar, &[], &daemon.at);
    let tool = daemon.tool();
    assert_eq!(seen(&sidecar, daemon.pid)["kind"], "agent-daemon");
    let second = client(&sidecar, &[], &other.at);
    let others = other.tool();
    until("the other is seen", || {
        let uses = |agent: &Value| agent["outside"].as_array().unwrap().iter().any(|helper| helper["pid"] == other.pid);
        let found = agents(&sidecar).iter().find(|agent| uses(agent)).cloned()?;
        let helper = &found["outside"][0];
        assert_eq!(
            (&helper["kind"], helper["via"].as_str()),
            (&json!("other"), Some(format!("tcp:127.0.0.1:{}", other.at).as_str()))
        );
        Some(())
    });
    let output = revoke(&authority, &org);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(agent.wrapped.exit_code(), 77);
    let said = agent.wrapped.stderr();
    assert!(said.contains("ending outside: codex app-server"), "{said}");
    assert!(!is_alive(daemon.pid) && !is_alive(tool), "{}", sidecar.log());
    assert!(is_alive(other.pid) && is_alive(others));
    drop(second);
}

/// Only a deny, or the end of the lease, condemns a helper: the daemon is the user's, and other sessions may use it.
#[test]
fn an_agent_that_ends_by_itself_leaves_the_daemon_it_used_alone() {
    let authority = Authority::start();
    let org = authority.org("free");
    let sidecar = start(&org, &authority, "outside_helpers = \"stop\"");
    let mut broker = Broker::codex();
    for end in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        let mut agent = client(&sidecar, &[], &broker.at);
        let tool = broker.tool();
        seen(&sidecar, broker.pid);
        // The command's own end, and the death of its wrapper.
        if end == rustix::process::Signal::TERM {
            agent.wrapped.signal(end);
            assert_eq!(agent.wrapped.exit_code(), 143);
        } else {
            agent.wrapped.signal(end);
        }
        agent.is_gone();
        until("the run is over", || agents(&sidecar).is_empty().then_some(()));
        // The thread that looks takes its orders one by one: it has heard of that end before it sees the next agent.
        let mut next = client(&sidecar, &[], &broker.at);
        broker.tool();
        seen(&sidecar, broker.pid);
        assert!(is_alive(broker.pid) && is_alive(tool), "{}", sidecar.log());
        assert!(!sidecar.log().contains("ending the helper"), "{}", sidecar.log());
        next.wrapped.signal(rustix::process::Signal::TERM);
        next.wrapped.exit_code();
        until("the next run is over", || agents(&sidecar).is_empty().then_some(()));
    }
}

#[test]
fn an_agents_daemon_that_is_supervised_itself_is_left_to_its_own_stop() {
    let authority = Authority::start();
    let org = authority.org("free");
    let sidecar = start(&org, &authority, "outside_helpers = \"stop\"");
    let place = tempfile::tempdir().unwrap();
    let (script, socket) = (place.path().join("codex"), place.path().join("broker.sock"));
    fs::write(&script, BROKER).unwrap();
    let listen = format!("unix://{}", socket.display());
    let command = ["python3", script.to_str().unwrap(), "app-server", "--listen", &listen];
    let mut daemon = Wrapped::start(sidecar.wrap(&["--name", "daemon"], &command));
    let pid = number_after(&daemon.line_with("broker ready"), "broker ready ");
    daemon.watch(&[pid]);
    let mut agent = client(&sidecar, &["--name", "client"], socket.to_str().unwrap());
    until("it is seen", || {
        let found = agents(&sidecar).into_iter().find(|agent| agent["name"] == "client")?;
        found["outside"].as_array().unwrap().iter().any(|helper| helper["pid"] == pid).then_some(())
    });
    let output = sidecar.machineid(&["stop", "client"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("gone, 1 outside helper"), "{output:?}");
    assert_eq!(agent.wrapped.exit_code(), 77);
    // Another thread decides about it, for which no stop waits.
    let why = "it is in a supervised tree of its own";
    until("the daemon says why", || sidecar.log().contains(why).then_some(()));
    assert!(is_alive(pid), "its own device is allowed");
}

#[test]
fn an_ordinary_service_is_kept_apart_and_a_server_in_the_tree_is_no_helper() {
    let authority = Authority::start();
    let org = authority.org("free");
    let sidecar = start(&org, &authority, "");
    // A resolver by its name.
    let mut resolver = Broker::start("dnsmasq", &["tcp"]);
    let id = run_id();
    let command = ["python3", "-c", CLIENT, &resolver.at];
    let mut agent = Wrapped::start(super::agents::by_hand(&sidecar, &id, &json!({}), &command));
    let pid = number_after(&agent.line_with("agent ready"), "agent ready ");
    agent.watch(&[pid]);
    resolver.tool();
    assert_eq!(seen(&sidecar, resolver.pid)["kind"], "service");
    let shown = text(&sidecar.machineid(&["status"]).stdout);
    assert!(!shown.contains("dnsmasq"), "{shown}");
    let output = sidecar.machineid(&["stop", &id]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stop = until("the stop is over", || stop_of(&sidecar, &id));
    assert_eq!(stop["outside"], json!([]), "{stop}");
    assert!(!events(&sidecar).contains("outside-helper"));
}

/// As the packages have it: the daemon may signal every process, and read the descriptors of none.
#[test]
fn where_the_daemon_may_not_look_the_wrapper_does() {
    let Some(place) = Place::as_packaged().filter(|_| is_root()) else {
        return skipped("the wrapper's look", "it takes root and control groups");
    };
    let authority = Authority::start();
    let org = authority.org("free");
    let mut setup = Setup::of(&org, &authority.url(), DEVICE).at(place);
    // It informs, and condemns no process.
    setup.enforcement =
        String::from("interval = \"1s\"\nlease = \"30s\"\nstop_grace = \"1s\"\noutside_helpers = \"stop\"");
    let sidecar = setup.start();
    let mut broker = Broker::codex();
    chmod(broker.directory.path(), 0o755);
    chmod(Path::new(&broker.at), 0o777);
    let mut agent = client(&sidecar, &[], &broker.at);
    broker.tool();
    // Its owner is another user, root, and the wrapper may not read that one's descriptors: the socket tells.
    let told = until("the wrapper tells", || {
        let outside = agents(&sidecar)[0]["outside"].as_array().unwrap().clone();
        outside.into_iter().find(|helper| helper["via"] == format!("unix:{}", broker.at))
    });
    assert_eq!((&told["pid"], &told["kind"]), (&Value::Null, &json!("other")), "{told}");
    let output = sidecar.machineid(&["stop", "--all", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("still running outside: an unknown process (uid 0, unix:"), "{output:?}");
    assert_eq!(agent.wrapped.exit_code(), 77);
    assert!(
        agent.wrapped.stderr().contains("; still running outside: an unknown process"),
        "{}",
        agent.wrapped.stderr()
    );
    assert!(is_alive(broker.pid));
}
