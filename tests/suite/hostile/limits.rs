//! Every limit of the daemon's socket, gone beyond: a clear no, and others are served meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::authority::{Authority, Org};
use crate::harness::eventually;
use crate::harness::place::{ORDINARY, is_root, skipped};
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Answer, Setup, Sidecar, clean_environment};
use crate::harness::wait::{PATIENCE, until};

/// Two ordinary users who have nothing to do with each other.
pub(crate) const GREEDY: u32 = ORDINARY;
pub(crate) const OTHER: u32 = ORDINARY + 1;

/// For `prlimit`: with so few descriptors the daemon has a quarter of the places, and a crowd is quickly made.
pub(crate) const FEW: &str = "--nofile=5888:5888";
/// Its places then: streams and others.
pub(crate) const STREAMS: usize = 1024;
pub(crate) const OTHERS: usize = 256;

/// Opens `count` connections, sends `words` on each, and keeps them. Once the daemon has accepted them all, prints how many
/// it keeps and how many got a no, and the last no. Then does as told on its input: `again N` opens N more, `look` counts
/// once more, `check` prints the status of one check, `close` closes all.
const CROWD: &str = r#"
import resource, select, socket, sys
path, words = sys.argv[1], sys.argv[2].encode().decode("unicode_escape").encode()
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held, refused, last = [], 0, b""
def connect():
    s = socket.socket(socket.AF_UNIX); s.connect(path)
    return s
def say(s, words):
    try: s.sendall(words)
    except OSError: pass
def hear(s):
    text = b""
    try:
        while True:
            part = s.recv(4096)
            if not part: break
            text += part
    except OSError: pass
    return text
def check():
    s = connect(); say(s, b"GET /v1/check HTTP/1.0\r\n\r\n")
    return hear(s).split(b" ")[1].decode()
def crowd(count):
    global held
    held += [connect() for _ in range(count)]
    for s in held[-count:]: say(s, words)
    # Accepted in turn: when this one is answered, in whatever way, so many have been.
    s = connect(); say(s, b"GET /healthz HTTP/1.0\r\n\r\n"); hear(s)
    look()
def look():
    global refused, last
    poll = select.poll()
    by_number = {s.fileno(): s for s in held}
    for number in by_number: poll.register(number, select.POLLIN)
    for number, _ in poll.poll(0):
        last = hear(by_number[number]); refused += 1
        held.remove(by_number[number]); by_number[number].close()
    print("held", len(held), "refused", refused, "last", last, flush=True)
crowd(int(sys.argv[3]))
for line in sys.stdin:
    verb, *rest = line.split()
    if verb == "again": crowd(int(rest[0]))
    if verb == "look": look()
    if verb == "check": print("checked", check(), flush=True)
    if verb == "close":
        held = []
        print("closed", flush=True)
"#;

pub(crate) struct Crowd {
    process: Wrapped,
    input: std::process::ChildStdin,
    said: usize,
}

