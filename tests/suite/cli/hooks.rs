//! `machineid hook` as an agent starts it, and in agents' settings. The forms of all agents are tested in the crate `hook`; real agents
//! by `tests/agents/hooks`.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use machineid_clock::BootTime;
use serde_json::Value;

use super::fixture::{Ran, RunToEnd, Scripted, machineid, response};

const ALLOW: &str = r#"{"allowed":true,"code":"ALLOW","request_id":"r-1","device_id":"host:a","validated_at":null,"age_ms":4,"reason":null}"#;
const DENY: &str = r#"{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-2","device_id":"host:a","validated_at":null,"age_ms":null,"reason":"The device is revoked."}"#;
const EVENT: &str = r#"{"hook_event_name":"PreToolUse","tool_name":"Bash","tool_input":{"command":"ls"}}"#;

/// Starts the hook with pipes.
fn started(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn told(command: Command, event: &[u8]) -> Ran {
    let mut child = started(command);
    // A hook that answers before it has read all of its event closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(event);
    child.wait_with_output().unwrap().into()
}

fn hook(agent: &str, socket: &Path, event: &[u8]) -> Ran {
    told(machineid(&["hook", agent, "--socket", socket.to_str().unwrap()]), event)
}

fn scripted(answer: &str) -> (tempfile::TempDir, std::path::PathBuf, Scripted) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sidecar.sock");
    let scripted = Scripted::unix(&socket, &[answer.to_owned()]);
    (directory, socket, scripted)
}

#[test]
fn a_yes_is_silent_and_a_no_is_said_in_the_agent_s_form() {
    let (_directory, socket, daemon) = scripted(&response("200 OK", ALLOW));
    for agent in ["claude-code", "codex", "gemini-cli", "copilot", "pi"] {
        let ran = hook(agent, &socket, EVENT.as_bytes());
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{agent}");
    }
    assert_eq!(hook("cline", &socket, EVENT.as_bytes()).json()["cancel"], false);
    assert!(daemon.requests()[0].starts_with("GET /v1/check?timeout=2s700ms HTTP/1.0\r\n"), "{:?}", daemon.requests());

    let (_directory, socket, _daemon) = scripted(&response("403 Forbidden", DENY));
    let claude = hook("claude-code", &socket, EVENT.as_bytes());
    let json = claude.json();
    assert_eq!(
        (claude.code, &json["continue"], &json["hookSpecificOutput"]["permissionDecision"]),
        (2, &false.into(), &"deny".into())
    );
    assert!(claude.err.contains("DEVICE_REVOKED (device host:a, request r-2): The device is revoked."), "{claude:?}");
    let codex = hook("codex", &socket, EVENT.as_bytes());
    assert!(codex.code == 2 && codex.out.is_empty() && codex.err.contains("DEVICE_REVOKED"), "{codex:?}");
    let vibe = hook("mistral-vibe", &socket, EVENT.as_bytes());
    assert_eq!((vibe.code, &vibe.json()["decision"]), (0, &"deny".into()));
}

#[test]
fn without_a_daemon_and_with_half_an_answer_the_call_is_blocked_and_the_session_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let stale = directory.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    for socket in [directory.path().join("none.sock"), stale] {
        let ran = hook("gemini-cli", &socket, EVENT.as_bytes());
        assert!(ran.code == 2 && ran.err.contains("nothing listens on"), "{ran:?}");
        assert!(ran.json()["decision"] == "deny" && ran.json().get("continue").is_none(), "{ran:?}");
    }
    for answer in [
        response("200 OK", &ALLOW[..60]),
        response("503 Service Unavailable", ALLOW),
        "SSH-2.0\r\n\r\n".to_owned(),
        String::new(),
    ] {
        let (_directory, socket, _daemon) = scripted(&answer);
        assert_eq!(hook("claude-code", &socket, EVENT.as_bytes()).code, 2, "{answer}");
    }
}

#[test]
fn whatever_keeps_the_hook_waiting_is_a_no_within_its_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hung.sock");
    let _hung = UnixListener::bind(&socket).unwrap();
    let command = || machineid(&["hook", "cline", "--timeout", "300ms", "--socket", socket.to_str().unwrap()]);
    let began = BootTime::now();
    // A daemon that is stopped, and an event that does not end: its writer holds the pipe open.
    let silent = told(command(), EVENT.as_bytes());
    let mut endless = started(command());
    let mut pipe = endless.stdin.take().unwrap();
    pipe.write_all(b"{\"a\":\"").unwrap();
    let endless = Ran::from(endless.wait_with_output().unwrap());
    drop(pipe);
    for ran in [silent, endless] {
        assert!(ran.json()["cancel"] == true && ran.err.contains("no answer within 300ms"), "{ran:?}");
    }
    // Far below the time that any agent waits, on a busy machine as well.
    assert!(BootTime::now().saturating_since(began) < Duration::from_secs(20));
}

