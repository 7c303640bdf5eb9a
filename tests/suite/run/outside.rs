//! An agent whose daemon runs outside: refused, accepted, or started where it cannot reach that daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::harness::place::{Place, can_make_pid_namespaces, is_root, skipped};
use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::sidecar::chmod;
use crate::harness::wait::until;
use crate::harness::wrapper::{Running, stderr, stdout, wrapper};

/// Stands for codex: its app server, and a client that uses it or does the work itself. The server listens where the real one
/// does: in a directory of the user below /tmp, with a link to it below the state directory.
const CODEX: &str = r#"
import os, socket, sys
control = os.path.join(os.environ["HOME"], ".codex", "app-server-control")
link = os.path.join(control, "app-server-control.sock")
if sys.argv[1:2] == ["app-server"]:
    shared = "/tmp/codex-daemon-%d" % os.getuid()
    os.makedirs(shared, 0o700, exist_ok=True)
    os.makedirs(control, 0o700, exist_ok=True)
    place = os.path.join(shared, os.environ["STAND_IN"])
    server = socket.socket(socket.AF_UNIX)
    server.bind(place)
    server.listen()
    os.symlink(place, link)
    while True:
        server.accept()[0].close()
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(link)
    print("through the daemon")
except OSError:
    print("by itself")
"#;

/// A user's home with a stand-in of codex, and its daemon.
struct Home {
    directory: tempfile::TempDir,
    user: Option<u32>,
    name: String,
    daemon: Option<Child>,
}