impl Crowd {
    /// Of this user, with so many connections, each beginning with these words.
    pub(crate) fn start(sidecar: &Sidecar, uid: u32, words: &str, count: usize) -> Self {
        let mut command = Command::new("setpriv");
        let uid = uid.to_string();
        command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--", "python3", "-S", "-c", CROWD]);
        command.arg(sidecar.socket()).arg(words).arg(count.to_string());
        clean_environment(&mut command, sidecar.directory());
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::piped());
        let mut process = Wrapped::start(command);
        let input = process.stdin();
        Self { process, input, said: 0 }
    }

    pub(crate) fn next_line(&mut self) -> String {
        let line = until("the crowd says how it went", || {
            assert!(!self.process.has_ended(), "{}", self.process.stderr());
            self.process.stdout().lines().nth(self.said).map(str::to_owned)
        });
        self.said += 1;
        line
    }

    /// How many connections it has, and how many it was refused so far.
    pub(crate) fn count(&mut self) -> (usize, usize) {
        let line = self.next_line();
        let number = |label| usize::try_from(number_after(&line, label)).unwrap();
        let counts = (number("held"), number("refused"));
        if counts.1 > 0 {
            assert!(line.contains("503 Service Unavailable") && line.contains("\"allowed\":false"), "{line}");
            assert!(line.contains("OVERLOADED") && line.contains("retry-after: 1"), "{line}");
        }
        counts
    }

    /// Waits until it has so many connections, and so many refusals. A refusal may be told a little after the place of the
    /// connection was found wanting.
    pub(crate) fn comes_to(&mut self, expected: (usize, usize)) {
        let mut counts = self.count();
        eventually(&format!("{expected:?} connections are held and refused"), || {
            if counts == expected {
                return true;
            }
            self.tell("look");
            counts = self.count();
            false
        });
    }

    pub(crate) fn tell(&mut self, words: &str) {
        writeln!(self.input, "{words}").unwrap();
    }

    pub(crate) fn check(&mut self) -> String {
        self.tell("check");
        self.next_line()
    }
}

fn open_to_all(authority: &Authority) -> (Org<'_>, Sidecar) {
    open_with(authority, "", &[])
}

pub(crate) fn open_with<'a>(authority: &'a Authority, enforcement: &str, starter: &[&str]) -> (Org<'a>, Sidecar) {
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:limits");
    "mode = \"0666\"".clone_into(&mut setup.local);
    setup.starter = starter.iter().map(|word| (*word).to_owned()).collect();
    if !enforcement.is_empty() {
        enforcement.clone_into(&mut setup.enforcement);
    }
    let sidecar = setup.start();
    if is_root() {
        crate::harness::sidecar::chmod(sidecar.directory(), 0o755);
    }
    (org, sidecar)
}

/// The memory in KiB that is of the daemon alone: its code in a debug build is large, and grows with each feature.
fn resident(sidecar: &Sidecar) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    usize::try_from(number_after(&status, "RssAnon:")).unwrap()
}

/// The number of descriptors a process may have: the soft limit and the hard one.
fn descriptor_limits(pid: &str) -> (u64, u64) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Whether this test can be several users, with this many descriptors for each of their processes; says so when not.
pub(crate) fn can_be_several_users(what: &str, descriptors: u64) -> bool {
    if !is_root() {
        skipped(what, "takes root, to be two ordinary users");
    } else if descriptor_limits("self").1 < descriptors {
        skipped(what, &format!("takes {descriptors} descriptors"));
    } else {
        return true;
    }
    false
}

#[test]
fn streams_and_other_connections_are_counted_apart_and_one_user_gets_half_of_each() {
    if !can_be_several_users("places on the socket", 6000) {
        return;
    }
    let authority = Authority::start();
    let (_org, sidecar) = open_with(&authority, "", &["prlimit", FEW]);
    // Wrappers' questions that never come to an end. They keep their places for ten seconds, which is long enough for
    // what follows.
    let question = "POST /v1/supervise HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 9\\r\\n\\r\\n{";
    let mut wrappers = Crowd::start(&sidecar, GREEDY, question, STREAMS / 2 + 10);
    wrappers.comes_to((STREAMS / 2, 10));
    assert_eq!(wrappers.check(), "checked 200", "a user without a place for a stream may still check");
    let mut idle = Crowd::start(&sidecar, GREEDY, "G", OTHERS / 2 + 10);
    idle.comes_to((OTHERS / 2, 10));
    assert_eq!(idle.check(), "checked 503");

    let mut other = Crowd::start(&sidecar, OTHER, "G", 0);
    assert_eq!(other.count(), (0, 0));
    assert_eq!(other.check(), "checked 200", "another user is served");
    // With two users present, a third of each: a connection that has not said what it wants sits among the streams when
    // there is no place among the others.
    let left = OTHERS / 3 + STREAMS / 3;
    other.tell(&format!("again {}", left + 10));
    other.comes_to((left, 10));
    assert_eq!(other.check(), "checked 503");
    assert_eq!(sidecar.check().status, 200, "an operator gets through");
    idle.tell("close");
    assert_eq!(idle.next_line(), "closed");
    until("what was given back can be had", || (other.check() == "checked 200").then_some(()));
}

