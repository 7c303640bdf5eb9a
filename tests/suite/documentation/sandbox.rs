//! A shell that runs a page's commands as a reader types them: one after the other, in a directory of their own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::page::Needs;
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, clean_environment};
use crate::harness::wait::until;

/// The shell. What it left running in its process group is ended when dropped.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        // The child is not reaped before this, so the number is its group's.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Runs the blocks; panics with what the shell said when a command fails that should not, or the other way round.
pub(super) fn run(page: &str, needs: Needs, blocks: &[String]) {
    let directory = TempDir::new().unwrap();
    let authority = (needs != Needs::Nothing).then(Authority::start);
    let org = authority.as_ref().map(|authority| authority.org("pro"));
    let mut variables = Vec::new();
    let mut daemon = None;
    if let (Some(authority), Some(org)) = (&authority, &org) {
        variables.push(("MACHINEID_BASE_URL", authority.url()));
        variables.push(("MACHINEID_ORG_KEY", org.key.clone()));
        org.register(&["agent:1", "agent:2"]);
        if needs == Needs::Daemon {
            let mut setup = Setup::of(org, &authority.url(), "laptop:me");
            setup.devices = format!("[audit]\nfile = \"{}/audit.jsonl\"", directory.path().display());
            let configuration = setup.configuration();
            fs::copy(configuration, directory.path().join("machineid-sidecar.toml")).unwrap();
            let running = setup.start();
            variables.push(("MACHINEID_SOCKET", running.socket().display().to_string()));
            daemon = Some(running);
        }
    }
    let mut shell = Command::new("bash");
    clean_environment(&mut shell, directory.path());
    let programs = Path::new(env!("CARGO_BIN_EXE_machineid")).parent().unwrap();
    #[expect(clippy::disallowed_methods, reason = "passes the search path on")]
    let path = std::env::var("PATH").unwrap_or_default();
    shell
        .env("PATH", format!("{}:{path}", programs.display()))
        .envs(variables)
        .args(["-c", &script(blocks)])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(File::create(directory.path().join("said")).unwrap())
        .stderr(File::options().append(true).open(directory.path().join("said")).unwrap())
        .process_group(0);
    let mut shell = Shell(shell.spawn().unwrap());
    let status = until(&format!("the commands of {page} end"), || shell.0.try_wait().unwrap());
    let said = fs::read_to_string(directory.path().join("said")).unwrap();
    drop(daemon);
    assert!(status.success(), "{page}: {status}\n{}\n--- said\n{said}", blocks.join("\n"));
}

/// The blocks as one script. A port of the page's becomes one that is free; a line that begins with `!` must fail, which a
/// shell by itself would not insist on.
fn script(blocks: &[String]) -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let text = blocks.join("\n").replace("127.0.0.1:8424", &free);
    let lines = text.lines().map(|line| match line.strip_prefix("! ") {
        Some(command) => format!("if {command}; then echo 'this should have failed: {command}'; exit 1; fi"),
        None => line.to_owned(),
    });
    format!("set -euo pipefail\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}
