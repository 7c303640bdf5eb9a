//! Places to run in that are not an ordinary login: other users, namespaces.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::harness::authority::Authority;
use crate::harness::process::Wrapped;
use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::sidecar::{BINARY, Setup, clean_environment, exchange};
use crate::harness::wait::until;
use crate::harness::wrapper::stderr;

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Flags for `unshare` that make a PID namespace; `None` where this user may not have one.
pub(crate) fn new_pid_namespace() -> Option<Vec<&'static str>> {
    let flags = [vec!["--pid", "--fork"], vec!["--user", "--map-root-user", "--pid", "--fork"]];
    flags
        .into_iter()
        .find(|flags| run("unshare", &[flags.as_slice(), &["--mount-proc", "true"]].concat()).status.success())
}

#[test]
fn the_first_process_of_a_pid_namespace_can_be_the_daemon_or_the_wrapper() {
    let Some(flags) = new_pid_namespace() else { return };
    let sidecar = env!("CARGO_BIN_EXE_machineid-sidecar");
    let script = "(setsid sleep 0.1 &); exit 7";
    let output = run("unshare", &[&flags[..], &["--mount-proc", sidecar, "--dev", "--", "sh", "-c", script]].concat());
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));

    let daemon = ScriptedDaemon::allowing();
    let socket = daemon.socket();
    let wrapper = [env!("CARGO_BIN_EXE_machineid-run"), "--socket", socket.to_str().unwrap(), "--", "sh", "-c", script];
    let output = run("unshare", &[&flags[..], &["--mount-proc"], &wrapper].concat());
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
}

#[test]
fn a_process_in_another_pid_namespace_can_ask_and_be_supervised() {
    let Some(flags) = new_pid_namespace() else { return };
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "host:test").start();
    let socket = sidecar.socket();
    let agent = ["sh", "-c", "echo agent; exec sleep 1000"];
    let wrapper = [env!("CARGO_BIN_EXE_machineid-run"), "--socket", socket.to_str().unwrap(), "--"];
    let mut command = Command::new("unshare");
    // Its own kill switch, should the wrapper not end.
    command.args(&flags).args(["--mount-proc", "--kill-child"]).args(wrapper).args(agent).stdin(Stdio::null());
    let mut agent = Wrapped::start(command);
    agent.line_with("agent");
    org.device("revoke", "host:test");
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
}

#[test]
fn an_agent_that_the_daemon_could_not_end_is_refused_where_that_is_required() {
    let Some(flags) = new_pid_namespace() else { return };
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    setup.local = "require_local_killer = true".to_owned();
    // Its namespace does not contain the wrapper, which it can therefore neither see nor signal.
    let mut command = Command::new("unshare");
    command.args(&flags).args(["--mount-proc", "--kill-child", BINARY, "--config"]).arg(setup.configuration());
    clean_environment(&mut command, setup.directory.path());
    let _daemon = Wrapped::start(command);
    let socket = setup.socket();
    until("the daemon answers", || exchange(&socket, "GET /healthz HTTP/1.0\r\n\r\n"));
    let wrapper = ["--socket", socket.to_str().unwrap(), "--", "true"];
    let output = run(env!("CARGO_BIN_EXE_machineid-run"), &wrapper);
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    assert!(stderr(&output).contains("REMOTE_REFUSED"), "{}", stderr(&output));
}

#[test]
fn a_proc_of_another_pid_namespace_is_refused_by_name() {
    let Some(flags) = new_pid_namespace() else { return };
    let daemon = ScriptedDaemon::allowing();
    let socket = daemon.socket();
    let wrapper = [env!("CARGO_BIN_EXE_machineid-run"), "--socket", socket.to_str().unwrap(), "--", "true"];
    let output = run("unshare", &[&flags[..], &wrapper].concat());
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    assert!(stderr(&output).contains("/proc"), "{}", stderr(&output));
}

#[test]
fn the_user_nobody_can_run_an_agent() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The build's own directory need not be reachable for others.
    let program: PathBuf = directory.path().join("machineid-sidecar");
    fs::copy(env!("CARGO_BIN_EXE_machineid-sidecar"), &program).unwrap();
    let home = directory.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(65_534), Some(65_534)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&program)
        .args(["--dev", "--", "sh", "-c", "exit 7"])
        .current_dir("/")
        .env("TMPDIR", &home)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
}

#[test]
fn under_nohup_a_hang_up_reaches_neither_the_daemon_nor_its_command() {
    let directory = TempDir::new().unwrap();
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_machineid-sidecar")).args(["--dev", "--", "sh", "-c"]);
    // The command hangs up its parent, and would not get any further.
    command.arg("kill -HUP $(ps -o ppid= -p $PPID); sleep 0.3; exit 7").env("TMPDIR", directory.path());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
}
