//! The authority's own API, answered by the daemon: on the socket, and on `compat.listen` for programs on the official
//! clients.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{ChildStdin, Command, Stdio};

use serde_json::Value;

use crate::harness::authority::{Authority, Org};
use crate::harness::official_client::python;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Answer, Setup, Sidecar, exchange};
use crate::harness::wait::{eventually, until};

/// A daemon with a listener, on a port that the kernel chose.
pub(crate) fn listening(authority: &Authority, org: &Org<'_>) -> Sidecar {
    let mut setup = Setup::of(org, &authority.url(), "host:test");
    "allow = [\"agent:*\"]\n[compat]\nlisten = \"127.0.0.1:0\"".clone_into(&mut setup.devices);
    setup.start()
}

/// An agent that tells what it was given, and then sends what it is told to send: its token is good for its own processes.
pub(crate) struct Agent {
    pub(crate) wrapped: Wrapped,
    pub(crate) address: String,
    pub(crate) token: String,
    orders: RefCell<ChildStdin>,
    sent: Cell<usize>,
}

const AGENT: &str = r#"
import os, signal, socket, sys
if len(sys.argv) > 1: signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("given", os.environ["MACHINEID_BASE_URL"], os.environ["MACHINEID_ORG_KEY"], flush=True)
for line in sys.stdin:
    number, address, request = line.split()
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as stream:
        stream.sendall(bytes.fromhex(request))
        print("answer", number, stream.makefile("rb").read().hex(), flush=True)
"#;

impl Agent {
    pub(crate) fn start(sidecar: &Sidecar, device: &str) -> Self {
        Self::of(sidecar.wrap(&["--device", device], &Self::program(&[])))
    }

    /// The program that is the agent.
    pub(crate) fn program<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["python3", "-S", "-c", AGENT][..], arguments].concat()
    }

    pub(crate) fn of(mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        let mut wrapped = Wrapped::start(command);
        let orders = RefCell::new(wrapped.stdin());
        let line = wrapped.line_with("given ");
        let mut words = line.split(' ').skip(1);
        let address = words.next().unwrap().strip_prefix("http://").unwrap().to_owned();
        Self { wrapped, address, token: words.next().unwrap().to_owned(), orders, sent: Cell::new(0) }
    }

    pub(crate) fn ask(&self, endpoint: &str, device: &str) -> Answer {
        self.ask_as(&self.token, &self.address, endpoint, device)
    }

    /// The agent itself asks.
    fn ask_as(&self, token: &str, host: &str, endpoint: &str, device: &str) -> Answer {
        let number = self.sent.replace(self.sent.get() + 1);
        let request = question(token, host, endpoint, device);
        writeln!(self.orders.borrow_mut(), "{number} {} {}", self.address, hex(&request)).unwrap();
        let label = format!("answer {number} ");
        let text = until("the agent tells its answer", || {
            self.wrapped.stdout().lines().find_map(|line| line.strip_prefix(&label).map(unhex))
        });
        answer(&text)
    }

    /// Another process asks: this test.
    pub(crate) fn ask_from_outside(&self, endpoint: &str, device: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(question(&self.token, &self.address, endpoint, device).as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        answer(&text)
    }
}

pub(crate) fn question(token: &str, host: &str, endpoint: &str, device: &str) -> String {
    let body = format!("{{\"deviceId\":\"{device}\"}}");
    format!(
        "POST /api/v1/devices/{endpoint} HTTP/1.0\r\nHost: {host}\r\nx-org-key: {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn hex(text: &str) -> String {
    text.bytes()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from_digit(digit.into(), 16).unwrap())
        .collect()
}