#[test]
fn ten_thousand_connections_of_one_user_leave_the_others_served_and_the_memory_bounded() {
    if !can_be_several_users("ten thousand connections", 10_100) {
        return;
    }
    let authority = Authority::start();
    let (_org, sidecar) = open_to_all(&authority);
    let before = resident(&sidecar);
    // A whole head that is never sent makes the daemon keep as much of it as it ever does.
    let head = format!("GET /v1/check HTTP/1.1\\r\\nX: {}", "x".repeat(8_000));
    let mut flood = Crowd::start(&sidecar, GREEDY, &head, 10_000);
    let mut other = Crowd::start(&sidecar, OTHER, "G", 0);
    assert_eq!(other.count(), (0, 0));
    let places = half_of_all_places(&sidecar);
    let mut served = 0;
    let counts = until("the flood is over", || {
        // A client of another user is served while it comes, and so is the operator.
        assert_eq!(other.check(), "checked 200");
        assert_eq!(sidecar.check().status, 200);
        served += 2;
        (!flood.process.stdout().is_empty()).then(|| flood.count())
    });
    assert_eq!(counts, (places, 10_000 - places));
    let full = resident(&sidecar);
    drop(flood);
    eprintln!(
        "daemon: {before} KiB before, {full} KiB with 10,000 connections come; {served} checks of others meanwhile"
    );
    assert!(full - before < 36 * 1024, "{full} KiB of its own memory, {before} before");
}

/// What one user gets: half of the places that the daemon's descriptors are enough for.
fn half_of_all_places(sidecar: &Sidecar) -> usize {
    let affordable = descriptor_limits(&sidecar.pid().to_string()).0.saturating_sub(256).min(22_528);
    let half = |most: u64| usize::try_from(most * affordable / 22_528 / 2).unwrap();
    half(4096) + half(1024)
}

fn say(sidecar: &Sidecar, words: &[u8]) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(sidecar.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The daemon may have answered and closed before everything is written.
    let _ = stream.write_all(words);
    let text = hear(&mut stream);
    (stream, text)
}