impl Home {
    fn new(user: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_string_lossy().into_owned();
        let program = directory.path().join("codex");
        fs::write(&program, format!("#!/usr/bin/python3\n{CODEX}")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        chmod(directory.path(), 0o777);
        Self { directory, user, name, daemon: None }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn program(&self) -> PathBuf {
        self.path().join("codex")
    }

    /// A command of the home's user with its environment.
    fn command(&self, program: &Path) -> Command {
        let mut command = match self.user {
            None => Command::new(program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                let user = user.to_string();
                command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(program);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MACHINEID_") || name == "XDG_RUNTIME_DIR" {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.path()).env_remove("CODEX_HOME").current_dir(self.path());
        command
    }

    fn start_daemon(&mut self, variables: &[(&str, &Path)]) -> u32 {
        let mut command = self.command(&self.program());
        command.args(["app-server", "--listen", "unix://", "--managed-daemon"]).env("STAND_IN", &self.name);
        command.envs(variables.iter().copied()).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let pid = child.id();
        self.daemon = Some(child);
        let link = self.path().join(".codex/app-server-control/app-server-control.sock");
        until("the daemon listens", || link.is_symlink().then_some(()));
        pid
    }

    fn end_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            let link = self.path().join(".codex/app-server-control/app-server-control.sock");
            let _ = fs::remove_file(fs::read_link(&link).unwrap_or_default());
            let _ = fs::remove_file(link);
        }
    }

    /// Runs the stand-in under the wrapper.
    fn run(&self, daemon: &ScriptedDaemon, flags: &[&str], arguments: &[&str]) -> Output {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_machineid-run")));
        command.arg("--socket").arg(daemon.socket()).args(flags).arg("--").arg(self.program()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(&mut command).finish()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.end_daemon();
        // Empty ones only, and none that this machine's users have.
        if let Some(user) = self.user {
            for name in ["codex-daemon", "cc-daemon", "tmux"] {
                let _ = fs::remove_dir(format!("/tmp/{name}-{user}"));
            }
        }
    }
}

fn open_daemon() -> ScriptedDaemon {
    let daemon = ScriptedDaemon::allowing();
    for path in [daemon.directory(), &daemon.socket()] {
        chmod(path, 0o777);
    }
    daemon
}

/// Refused, accepted, isolated: by the home's user.
fn refuses_accepts_and_isolates(home: &mut Home) {
    let daemon = open_daemon();
    assert_eq!(stdout(&home.run(&daemon, &[], &[])), "by itself\n");
    let pid = home.start_daemon(&[]);

    let status = home.path().join("status");
    let before = daemon.connections();
    let refused = home.run(&daemon, &["--status-file", status.to_str().unwrap()], &["do it"]);
    let text = stderr(&refused);
    assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(125), ""), "{text}");
    for word in [&format!("codex app-server (pid {pid})"), "--isolate", "--outside allow", "app-server daemon stop"] {
        assert!(text.contains(word) && text.lines().count() == 1, "{word}: {text}");
    }
    let written: Value = serde_json::from_str(&fs::read_to_string(&status).unwrap()).unwrap();
    assert_eq!(written["cause"], "helper-outside");
    assert_eq!(daemon.connections(), before, "the daemon is not asked about a run that is refused");

    let accepted = home.run(&daemon, &["--outside", "allow"], &["do it"]);
    assert_eq!((accepted.status.code(), stdout(&accepted).as_str()), (Some(0), "through the daemon\n"));
    assert!(stderr(&accepted).contains(&format!("(pid {pid}) runs outside")), "{}", stderr(&accepted));
    assert_eq!(stderr(&home.run(&daemon, &["--outside", "allow", "-q"], &["do it"])), "");

    for containment in ["auto", "subreaper", "pidns"] {
        let isolated = home.run(&daemon, &["--isolate", "--containment", containment], &["do it"]);
        let text = stderr(&isolated);
        assert_eq!((isolated.status.code(), stdout(&isolated).as_str()), (Some(0), "by itself\n"), "{text}");
    }
    // The daemon itself goes on, and its place is as it was.
    assert_eq!(stdout(&home.run(&daemon, &["--outside", "allow"], &[])), "through the daemon\n");
}

#[test]
fn an_agent_whose_daemon_runs_outside_is_refused_accepted_or_isolated() {
    if !can_make_pid_namespaces(&Place::own()) {
        skipped("an agent whose daemon runs outside", "this user may make no namespaces");
        return;
    }
    refuses_accepts_and_isolates(&mut Home::new(None));
}

#[test]
fn an_ordinary_users_agent_is_refused_accepted_or_isolated_too() {
    if !is_root() {
        println!("skipped: the test above does this for an ordinary user");
        return;
    }
    if !can_make_pid_namespaces(&Place::ordinary()) {
        skipped("an ordinary user's agent whose daemon runs outside", "that user may make no namespaces");
        return;
    }
    refuses_accepts_and_isolates(&mut Home::new(Some(65_529)));
}

#[test]
fn a_daemon_counts_only_if_the_agent_would_use_it_and_a_stop_would_not_reach_it() {
    let daemon = open_daemon();
    let mut home = Home::new(None);
    home.start_daemon(&[]);
    let code = |home: &Home, flags: &[&str], arguments: &[&str]| home.run(&daemon, flags, arguments).status.code();
    assert_eq!(code(&home, &[], &["--no-daemon", "do it"]), Some(0));
    assert_eq!(code(&home, &[], &["exec", "do it"]), Some(0));
    assert_eq!(code(&home, &[], &["do it"]), Some(125));
    // Another home has another daemon.
    let other = Home::new(None);
    assert_eq!(code(&other, &[], &["do it"]), Some(0));
    home.end_daemon();

    // A daemon in a tree of the same device, of the same sidecar.
    let own = [("MACHINEID_RUN_ID", Path::new("7")), ("MACHINEID_DEVICE_ID", Path::new("a"))];
    home.start_daemon(&[own[0], own[1], ("MACHINEID_SOCKET", &daemon.socket())]);
    assert_eq!(code(&home, &["--device", "a"], &["do it"]), Some(0));
    assert_eq!(code(&home, &[], &["do it"]), Some(0), "a deny of the host stops every tree");
    assert_eq!(code(&home, &["--device", "b"], &["do it"]), Some(125));
    home.end_daemon();
    home.start_daemon(&[own[0], own[1], ("MACHINEID_SOCKET", Path::new("/another"))]);
    assert_eq!(code(&home, &["--device", "a"], &["do it"]), Some(125));
}

#[test]
fn an_isolated_command_keeps_its_user_its_directory_and_the_daemons_socket() {
    if !can_make_pid_namespaces(&Place::own()) {
        skipped("an isolated command", "this user may make no namespaces");
        return;
    }
    let daemon = ScriptedDaemon::allowing();
    // The socket lies in the runtime directory, as an ordinary user's does, beside what is hidden.
    let bus = std::os::unix::net::UnixListener::bind(daemon.directory().join("bus")).unwrap();
    let work = tempfile::tempdir().unwrap();
    let script = "id -u; pwd; ls -A \"$XDG_RUNTIME_DIR\"; [ -S \"$MACHINEID_SOCKET\" ] && echo there; \
                  touch \"$XDG_RUNTIME_DIR/x\" && echo $CLINE_SESSION_BACKEND_MODE";
    let mut command = wrapper(&daemon.socket());
    command.args(["--isolate", "--", "sh", "-c", script]).env("XDG_RUNTIME_DIR", daemon.directory());
    command.env("HOME", work.path()).current_dir(work.path());
    let output = Running::start(&mut command).finish();
    let socket = daemon.socket();
    let socket = socket.file_name().unwrap().to_str().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let work = work.path().display();
    assert_eq!(stdout(&output), format!("{uid}\n{work}\n{socket}\nthere\nlocal\n"), "{}", stderr(&output));
    assert!(!daemon.directory().join("x").exists(), "what it writes there stays with it");
    drop(bus);
}

#[test]
fn doctor_names_an_agents_daemon_with_its_pid_and_what_to_do() {
    let mut home = Home::new(None);
    let pid = home.start_daemon(&[]);
    let mut command = home.command(Path::new(env!("CARGO_BIN_EXE_machineid")));
    let output = command.arg("doctor").stdin(Stdio::null()).output().unwrap();
    let text = stdout(&output);
    let line = text.lines().find(|line| line.contains(&format!("pid {pid},")));
    assert!(line.is_some_and(|line| line.contains("codex app-server runs outside every tree")), "{text}");
    assert!(text.contains("codex app-server daemon stop"), "{text}");
}