fn unhex(text: &str) -> String {
    let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

pub(crate) fn decision(answer: &Answer) -> (u16, bool, String) {
    let body = answer.json();
    assert!(body["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{body}");
    (answer.status, body["allowed"].as_bool().unwrap(), body["code"].as_str().unwrap().to_owned())
}

fn words(answer: &Answer) -> (u16, Value, Value) {
    let body = answer.json();
    (answer.status, body["status"].clone(), body["error"].clone())
}

#[test]
fn an_agent_is_answered_for_its_own_device_by_its_token_and_never_given_the_key() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = listening(&authority, &org);
    let agent = Agent::start(&sidecar, "agent:a");
    assert!(agent.token.starts_with("org_local_") && agent.token.len() == 74, "{}", agent.token);
    assert!(!agent.token.contains(&org.key));
    assert_eq!(decision(&agent.ask("validate", "agent:a")), (200, true, "ALLOW".to_owned()));
    assert_eq!(words(&agent.ask("register", " agent:a ")), (200, "exists".into(), Value::Null));

    // Not for another device, by another token, under another name, or about nothing.
    assert_eq!(decision(&agent.ask("validate", "agent:b")), (200, false, "DEVICE_NOT_PERMITTED".to_owned()));
    assert_eq!(decision(&agent.ask("validate", "host:test")), (200, false, "DEVICE_NOT_PERMITTED".to_owned()));
    assert_eq!(words(&agent.ask("register", "agent:b")), (403, "blocked".into(), "denied".into()));
    let other = format!("org_local_{}", "0".repeat(64));
    for token in [other.as_str(), org.key.as_str(), ""] {
        let answer = agent.ask_as(token, &agent.address, "validate", "agent:a");
        assert_eq!(decision(&answer), (401, false, "INVALID_ORG_KEY".to_owned()));
    }
    let answer = agent.ask_as(&agent.token, "evil.example", "validate", "agent:a");
    assert_eq!(decision(&answer), (421, false, "BAD_REQUEST".to_owned()));
    assert_eq!(decision(&agent.ask("validate", "not valid")), (400, false, "INVALID_DEVICE_ID".to_owned()));
    assert_eq!(decision(&agent.ask("list", "agent:a")), (404, false, "BAD_REQUEST".to_owned()));

    // A second agent has another token, and each is answered for itself.
    let second = Agent::start(&sidecar, "agent:b");
    assert_ne!(second.token, agent.token);
    assert_eq!(decision(&second.ask("validate", "agent:b")), (200, true, "ALLOW".to_owned()));
}

#[test]
fn a_token_outlives_the_daemon_and_ends_with_its_run() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    // The same port before and after: free a moment ago, and this test alone asks for one by number.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    setup.devices = format!("allow = [\"agent:*\"]\n[compat]\nlisten = \"{free}\"");
    let mut sidecar = setup.start();
    let mut agent = Agent::start(&sidecar, "agent:a");
    sidecar.kill();
    sidecar.start_again();
    eventually("the agent's token is known to the new daemon", || {
        decision(&agent.ask("validate", "agent:a")) == (200, true, "ALLOW".to_owned())
    });
    org.device("revoke", "agent:a");
    assert_eq!(agent.wrapped.exit_code(), 77);
    eventually("the token has ended with its run", || {
        let answer = agent.ask_from_outside("validate", "agent:a");
        answer.body.contains("not the token of an agent that runs") && answer.status == 401
    });
}

#[test]
fn an_agent_that_is_being_stopped_is_told_so_whatever_the_authority_says() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    "[compat]\nlisten = \"127.0.0.1:0\"".clone_into(&mut setup.devices);
    "interval = \"200ms\"\nlease = \"6s\"\nstop_grace = \"20s\"".clone_into(&mut setup.enforcement);
    let sidecar = setup.start();
    let agent = Agent::of(sidecar.wrap(&[], &Agent::program(&["stubborn"])));
    assert_eq!(decision(&agent.ask("validate", "host:test")), (200, true, "ALLOW".to_owned()));
    let run = sidecar.status()["agents"][0]["run_id"].as_str().unwrap().to_owned();
    let body = format!("{{\"run_id\":\"{run}\"}}");
    let stop = format!("POST /v1/stop HTTP/1.0\r\nHost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    assert_eq!(exchange(&sidecar.socket(), &stop).unwrap().status, 200);
    assert_eq!(decision(&agent.ask("validate", "host:test")), (200, false, "LOCAL_STOP".to_owned()));
}