/// Reads to the end; one that comes as a reset is one as well.
fn hear(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count) = stream.read(&mut chunk) {
        if count == 0 {
            break;
        }
        text.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[track_caller]
fn is_a_clear_no(text: &str, status: &str, code: &str) {
    assert!(
        text.starts_with(&format!("HTTP/1.1 {status} ")) || text.starts_with(&format!("HTTP/1.0 {status} ")),
        "{text:?}"
    );
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    assert!(head.to_lowercase().contains(&format!("x-machineid-code: {}", code.to_lowercase())), "{text:?}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert_eq!((&body["allowed"], &body["code"]), (&false.into(), &code.into()), "{text}");
}

#[test]
fn what_is_too_long_or_no_http_gets_a_clear_no() {
    let authority = Authority::start();
    let (_org, sidecar) = open_to_all(&authority);
    let long = "x".repeat(70_000);
    let cases: [(&str, String, &str); 9] = [
        ("garbage", "\u{1}\u{2}\u{3} what?\r\n\r\n".to_owned(), "400"),
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), "400"),
        ("a version of tomorrow", "GET /v1/check HTTP/7.0\r\n\r\n".to_owned(), "400"),
        ("two lengths", "POST /v1/stop HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".to_owned(), "400"),
        ("one giant header", format!("GET /v1/check HTTP/1.1\r\nX: {long}\r\n\r\n"), "431"),
        ("a thousand headers", format!("GET /v1/check HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000)), "431"),
        ("a giant path", format!("GET /{long} HTTP/1.1\r\n\r\n"), "431"),
        ("a giant question", format!("POST /v1/stop HTTP/1.1\r\nContent-Length: 70000\r\n\r\n{long}"), "413"),
        (
            "an endless question",
            format!("POST /v1/stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n{long}"),
            "413",
        ),
    ];
    for (what, words, status) in cases {
        let (_, text) = say(&sidecar, words.as_bytes());
        eprintln!("{what}: {}", text.lines().next().unwrap_or_default());
        is_a_clear_no(&text, status, "BAD_REQUEST");
        assert_eq!(sidecar.check().status, 200, "after {what}");
    }
}

#[test]
fn a_request_that_drips_is_ended_and_others_are_served_meanwhile() {
    let authority = Authority::start();
    let (_org, sidecar) = open_to_all(&authority);
    let whole = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{{");
    let slow = [
        ("a head", "GET /v1/check HTTP/1.1\r\nX: ".to_owned(), true),
        ("the body of a stop", whole("/v1/stop"), true),
        ("nothing at all", String::new(), false),
        ("a second head", "GET /healthz HTTP/1.1\r\n\r\nGET /v1/check HTTP/1.1\r\nX: ".to_owned(), true),
    ];
    let ended: Vec<_> = std::thread::scope(|scope| {
        let dripping = slow.map(|(what, words, answered)| {
            let sidecar = &sidecar;
            scope.spawn(move || {
                let mut stream = UnixStream::connect(sidecar.socket()).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(words.as_bytes()).unwrap();
                let mut reading = stream.try_clone().unwrap();
                let text = scope.spawn(move || hear(&mut reading));
                // A byte now and then does not lengthen its time.
                until("the daemon has had enough", || {
                    std::thread::sleep(std::time::Duration::from_millis(200));
                    (text.is_finished() || (!words.is_empty() && stream.write_all(b"x").is_err())).then_some(())
                });
                (what, text.join().unwrap(), answered)
            })
        });
        while !dripping.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            assert_eq!(sidecar.check().status, 200, "others are served");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        dripping.map(|one| one.join().unwrap()).into()
    });
    for (what, text, answered) in ended {
        let last = text.rfind("HTTP/1.").map_or("", |at| &text[at..]);
        eprintln!("{what}: {}", last.lines().next().unwrap_or_default());
        if answered {
            is_a_clear_no(last, "408", "BAD_REQUEST");
        } else {
            assert_eq!(text, "", "{what}");
        }
    }
}

#[test]
fn a_half_closed_or_abandoned_connection_gives_its_place_back() {
    let authority = Authority::start();
    let (_org, sidecar) = open_to_all(&authority);
    let open = || fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).map_or(0, Iterator::count);
    let before = open();
    let connections: Vec<_> = (0..200)
        .map(|number| {
            let mut stream = UnixStream::connect(sidecar.socket()).unwrap();
            let words = [
                "",
                "GET /v1/ch",
                "GET /v1/check HTTP/1.1\r\nHost: x\r\n\r\n",
                "POST /v1/stop HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
            ];
            stream.write_all(words[number % words.len()].as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream
        })
        .collect();
    eventually("the daemon has let go of all of them", || open() <= before + 4);
    assert_eq!(sidecar.check().status, 200);
    drop(connections);
}

#[test]
fn a_wrapper_that_never_reads_its_events_costs_nothing_and_its_agent_is_stopped_all_the_same() {
    let authority = Authority::start();
    let (org, sidecar) = open_with(&authority, "interval = \"10ms\"\nlease = \"1m\"\nstop_grace = \"300ms\"", &[]);
    let program = r#"
import json, secrets, socket, subprocess, sys, time
agent = subprocess.Popen(["sleep", "1000"])
s = socket.socket(socket.AF_UNIX); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1); s.connect(sys.argv[1])
body = json.dumps({"pid": agent.pid, "run_id": secrets.token_hex(16)}).encode()
s.sendall(b"POST /v1/supervise HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
print("agent", agent.pid, flush=True)
agent.wait()
print("over", flush=True)
time.sleep(1000)
"#;
    let mut command = Command::new("python3");
    command.args(["-S", "-c", program]).arg(sidecar.socket()).stdin(Stdio::null());
    let mut wrapper = Wrapped::start(command);
    let agent = number_after(&wrapper.line_with("agent"), "agent");
    wrapper.watch(&[agent]);
    until("the agent is supervised", || (sidecar.status()["agents"].as_array()?.len() == 1).then_some(()));
    let decided = || sidecar.status()["devices"][0]["last_decision"]["at"].clone();
    let before = resident(&sidecar);
    // Each moves the deadline, and would be a line of its own: more than any buffer holds.
    for _ in 0..400 {
        let last = decided();
        until("another validation", || (decided() != last).then_some(()));
    }
    let after = resident(&sidecar);
    eprintln!("daemon: {before} KiB, {after} KiB after a thousand events that were not read");
    assert!(after < before + 4096, "{before} KiB, then {after} KiB");
    assert!(is_alive(agent), "a stream without a reader is not a death");
    org.device("revoke", "host:limits");
    wrapper.line_with("over");
}

#[test]
fn four_thousand_may_knock_before_one_is_let_in() {
    let authority = Authority::start();
    let (_org, sidecar) = open_to_all(&authority);
    let most: usize = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let count = 4000.min(most);
    sidecar.signal(Signal::STOP);
    let program = "import resource, socket, sys\n\
                   hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
                   resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\n\
                   held = []\n\
                   for _ in range(int(sys.argv[2])):\n\
                   \x20   s = socket.socket(socket.AF_UNIX); s.setblocking(False); s.connect(sys.argv[1]); held.append(s)\n\
                   print('all knocked', flush=True)\n";
    let mut command = Command::new("python3");
    command.args(["-S", "-c", program]).arg(sidecar.socket()).arg(count.to_string()).stdin(Stdio::null());
    let mut knocking = Wrapped::start(command);
    assert_eq!(knocking.exit_code(), 0, "{}", knocking.stderr());
    sidecar.signal(Signal::CONT);
    assert_eq!(sidecar.check().status, 200);
}

#[test]
fn the_daemon_takes_the_descriptors_it_may_have() {
    let authority = Authority::start();
    let (_org, sidecar) = open_to_all(&authority);
    let (soft, hard) = descriptor_limits(&sidecar.pid().to_string());
    assert_eq!(soft, hard.min(65_536));
}

#[test]
fn checks_on_one_kept_connection_are_all_answered_and_each_afresh() {
    let authority = Authority::start();
    let (org, sidecar) = open_to_all(&authority);
    let mut stream = UnixStream::connect(sidecar.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut ask = |times: usize| -> Vec<Answer> {
        // All at once: they are answered in turn.
        stream.write_all("GET /v1/check HTTP/1.1\r\nHost: x\r\n\r\n".repeat(times).as_bytes()).unwrap();
        let mut text = String::new();
        let mut answers = Vec::new();
        let mut chunk = [0; 4096];
        while answers.len() < times {
            let count = stream.read(&mut chunk).unwrap();
            assert!(count > 0, "closed after {}: {text}", answers.len());
            text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
            while let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let length = usize::try_from(number_after(head, "content-length:")).unwrap();
                if rest.len() < length {
                    break;
                }
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                answers.push(Answer { status, head: head.to_owned(), body: rest[..length].to_owned() });
                text = rest[length..].to_owned();
            }
        }
        answers
    };
    let names: std::collections::HashSet<_> =
        ask(5).into_iter().map(|answer| (answer.status, answer.json()["request_id"].to_string())).collect();
    assert_eq!(names.len(), 5, "each by a validation of its own: {names:?}");
    assert!(names.iter().all(|(status, _)| *status == 200), "{names:?}");
    org.device("revoke", "host:limits");
    assert!(ask(3).iter().all(|answer| answer.status == 403 && answer.json()["allowed"] == false));
}