#[test]
fn what_is_no_event_is_blocked_though_the_daemon_allows() {
    let (_directory, socket, _daemon) = scripted(&response("200 OK", ALLOW));
    let mut long = b"{\"a\":\"".to_vec();
    long.resize(10 * 1024 * 1024, b'x');
    long.extend(b"\"}");
    for (event, why) in [
        (&b"hello"[..], "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"", "sent no event"),
        (&long, "longer than 8 MiB"),
    ] {
        let ran = hook("claude-code", &socket, event);
        assert!(ran.code == 2 && ran.err.contains(why), "{ran:?}");
    }
    for wrong in [&["hook"][..], &["hook", "nobody"], &["hook", "codex", "--timeout", "1h"]] {
        assert_eq!(machineid(wrong).ran().code, 2, "{wrong:?}");
    }
}

/// The command line with a home directory of its own.
fn at_home(home: &Path, args: &[&str]) -> Command {
    let mut command = machineid(args);
    command.env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir(home);
    command
}

fn installed_line(home: &Path) -> String {
    let text = std::fs::read_to_string(home.join(".claude/settings.json")).unwrap();
    let settings: Value = serde_json::from_str(&text).unwrap();
    settings["hooks"]["PreToolUse"][0]["hooks"][0]["command"].as_str().unwrap().to_owned()
}

fn in_a_shell(line: &str) -> Ran {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]);
    told(shell, EVENT.as_bytes())
}

#[test]
fn an_installed_hook_blocks_without_its_program_and_doctor_knows_whether_it_is_armed() {
    let (directory, socket, _daemon) = scripted(&response("200 OK", ALLOW));
    let home = directory.path();
    let socket = socket.to_str().unwrap();
    let install = || at_home(home, &["hook", "install", "claude-code", "--socket", socket, "--timeout", "2s"]).ran();
    let hook = || {
        let ran = at_home(home, &["doctor", "--json", "--socket", socket]).ran();
        let checks = ran.json()["checks"].as_array().unwrap().clone();
        let ours = checks.into_iter().find(|check| check["found"].as_str().unwrap().contains("Claude Code: "));
        ours.map(|check| format!("{} {}", check["level"].as_str().unwrap(), check["found"].as_str().unwrap()))
    };
    assert_eq!(install().code, 0);
    let armed = hook().unwrap();
    assert!(armed.starts_with("ok ") || armed.contains("its version is not known"), "{armed}");
    let line = installed_line(home);
    assert_eq!(in_a_shell(&line).code, 0);
    let broken = line.replace(env!("CARGO_BIN_EXE_machineid"), "/nonexistent/machineid");
    let ran = in_a_shell(&broken);
    assert!(ran.code == 2 && ran.err.contains("the hook could not run, so the call is blocked"), "{ran:?}");
    // The hook's own no keeps its own words.
    let denied = line.replace(socket, "/nonexistent/sidecar.sock");
    let ran = in_a_shell(&denied);
    assert!(ran.code == 2 && ran.err.contains("nothing listens on") && !ran.err.contains("could not run"), "{ran:?}");

    let path = home.join(".claude/settings.json");
    std::fs::write(
        &path,
        std::fs::read_to_string(&path).unwrap().replace("\"onFailure\": \"block\"", "\"onFailure\": \"continue\""),
    )
    .unwrap();
    let weak = hook().unwrap();
    assert!(weak.starts_with("fail ") && weak.contains("onFailure"), "{weak}");
    assert_eq!(install().code, 0);
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replacen('{', "{\"disableAllHooks\": true,", 1))
        .unwrap();
    let off = hook().unwrap();
    assert!(off.starts_with("fail ") && off.contains("disableAllHooks is true"), "{off}");
}

#[test]
fn settings_of_others_survive_the_hook_and_its_going() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".gemini/settings.json");
    std::fs::create_dir(home.path().join(".gemini")).unwrap();
    let mine = "{\r\n  // mine\r\n  \"hooks\": { \"BeforeTool\": [ { \"hooks\": [ { \"command\": \"/opt/other\" } ] } ] },\r\n  \"x\": 1e3\r\n}\r\n";
    std::fs::write(&path, mine).unwrap();
    let run = |args: &[&str]| at_home(home.path(), args).ran();
    assert_eq!(run(&["hook", "install", "gemini-cli"]).code, 0);
    let with = std::fs::read_to_string(&path).unwrap();
    assert!(
        with.contains("/opt/other")
            && with.contains("// mine\r\n")
            && with.contains("1e3")
            && with.contains("hook gemini-cli"),
        "{with}"
    );
    let ran = run(&["hook", "install", "gemini-cli"]);
    assert!(ran.code == 0 && ran.out.contains("already"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), with);
    assert_eq!(run(&["hook", "uninstall", "gemini-cli"]).code, 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), mine);
    let ran = run(&["hook", "uninstall", "gemini-cli"]);
    assert!(ran.code == 0 && ran.out.contains("not in it"), "{ran:?}");

    std::fs::write(&path, "{ not json").unwrap();
    let ran = run(&["hook", "install", "gemini-cli"]);
    assert!(ran.code == 1 && ran.err.contains("is not JSON") && ran.err.contains("nothing was changed"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{ not json");
    assert_eq!(run(&["hook", "install", "cn"]).code, 1);
    assert_eq!(run(&["hook", "install", "pi", "--managed"]).code, 2);
    let shown = run(&["hook", "install", "openai-agents"]);
    assert!(shown.code == 0 && shown.out.contains("class MachineidHooks"), "{shown:?}");
    let printed = run(&["hook", "install", "codex", "--print"]);
    assert!(printed.code == 0 && printed.json()["hooks"]["UserPromptSubmit"].is_array(), "{printed:?}");
    assert!(!home.path().join(".codex").exists());
}