#[test]
fn on_the_socket_a_named_device_is_answered_in_the_authoritys_words() {
    let mut authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    "allow = [\"agent:*\"]".clone_into(&mut setup.devices);
    let sidecar = setup.start();
    let ask = |endpoint: &str, device: &str| {
        let body = format!("{{\"deviceId\":\"{device}\"}}");
        let head =
            format!("POST /api/v1/devices/{endpoint} HTTP/1.0\r\nHost: localhost\r\ncontent-length: {}", body.len());
        exchange(&sidecar.socket(), &format!("{head}\r\n\r\n{body}")).unwrap()
    };
    assert_eq!(decision(&ask("validate", "host:test")), (200, true, "ALLOW".to_owned()));
    // A caller that is no agent registers nothing.
    assert_eq!(decision(&ask("validate", "agent:a")), (200, false, "DEVICE_NOT_FOUND".to_owned()));
    assert_ne!(ask("register", "agent:a").status, 200);
    assert_eq!(org.code("agent:a"), "DEVICE_NOT_FOUND");
    org.register(&["agent:a"]);
    assert_eq!(decision(&ask("validate", "agent:a")), (200, true, "ALLOW".to_owned()));
    assert_eq!(words(&ask("register", "agent:a")), (200, "exists".into(), Value::Null));
    assert_eq!(decision(&ask("validate", "other")), (200, false, "DEVICE_NOT_PERMITTED".to_owned()));
    org.device("revoke", "agent:a");
    assert_eq!(decision(&ask("validate", "agent:a")), (200, false, "DEVICE_REVOKED".to_owned()));
    assert_eq!(words(&ask("register", "agent:a")), (403, "revoked".into(), "device_revoked".into()));
    authority.kill();
    let answer = ask("validate", "host:test");
    assert_eq!(decision(&answer), (503, false, "AUTHORITY_UNREACHABLE".to_owned()));
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
}

#[test]
fn a_program_on_the_official_client_runs_unmodified_with_the_token_as_its_key() {
    let Some(python) = python() else { return };
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = listening(&authority, &org);
    // As the official templates do: register on start, validate before each piece of work, leave when it is not allowed.
    let program = r#"
import os, sys, time
from machineid import MachineID
client = MachineID.from_env(base_url=os.environ["MACHINEID_BASE_URL"])
device = os.environ["MACHINEID_DEVICE_ID"]
print("registered", client.register(device)["status"], flush=True)
while True:
    decision = client.validate(device)
    if not decision["allowed"]:
        print("leaving", decision["code"], decision["request_id"], flush=True)
        sys.exit(3)
    print("working", flush=True)
    time.sleep(0.05)
"#;
    let command = [python.to_str().unwrap(), "-c", program];
    let mut wrapper = sidecar.wrap(&["--device", "agent:a"], &command);
    wrapper.env("NO_PROXY", "127.0.0.1");
    let mut agent = Wrapped::start(wrapper);
    assert_eq!(agent.line_with("registered"), "registered exists");
    agent.line_with("working");
    org.device("revoke", "agent:a");
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
}

#[test]
fn a_listener_beyond_this_host_is_refused() {
    let authority = Authority::start();
    let org = authority.org("pro");
    for (listen, said) in
        [("0.0.0.0:8425", "not an address of this host alone"), ("8425", "not an address with a port")]
    {
        let mut setup = Setup::of(&org, &authority.url(), "host:test");
        setup.devices = format!("[compat]\nlisten = \"{listen}\"");
        let output = setup.command().output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("compat.listen") && error.contains(said), "{error}");
    }
}
