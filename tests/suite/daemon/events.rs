//! `GET /v1/events`: what happens, in order, to the clients that it concerns.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use super::agents::{Agent, NOBODY, OBEDIENT, STUBBORN, as_user, is_root, open_to_all, post};
use crate::harness::PATIENCE;
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, Sidecar, exchange};
use crate::harness::wait::{eventually, until};

/// A client that listens.
pub(super) struct Listener {
    events: Receiver<Value>,
    connection: UnixStream,
}

impl Listener {
    pub(super) fn start(socket: &Path, query: &str, last: Option<&str>) -> Self {
        let mut connection = UnixStream::connect(socket).unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        write!(connection, "GET /v1/events?{query} HTTP/1.0\r\n{last}\r\n").unwrap();
        let (tell, events) = channel();
        let stream = BufReader::new(connection.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut id = Value::Null;
            for line in stream.lines().map_while(Result::ok) {
                if let Some(text) = line.strip_prefix("id: ") {
                    id = text.into();
                }
                let Some(data) = line.strip_prefix("data: ") else { continue };
                let mut event: Value = serde_json::from_str(data).unwrap();
                event["id"] = id.clone();
                if tell.send(event).is_err() {
                    return;
                }
            }
        });
        Self { events, connection }
    }

    pub(super) fn next(&self) -> Value {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// Passes everything over until this one comes.
    pub(super) fn expect(&self, name: &str) -> Value {
        loop {
            let event = self.next();
            if event["event"] == name {
                return event;
            }
        }
    }

    fn hang_up(self) -> Vec<Value> {
        self.connection.shutdown(std::net::Shutdown::Both).unwrap();
        self.events.iter().collect()
    }
}

fn start(authority: &Authority) -> Sidecar {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "events-host:1");
    open_to_all(&mut setup);
    setup.start()
}

fn names(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

/// Everything that is still kept.
fn kept(sidecar: &Sidecar) -> Vec<Value> {
    let answer = sidecar.get("/v1/events?from=oldest&follow=false").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let data = answer.body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[test]
fn a_revoke_is_told_from_the_decision_to_the_last_process() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "events-host:1");
    setup.enforcement = "interval = \"200ms\"\nlease = \"1m\"\nstop_grace = \"300ms\"".to_owned();
    let sidecar = setup.start();
    let listener = Listener::start(&sidecar.socket(), "from=oldest", None);
    assert_eq!(listener.next()["event"], "authority-up");
    let decision = listener.next();
    assert_eq!((&decision["event"], &decision["standing"]), (&json!("decision"), &json!("allowed")), "{decision}");
    let agent = Agent::start(&sidecar, &["--name", "worker"], STUBBORN);
    let started = listener.next();
    assert_eq!((&started["event"], &started["name"]), (&json!("agent-started"), &json!("worker")), "{started}");
    assert_eq!((&started["pid"], &started["killer"]), (&json!(agent.pid), &json!("daemon")), "{started}");
    org.device("revoke", "events-host:1");
    let denied = listener.next();
    assert_eq!((&denied["event"], &denied["code"]), (&json!("decision"), &json!("DEVICE_REVOKED")), "{denied}");
    assert_eq!(denied["source"], "authority");
    let stopping = listener.next();
    assert_eq!((&stopping["event"], &stopping["code"]), (&json!("agent-stopping"), &json!("DEVICE_REVOKED")));
    assert_eq!(stopping["request_id"], denied["request_id"]);
    let stopped = listener.next();
    assert_eq!((&stopped["event"], &stopped["confirmed"]), (&json!("agent-stopped"), &json!(true)), "{stopped}");
    // What its wrapper killed first, the daemon need not kill.
    assert!(stopped["killed"].is_u64() && stopped["took_ms"].as_u64() >= Some(300), "{stopped}");
    agent.is_gone();
    org.device("unrevoke", "events-host:1");
    // The wrapper's last words may come in between.
    assert_eq!(listener.expect("decision")["standing"], "allowed");
}

#[test]
fn an_agent_that_ends_by_itself_and_an_authority_that_goes_and_comes_are_told() {
    let mut authority = Authority::start();
    let sidecar = start(&authority);
    let listener = Listener::start(&sidecar.socket(), "", None);
    let mut agent = Agent::start(&sidecar, &[], "echo agent ready $$");
    assert_eq!(agent.wrapped.exit_code(), 0);
    listener.expect("agent-started");
    assert_eq!(listener.next()["event"], "agent-ended");
    authority.kill();
    let events = [listener.next(), listener.next()];
    assert_eq!(names(&events), ["authority-down", "decision"], "{events:?}");
    assert_eq!((&events[1]["standing"], &events[1]["source"]), (&json!("unavailable"), &json!("local")), "{events:?}");
    authority.start_again();
    let events = [listener.next(), listener.next()];
    assert_eq!(names(&events), ["authority-up", "decision"], "{events:?}");
}

