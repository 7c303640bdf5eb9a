//! What is typed wrong, or not at all: each gets one sentence with the remedy.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::process::{Wrapped, is_alive, number_after};
use crate::harness::sidecar::{BINARY, Setup, clean_environment};
use crate::harness::wait::until;
use crate::harness::wrapper::stderr;

fn daemon_with(arguments: &[&str]) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    clean_environment(&mut command, scratch.path());
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_first_start_without_any_configuration_says_how_to_try_and_how_to_enforce() {
    if std::path::Path::new("/etc/machineid/machineid-sidecar.toml").exists() {
        return;
    }
    for arguments in [&[][..], &["--check-config"]] {
        let output = daemon_with(arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("nothing is configured") && said.contains("machineid-sidecar --dev"), "{said}");
        assert!(said.contains("machineid-sidecar.toml") && said.contains("MACHINEID_ORG_KEY"), "{said}");
    }
}

#[test]
fn a_command_without_the_separator_is_told_to_have_one() {
    let said = stderr(&daemon_with(&["true"]));
    assert!(said.contains("write -- before it: machineid-sidecar -- true"), "{said}");
    let said = stderr(&daemon_with(&["--dev", "python3", "agent.py"]));
    assert!(said.contains("machineid-sidecar --dev -- python3"), "{said}");
    // An option that there is not is no command.
    let said = stderr(&daemon_with(&["--nonsense"]));
    assert!(!said.contains("write -- before it"), "{said}");
}

#[test]
fn a_client_that_closes_its_side_too_early_is_told_to_keep_it_open() {
    // Nothing answers there, so that the check takes as long as it may.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let sidecar = Setup::new(&url, "org_x", "host:test").start_unready();
    let mut stream = until("the socket is there", || UnixStream::connect(sidecar.socket()).ok());
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /v1/check HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"allowed\":false"), "{answer}");
    assert!(answer.contains("keep it open"), "{answer}");
}

fn dev(scratch: &std::path::Path, command: &[&str]) -> Wrapped {
    let mut dev = Command::new(BINARY);
    clean_environment(&mut dev, scratch);
    dev.env("TMPDIR", scratch).arg("--dev").args(command).stdin(Stdio::null());
    Wrapped::start(dev)
}

#[test]
fn dev_ends_with_its_terminal_and_so_does_an_agent_that_ignores_that() {
    let scratch = tempfile::tempdir().unwrap();
    let mut alone = dev(scratch.path(), &[]);
    let mut with_agent =
        dev(scratch.path(), &["--", "sh", "-c", "trap '' HUP TERM; echo up $$; while :; do sleep 1; done"]);
    let agent = number_after(&with_agent.line_with("up"), "up ");
    with_agent.watch(&[agent]);
    until("--dev is ready", || alone.stderr().contains("for trying it out only").then_some(()));
    // As the kernel and the shell do when a terminal is closed.
    alone.signal(Signal::HUP);
    with_agent.signal(Signal::HUP);
    assert_eq!(alone.exit_code(), 0, "{}", alone.stderr());
    with_agent.exit_code();
    until("the agent is gone", || (!is_alive(agent)).then_some(()));
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "--dev left {left:?} behind");
}

#[test]
fn a_second_authority_on_a_port_names_the_first() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", directory.path().join("a.db").display());
    let mut authority = Command::new(env!("CARGO_BIN_EXE_machineid-authority"));
    clean_environment(&mut authority, directory.path());
    let output = authority.args(["serve", "--listen", &address, "--database", &database]).output().unwrap();
    let said = stderr(&output);
    assert!(!output.status.success());
    assert!(said.contains(&format!("(pid {}) uses that port", std::process::id())), "{said}");
}
