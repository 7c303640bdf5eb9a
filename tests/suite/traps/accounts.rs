//! Which processes are stopped together, and what is told of it: traps 46 to 48.

use std::fs;

use serde_json::Value;

use super::matrix::Ender;
use crate::harness::authority::Authority;
use crate::harness::eventually;
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wrapper::unique_sleep;

const DEVICE: &str = "host:traps";

fn start(authority: &Authority, key: &str) -> Sidecar {
    let mut setup = Setup::new(&authority.url(), key, DEVICE);
    "allow = [\"agent:*\"]".clone_into(&mut setup.devices);
    "interval = \"200ms\"\nlease = \"1m\"\nstop_grace = \"3s\"".clone_into(&mut setup.enforcement);
    setup.start()
}

#[test]
fn a_stop_is_accounted_for_by_wrapper_and_daemon() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&authority, &org.key);
    let mark = Ender(unique_sleep().to_string());
    let file = sidecar.directory().join("status.json");
    // Three processes; SIGTERM ends none of them.
    let script = "trap '' TERM; sleep $0 & setsid sleep $0 & echo up $$; sleep $0; true";
    let flags = ["--status-file", file.to_str().unwrap()];
    let mut agent = Wrapped::start(sidecar.wrap(&flags, &["sh", "-c", script, mark.mark()]));
    agent.line_with("up");
    org.device("revoke", DEVICE);
    eventually("asked and confirmed are two things", || sidecar.log().contains("stopping the agent"));
    assert!(!sidecar.log().contains("nothing of it is left"), "{}", sidecar.log());
    assert_eq!(sidecar.status()["agents"][0]["state"], "stopping");
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
    let account: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(account["survivors"], Value::Array(Vec::new()), "{account}");
    assert!(account["took_ms"].as_u64().is_some_and(|took| took >= 2_900), "{account}");
    assert!(account["containment"].is_string() && account["killed"].is_u64(), "{account}");
    eventually("the daemon confirms", || sidecar.log().contains("nothing of it is left"));
    let log = sidecar.log();
    let line = log.lines().find(|line| line.contains("nothing of it is left")).unwrap();
    for word in ["mechanism=", "signalled=", "killed=", "took_ms=", "code=DEVICE_REVOKED"] {
        assert!(line.contains(word), "{word} {line}");
    }
}

/// An agent that notes each stop signal, with a child that does so in a session of its own.
const NOTES: &str = "import os, signal, sys, time\n\
    who = sys.argv[1]\n\
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'%s %d got TERM\\n' % (who.encode(), os.getpid())))\n\
    if os.fork() == 0: os.setsid()\n\
    os.write(1, b'%s pid %d.\\n' % (who.encode(), os.getpid()))\n\
    while True: time.sleep(1000)";

fn times(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().filter(|line| line.ends_with("got TERM")).collect();
    let mut different = lines.clone();
    different.sort_unstable();
    different.dedup();
    different.iter().map(|line| lines.iter().filter(|other| other == &line).count()).collect()
}

fn pids(agent: &mut Wrapped, who: &str) -> Vec<i32> {
    let mut found = Vec::new();
    eventually(&format!("both of {who} are up"), || {
        let text = agent.stdout();
        let label = format!("{who} pid");
        found = text.lines().filter(|line| line.starts_with(&label)).map(|line| number_after(line, &label)).collect();
        found.len() == 2
    });
    agent.watch(&found);
    found
}

#[test]
fn a_child_of_one_agent_never_ends_for_another_of_the_same_user_and_program() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&authority, &org.key);
    let agent = |device: &str, who: &str| {
        let mut agent = Wrapped::start(sidecar.wrap(&["--device", device], &["python3", "-S", "-c", NOTES, who]));
        let pids = pids(&mut agent, who);
        (agent, pids)
    };
    let (mut one, of_one) = agent("agent:1", "one");
    let (mut two, of_two) = agent("agent:2", "two");
    org.device("revoke", "agent:1");
    assert_eq!(one.exit_code(), 77, "{}", one.stderr());
    assert!(of_one.iter().all(|pid| !is_alive(*pid)));
    eventually("the stop is over", || sidecar.log().contains("nothing of it is left"));
    assert!(of_two.iter().all(|pid| is_alive(*pid)) && !two.has_ended());
    assert_eq!(times(&two.stdout()), Vec::<usize>::new());
}

/// An agent on `agent:outer` that runs one on `agent:inner` and lives on when that is stopped.
fn nested(sidecar: &Sidecar) -> Wrapped {
    let run = env!("CARGO_BIN_EXE_machineid-run");
    let socket = sidecar.socket().display().to_string();
    let program = format!(
        "import subprocess\n\
         inner = subprocess.Popen([{run:?}, '--socket', {socket:?}, '--device', 'agent:inner', '--', 'python3', '-S', \
         '-c', sys.argv[2], 'inner'])\n\
         if os.fork() == 0: os.setsid()\n\
         else: print('inner ended with', inner.wait(), flush=True)\n\
         os.write(1, b'outer pid %d.\\n' % os.getpid())\n\
         while True: time.sleep(1000)"
    );
    let program = format!("import os, signal, sys, time\nwho = sys.argv[1]\n{HANDLER}\n{program}");
    Wrapped::start(sidecar.wrap(&["--device", "agent:outer"], &["python3", "-S", "-c", &program, "outer", NOTES]))
}

const HANDLER: &str =
    "signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'%s %d got TERM\\n' % (who.encode(), os.getpid())))";

#[test]
fn a_wrapper_inside_another_is_stopped_alone() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&authority, &org.key);
    let mut agent = nested(&sidecar);
    let inner = pids(&mut agent, "inner");
    org.device("revoke", "agent:inner");
    agent.line_with("inner ended with 77");
    assert!(inner.iter().all(|pid| !is_alive(*pid)));
    let text = agent.stdout();
    assert_eq!(times(&text), [1, 1], "{text}");
    assert!(!text.contains("outer") || !text.lines().any(|line| line.starts_with("outer") && line.ends_with("TERM")));
    assert!(!agent.has_ended());
    // The outer one is still held.
    org.device("revoke", "agent:outer");
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
}

#[test]
fn a_wrapper_inside_another_is_stopped_with_it_and_each_process_is_asked_once() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = start(&authority, &org.key);
    let mut agent = nested(&sidecar);
    let inner = pids(&mut agent, "inner");
    agent.line_with("outer pid");
    org.device("revoke", "agent:outer");
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
    assert!(inner.iter().all(|pid| !is_alive(*pid)));
    let text = agent.stdout();
    assert!(times(&text).iter().all(|count| *count == 1) && times(&text).len() >= 3, "{text}");
}
