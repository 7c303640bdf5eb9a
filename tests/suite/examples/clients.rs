//! `examples/clients`: the smallest correct "may I run?" in each language.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::has;
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, clean_environment};

/// The clients, each as the command that runs it.
fn clients() -> &'static [(&'static str, Vec<PathBuf>)] {
    static CLIENTS: OnceLock<Vec<(&'static str, Vec<PathBuf>)>> = OnceLock::new();
    CLIENTS.get_or_init(|| {
        let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients").join(name);
        let built = |language, needed: &str, arguments: &[&str], source: &str| {
            if !has(needed) {
                return None;
            }
            let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gate-{needed}"));
            let mut compiler = Command::new(needed);
            compiler.args(arguments).arg(&program).arg(file(source)).stdin(Stdio::null());
            let output = compiler.output().unwrap();
            assert!(output.status.success(), "{language}: {}", String::from_utf8_lossy(&output.stderr));
            Some((language, vec![program]))
        };
        let read_by = |language, interpreter: &str, source: &str| {
            has(interpreter).then(|| (language, vec![interpreter.into(), file(source)]))
        };
        [
            has("curl").then(|| ("shell", vec![file("gate.sh")])),
            read_by("Python", "python3", "gate.py"),
            read_by("Node", "node", "gate.mjs"),
            built("Go", "go", &["build", "-o"], "gate.go"),
            built(
                "C",
                "cc",
                &["-std=c99", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o"],
                "gate.c",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    })
}

/// Runs a client as an agent that has this socket.
fn run(command: &[PathBuf], socket: &Path) -> Output {
    let home = TempDir::new().unwrap();
    let mut client = Command::new(&command[0]);
    clean_environment(&mut client, home.path());
    client.args(&command[1..]).env("MACHINEID_SOCKET", socket).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn expect(language: &str, output: &Output, code: i32, tasks: usize) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{language}: {said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), tasks, "{language}: {said}");
}

#[test]
fn each_client_works_while_allowed_and_stops_when_denied_or_unanswered() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut sidecar = Setup::of(&org, &authority.url(), "host:test").start();
    for (language, command) in clients() {
        expect(language, &run(command, &sidecar.socket()), 0, 3);
    }
    org.device("revoke", "host:test");
    for (language, command) in clients() {
        expect(language, &run(command, &sidecar.socket()), 77, 0);
    }
    sidecar.kill();
    for (language, command) in clients() {
        expect(language, &run(command, &sidecar.socket()), 75, 0);
    }
}

#[test]
fn no_client_takes_anything_but_status_200_for_a_yes() {
    let allowed = r#"{"allowed":true,"code":"ALLOW","request_id":null,"reason":null}"#;
    for head in
        ["HTTP/1.1 204 No Content", "HTTP/1.1 202 Accepted", "HTTP/1.1 2000 OK", "HTTP/1.1 503 Busy", "hello", ""]
    {
        let socket = answering(format!(
            "{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{allowed}",
            allowed.len()
        ));
        for (language, command) in clients() {
            expect(&format!("{language}, {head:?}"), &run(command, &socket.path().join("socket")), 75, 0);
        }
    }
}

/// Something that answers everything with this, on `socket` in the directory.
fn answering(answer: String) -> TempDir {
    let directory = TempDir::new().unwrap();
    let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
    // Until the test process ends: a blocked accept cannot be interrupted safely, and costs nothing.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut heard = Vec::new();
            let mut buffer = [0; 1024];
            while !heard.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => heard.extend_from_slice(&buffer[..count]),
                    Ok(_) | Err(_) => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    directory
}
