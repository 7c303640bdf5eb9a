//! What `machineid hook` costs a tool call, as a whole process, beside a hook in Python that does the same.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use machineid_hook::{Agent, HookCommand};

use crate::Length;
use crate::common::authority::Authority;
use crate::common::daemon::Daemon;
use crate::common::report::{Table, difference, milliseconds, ratio, say};
use crate::common::samples::Samples;
use crate::common::{Outcome, clean_environment, instant, now, program};
use crate::start::{Contender, installed, measured};

const MACHINEID: &str = env!("CARGO_BIN_EXE_machineid");
/// As an agent sends it, with a small file that is written.
const CONTENT: usize = 4096;
/// What a hook in Python needs: the event, one question on the socket, and the agent's form of a no.
const PYTHON: &str = r#"
import json, socket, sys

event = json.load(sys.stdin)
try:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(3)
        connection.connect(sys.argv[1])
        connection.sendall(b"GET /v1/check?timeout=2s700ms HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    decision = json.loads(body)
    reason = None if head.split()[1] == b"200" and decision["allowed"] is True else str(decision["code"])
except Exception as error:
    reason = str(error) or "unknown"
if reason is not None:
    deny = {"hookEventName": "PreToolUse", "permissionDecision": "deny", "permissionDecisionReason": reason}
    print(json.dumps({"hookSpecificOutput": deny}))
    print(reason, file=sys.stderr)
    sys.exit(2)
"#;

pub(crate) fn run(length: Length) -> Outcome<()> {
    let authority = Authority::start()?;
    let daemon = Daemon::start_by_way_of(&authority, &instant::start()?)?;
    let rounds = length.pick(400, 40);
    let socket = daemon.socket().display().to_string();
    let home = daemon.home().to_owned();
    let hook = program(MACHINEID).display().to_string();
    let line = HookCommand {
        program: hook.clone().into(),
        agent: Agent::ClaudeCode,
        socket: Some(daemon.socket()),
        device: None,
        timeout: None,
    }
    .line();
    let mut contenders = vec![
        Contender::new("the check itself, on a new connection", "", checked(daemon)),
        Contender::new("true", "", told(&home, &["true"])),
        Contender::new(
            "machineid hook",
            "+ 5 ms, 0.1×",
            told(&home, &[&hook, "hook", "claude-code", "--socket", &socket]),
        ),
        Contender::new("the same from a shell, as in settings", "", told(&home, &["sh", "-c", &line])),
    ];
    match installed("python3") {
        Some(python) => {
            // The interpreter itself: what is found first may be a script that looks for one.
            let asked = Command::new(python).args(["-c", "import sys; print(sys.executable)"]).output()?;
            let python = String::from_utf8(asked.stdout)?;
            let script = script(&home)?.display().to_string();
            contenders.push(Contender::new("a hook in Python", "", told(&home, &[python.trim(), &script, &socket])));
        }
        None => say("  python3 is not installed, so it is not compared with"),
    }
    print(&format!("A hook's whole process, {rounds} interleaved rounds"), measured(contenders, rounds)?);
    Ok(())
}

fn script(home: &Path) -> Outcome<PathBuf> {
    let path = home.join("hook.py");
    fs::write(&path, PYTHON)?;
    Ok(path)
}

fn checked(daemon: Daemon) -> Box<dyn FnMut() -> Outcome<Duration>> {
    Box::new(move || {
        let began = now();
        let answer = daemon.get("/v1/check")?;
        if answer.starts_with("HTTP/1.0 200") { Ok(began.elapsed()) } else { Err(answer.into()) }
    })
}

/// From before the start to the end of a command that is told the event and must allow.
fn told(home: &Path, words: &[&str]) -> Box<dyn FnMut() -> Outcome<Duration>> {
    let mut command = Command::new(words[0]);
    clean_environment(&mut command, home);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let event = serde_json::json!({
        "session_id": "s", "hook_event_name": "PreToolUse", "tool_name": "Write",
        "tool_input": { "file_path": "/a", "content": "x".repeat(CONTENT) },
    })
    .to_string();
    Box::new(move || {
        let began = now();
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // `true` reads nothing, and may have ended.
            let _ = stdin.write_all(event.as_bytes());
        }
        match child.wait()? {
            status if status.success() => Ok(began.elapsed()),
            status => Err(format!("{command:?}: {status}").into()),
        }
    })
}

fn print(title: &str, contenders: Vec<Contender>) {
    let timed: Vec<_> = contenders.into_iter().map(|one| (one.name, one.goal, Samples::new(one.took))).collect();
    let median = |name: &str| timed.iter().find(|(known, ..)| *known == name).map(|(_, _, took)| took.median());
    let check = timed[0].2.median();
    let python = median("a hook in Python");
    let headings = ["command", "median", "p90", "more than the check", "of Python's", "figure to beat"];
    let mut table = Table::new(title, &headings);
    for (name, goal, took) in &timed {
        let median = took.median();
        table.row(vec![
            (*name).to_owned(),
            milliseconds(median),
            milliseconds(took.percentile(90)),
            difference(median, check),
            python.map_or_else(|| "?".to_owned(), |python| ratio(median, python)),
            (*goal).to_owned(),
        ]);
    }
    table.print();
}
