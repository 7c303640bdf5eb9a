//! A daemon with no descriptor left.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::harness::authority::Authority;
use crate::harness::eventually;
use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{Setup, Sidecar};

/// From now on the daemon can open nothing more.
fn take_its_descriptors(sidecar: &Sidecar) {
    let pid = Pid::from_raw(i32::try_from(sidecar.pid()).unwrap());
    let none = Rlimit { current: Some(3), maximum: Some(1024) };
    prlimit(pid, Resource::Nofile, none).unwrap();
}

#[test]
fn a_daemon_that_cannot_look_at_processes_has_the_wrapper_stop_them() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    setup.enforcement = "interval = \"200ms\"\nlease = \"1h\"\nstop_grace = \"2s\"".to_owned();
    let sidecar = setup.start();
    let mut agent = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", "echo agent $$; exec sleep 1000"]));
    let pid = number_after(&agent.line_with("agent"), "agent");
    agent.watch(&[pid]);
    take_its_descriptors(&sidecar);
    org.device("revoke", "host:test");
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
    eventually("the agent is gone", || !is_alive(pid));
    assert!(agent.stderr().contains("DEVICE_REVOKED"), "{}", agent.stderr());
}

#[test]
fn an_agent_that_cannot_be_recognised_is_not_answered_as_the_host() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    setup.devices = "allow = [\"agent:*\"]".to_owned();
    let sidecar = setup.start();
    let go = sidecar.directory().join("go");
    // Both connections are made before: a new one could not be accepted.
    let program = format!(
        "import os, socket, sys, time\n\
         known = socket.socket(socket.AF_UNIX); known.connect({socket:?})\n\
         new = socket.socket(socket.AF_UNIX); new.connect({socket:?})\n\
         new.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); new.recv(4096)\n\
         def check(s):\n\
         \x20   s.sendall(b'GET /v1/check HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); text = b''\n\
         \x20   while b'}}' not in text: text += s.recv(4096)\n\
         \x20   return text.decode().replace('\\r\\n', ' ')\n\
         print('before', check(known), flush=True)\n\
         while not os.path.exists({go:?}): time.sleep(0.01)\n\
         print('after', check(new), flush=True)\n\
         print('still', check(known), flush=True)\n",
        socket = sidecar.socket().display().to_string(),
        go = go.display().to_string(),
    );
    let mut agent = Wrapped::start(sidecar.wrap(&["--device", "agent:1"], &["python3", "-c", &program]));
    let before = agent.line_with("before");
    assert!(before.contains(" 200 ") && before.contains("agent:1"), "{before}");
    take_its_descriptors(&sidecar);
    fs::write(&go, "").unwrap();
    let after = agent.line_with("after");
    assert!(after.contains(" 503 ") && after.contains("OVERLOADED"), "{after}");
    let still = agent.line_with("still");
    assert!(still.contains("agent:1"), "a client that has been recognised once stays so: {still}");
}
