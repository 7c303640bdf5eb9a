//! Sandboxes around an agent that keep it from the daemon: each client says which setting to change.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::place::skipped;
use crate::harness::scripted_daemon::ScriptedDaemon;
use crate::harness::wrapper::stderr;

/// Forbids `socket(AF_UNIX)` by a seccomp filter, as srt does, and becomes the rest of its arguments.
const FILTER: &str = r"
import ctypes, os, struct, sys
number = {'x86_64': 41, 'aarch64': 198}[os.uname().machine]
def statement(code, jump, other, value): return struct.pack('HBBI', code, jump, other, value)
program = b''.join([statement(0x20, 0, 0, 0), statement(0x15, 0, 3, number), statement(0x20, 0, 0, 16),
    statement(0x15, 0, 1, 1), statement(6, 0, 0, 0x00050001), statement(6, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('program', ctypes.c_void_p)]
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0
assert prctl(22, 2, ctypes.byref(Filter(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";

/// Each client of the daemon, started behind these arguments. The hook is given an event.
fn clients(before: &[&str], socket: &Path) -> [Output; 3] {
    let socket = socket.to_str().unwrap();
    let machineid = env!("CARGO_BIN_EXE_machineid");
    let each: [&[&str]; 3] = [
        &[machineid, "check", "--socket", socket],
        &[env!("CARGO_BIN_EXE_machineid-run"), "--socket", socket, "--", "true"],
        &[machineid, "hook", "claude-code", "--socket", socket],
    ];
    each.map(|client| {
        let mut command = Command::new(before[0]);
        command.args(&before[1..]).args(client).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A client that reads none of it may have ended.
        let _ = child.stdin.take().unwrap().write_all(b"{\"hook_event_name\":\"PreToolUse\",\"tool_name\":\"Bash\"}");
        child.wait_with_output().unwrap()
    })
}

fn each_says(outputs: [Output; 3], remedy: &str) {
    for (output, code) in outputs.into_iter().zip([Some(75), Some(75), None]) {
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(remedy), "{output:?}");
        assert!(!said.contains("is machineid-sidecar running") && !said.contains("start it"), "{said}");
        assert!(code.is_none() || output.status.code() == code, "{output:?}");
    }
}

#[test]
fn a_filter_that_forbids_unix_sockets_is_told_from_a_daemon_that_is_not_there() {
    let daemon = ScriptedDaemon::allowing();
    let clients = clients(&["python3", "-c", FILTER], &daemon.socket());
    each_says(clients, "network.allowAllUnixSockets");
}

#[test]
fn bubblewrap_without_the_sockets_directory_is_told_with_the_bind_that_is_missing() {
    let bwrap = ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"];
    let works = Command::new(bwrap[0]).args(&bwrap[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        skipped("bubblewrap", "there is no bwrap, or it may make no namespaces here");
        return;
    }
    let daemon = ScriptedDaemon::allowing();
    let directory = daemon.socket().parent().unwrap().display().to_string();
    let hidden = [&bwrap[..], &["--tmpfs", &directory]].concat();
    // The file is gone with its directory; for a socket's own directory `--tmpfs` leaves an empty one.
    each_says(clients(&hidden, &daemon.socket()), &format!("--ro-bind {directory} {directory}"));
    // Without /proc no process can be told from another.
    let run = env!("CARGO_BIN_EXE_machineid-run");
    let output =
        Command::new(bwrap[0]).args(["--ro-bind", "/", "/", "--tmpfs", "/proc", run, "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        stderr(&output).contains("/proc is not mounted here") && stderr(&output).contains("--proc /proc"),
        "{output:?}"
    );
}

#[test]
fn a_process_that_may_open_no_more_files_is_told_so() {
    let daemon = ScriptedDaemon::allowing();
    let socket = daemon.socket();
    let limited = |limit: &str, client: &[&str]| {
        // Without those that a test inherits.
        let script =
            "limit=$1; shift; for fd in 3 4 5 6 7 8 9; do eval \"exec $fd>&-\"; done; ulimit -n $limit; exec \"$@\"";
        let output = Command::new("sh").args(["-c", script, "sh", limit]).args(client).output().unwrap();
        stderr(&output)
    };
    let run = env!("CARGO_BIN_EXE_machineid-run");
    let said = limited("4", &[run, "--socket", socket.to_str().unwrap(), "--", "true"]);
    assert!(said.contains("may open no more files") && said.contains("ulimit -n"), "{said}");
    let said = limited("4", &[env!("CARGO_BIN_EXE_machineid"), "check", "--socket", socket.to_str().unwrap()]);
    assert!(said.contains("may open no more files"), "{said}");
}