#[test]
fn a_reader_that_comes_back_gets_what_it_missed_and_after_a_restart_is_told_of_the_gap() {
    let authority = Authority::start();
    let mut sidecar = start(&authority);
    let listener = Listener::start(&sidecar.socket(), "from=oldest", None);
    let last = listener.expect("decision");
    assert_eq!(listener.hang_up(), Vec::<Value>::new());
    let mut agent = Agent::start(&sidecar, &[], "echo agent ready $$");
    agent.wrapped.exit_code();
    eventually("the end is told", || names(&kept(&sidecar)).contains(&"agent-ended".to_owned()));
    let id = last["id"].as_str().unwrap();
    let again = Listener::start(&sidecar.socket(), "", Some(id));
    assert_eq!(names(&[again.next(), again.next()]), ["agent-started", "agent-ended"]);
    drop(again);
    sidecar.terminate();
    sidecar.start_again();
    let again = Listener::start(&sidecar.socket(), "", Some(id));
    let gap = again.next();
    assert!(gap["event"] == "gap" && gap["reason"].as_str().unwrap().contains("started again"), "{gap}");
    again.expect("decision");
}

#[test]
fn other_users_agents_are_shown_to_root_alone() {
    if !is_root("agents of two users") {
        return;
    }
    let authority = Authority::start();
    let sidecar = start(&authority);
    let mut roots = Agent::start(&sidecar, &["--name", "roots"], OBEDIENT);
    let mut theirs = Agent::start_as(NOBODY, &sidecar, &["--name", "theirs"], OBEDIENT);
    post(&sidecar.socket(), "/v1/stop", &json!({"all": true}));
    assert_eq!((roots.wrapped.exit_code(), theirs.wrapped.exit_code()), (77, 77));
    eventually("both stops are told", || {
        names(&kept(&sidecar)).iter().filter(|it| *it == "agent-stopped").count() == 2
    });
    let client = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                  s.sendall(b'GET /v1/events?from=oldest&follow=false HTTP/1.0\\r\\n\\r\\n'); print(s.makefile().read())";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", client]).arg(sidecar.socket());
    let output = as_user(NOBODY, &command).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("\"name\":\"theirs\"").count(), 3, "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("roots") && text.contains("event: decision"), "{text}");
    let all = serde_json::to_string(&kept(&sidecar)).unwrap();
    assert!(all.contains("roots") && all.contains("theirs"));
}

#[test]
fn readers_that_never_read_hold_up_neither_the_daemon_nor_each_other_nor_its_memory() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "events-host:1");
    setup.enforcement = "interval = \"50ms\"\nlease = \"6s\"\nstop_grace = \"300ms\"".to_owned();
    let sidecar = setup.start();
    let silent: Vec<UnixStream> = (0..50)
        .map(|_| {
            let mut stream = UnixStream::connect(sidecar.socket()).unwrap();
            stream.write_all(b"GET /v1/events?from=oldest HTTP/1.0\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let before = resident(&sidecar);
    // Each hold and release is four events and more, of some 200 bytes: beyond what is kept and what sockets buffer.
    for _ in 0..1_500 {
        post(&sidecar.socket(), "/v1/hold", &json!({"device": "x"}));
        post(&sidecar.socket(), "/v1/release", &json!({"all": true}));
    }
    let grown = resident(&sidecar).saturating_sub(before);
    assert!(grown < 24 * 1024, "50 readers who do not read have made the daemon {grown} KiB larger");
    let reader = Listener::start(&sidecar.socket(), "from=oldest", None);
    post(&sidecar.socket(), "/v1/hold", &json!({"device": "y"}));
    while reader.expect("device-held")["device_id"] != "y" {}
    drop(silent);
}

fn resident(sidecar: &Sidecar) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn what_is_no_question_about_events_is_refused() {
    let authority = Authority::start();
    let sidecar = start(&authority);
    for query in ["from=yesterday", "follow=maybe", "since=1"] {
        let answer = sidecar.get(&format!("/v1/events?{query}")).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"), "{answer:?}");
    }
    let answer = exchange(&sidecar.socket(), "POST /v1/events HTTP/1.0\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(answer.status, 405);
    until("a daemon that ends does not wait for its readers", || {
        let _listener = Listener::start(&sidecar.socket(), "", None);
        Some(())
    });
}
