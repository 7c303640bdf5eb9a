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

/// How each agent takes a no: the exit code, and a field of the JSON on stdout with its value.
const NO: [(&str, i32, &str, &str); 12] = [
    ("claude-code", 2, "/hookSpecificOutput/permissionDecision", "\"deny\""),
    ("codex", 2, "", ""),
    ("gemini-cli", 2, "/decision", "\"deny\""),
    ("qwen-code", 2, "/hookSpecificOutput/permissionDecision", "\"deny\""),
    ("copilot", 0, "/permissionDecision", "\"deny\""),
    ("mistral-vibe", 0, "/decision", "\"deny\""),
    ("cline", 0, "/cancel", "true"),
    ("opencode", 2, "/end", "false"),
    ("pi", 2, "/end", "false"),
    ("cursor", 0, "/permission", "\"deny\""),
    ("claude-agent-sdk", 2, "/hookSpecificOutput/permissionDecision", "\"deny\""),
    ("openai-agents", 2, "/end", "false"),
];

fn assert_no((agent, code, field, value): (&str, i32, &str, &str), ran: &Ran, why: &str) {
    assert!(ran.code == code && ran.err.contains(why), "{agent}: {ran:?}");
    if field.is_empty() {
        assert_eq!(ran.out, "", "{agent}");
    } else {
        let json = ran.json();
        assert_eq!(json.pointer(field).map(ToString::to_string).as_deref(), Some(value), "{agent}: {ran:?}");
    }
}

#[test]
fn whatever_keeps_the_hook_waiting_is_a_no_within_its_deadline_in_each_agent_s_form() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hung.sock");
    let _hung = UnixListener::bind(&socket).unwrap();
    let command = |agent| machineid(&["hook", agent, "--timeout", "300ms", "--socket", socket.to_str().unwrap()]);
    let began = BootTime::now();
    // A daemon that is stopped, and an event that does not end: its writer holds the pipe open.
    for form in NO {
        let mut silent = started(command(form.0));
        silent.stdin.take().unwrap().write_all(EVENT.as_bytes()).unwrap();
        let mut endless = started(command(form.0));
        let mut pipe = endless.stdin.take().unwrap();
        pipe.write_all(b"{\"a\":\"").unwrap();
        for child in [silent, endless] {
            assert_no(form, &Ran::from(child.wait_with_output().unwrap()), "no answer within 300ms");
        }
        drop(pipe);
    }
    // Far below the time that any agent waits, on a busy machine as well.
    assert!(BootTime::now().saturating_since(began) < Duration::from_mins(1));
}

#[test]
fn what_is_no_event_is_blocked_in_each_agent_s_form_though_the_daemon_allows() {
    let (_directory, socket, _daemon) = scripted(&response("200 OK", ALLOW));
    for form in NO {
        for (event, why) in [
            (&b"hello"[..], "not a JSON object"),
            (b"[1]", "not a JSON object"),
            (b"", "sent no event"),
            // An agent that is ended in the middle of its event.
            (b"{\"tool_input\":{\"command\":\"l", "not a JSON object"),
            (b"{\"tool_input\":{\"command\":\"\xff\xfe\"}}", "not a JSON object"),
        ] {
            assert_no(form, &hook(form.0, &socket, event), why);
        }
    }
    let mut long = b"{\"a\":\"".to_vec();
    long.resize(10 * 1024 * 1024, b'x');
    long.extend(b"\"}");
    for form in [NO[0], NO[1], NO[6]] {
        assert_no(form, &hook(form.0, &socket, &long), "longer than 8 MiB");
    }
    for wrong in [&["hook"][..], &["hook", "nobody"], &["hook", "codex", "--timeout", "1h"]] {
        assert_eq!(machineid(wrong).ran().code, 2, "{wrong:?}");
    }
}

#[test]
fn an_agent_that_does_not_listen_is_still_told_no_by_the_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    for agent in ["claude-code", "codex", "cline", "mistral-vibe"] {
        let mut child = started(machineid(&["hook", agent, "--socket", socket.to_str().unwrap()]));
        drop((child.stdout.take(), child.stderr.take()));
        child.stdin.take().unwrap().write_all(EVENT.as_bytes()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(2), "{agent}");
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

/// What doctor says of this agent's hook, with its level.
fn doctors_word(home: &Path, title: &str, more: &[(&str, &str)]) -> String {
    let mut command = at_home(home, &["doctor", "--json"]);
    let ran = command.envs(more.iter().copied()).ran();
    let checks = ran.json()["checks"].as_array().unwrap().clone();
    let ours = checks.iter().find(|check| check["found"].as_str().unwrap().starts_with(&format!("{title}: ")));
    let ours = ours.unwrap_or_else(|| panic!("{ran:?}"));
    format!("{} {}", ours["level"].as_str().unwrap(), ours["found"].as_str().unwrap())
}

#[test]
fn doctor_finds_the_switch_in_any_of_the_files_that_the_agent_merges() {
    let (directory, socket, _daemon) = scripted(&response("200 OK", ALLOW));
    let home = directory.path();
    // The user's own settings, and a project elsewhere.
    let project = home.join("project");
    let install = |agent, scope| {
        let mut command = at_home(home, &["hook", "install", agent, scope, "--socket", socket.to_str().unwrap()]);
        assert_eq!(command.current_dir(&project).ran().code, 0);
    };
    let word = |title: &str, more: &[(&str, &str)]| {
        let mut more = more.to_vec();
        more.push(("HOME", home.to_str().unwrap()));
        doctors_word(&project, title, &more)
    };
    let write = |path: &str, text: &str| {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    std::fs::create_dir(&project).unwrap();
    install("claude-code", "--user");
    let armed = word("Claude Code", &[]);
    assert!(armed.contains("Claude Code: armed in "), "{armed}");
    write("project/.claude/settings.json", r#"{"disableAllHooks": true}"#);
    let off = word("Claude Code", &[]);
    assert!(
        off.starts_with("fail ")
            && off.contains("disableAllHooks is true in ")
            && off.contains("project/.claude/settings.json"),
        "{off}"
    );
    // The stronger file decides.
    write("project/.claude/settings.local.json", r#"{"disableAllHooks": false}"#);
    assert!(word("Claude Code", &[]).contains("Claude Code: armed in "));
    write("project/.claude/settings.json", "{}");
    write("project/.claude/settings.local.json", "{ not json");
    let unknown = word("Claude Code", &[]);
    assert!(unknown.starts_with("fail ") && unknown.contains("whether hooks are on is not known"), "{unknown}");
    write("project/.claude/settings.local.json", "{}");
    let simple = word("Claude Code", &[("CLAUDE_CODE_SIMPLE", "1")]);
    assert!(simple.starts_with("fail ") && simple.contains("$CLAUDE_CODE_SIMPLE is set"), "{simple}");

    install("gemini-cli", "--user");
    assert!(word("Gemini CLI", &[]).contains("armed in "));
    write("project/.gemini/settings.json", r#"{"hooksConfig": {"disabled": ["machineid"]}}"#);
    let off = word("Gemini CLI", &[]);
    assert!(off.starts_with("fail ") && off.contains("hooksConfig.disabled names our hook"), "{off}");

    install("mistral-vibe", "--project");
    let untrusted = word("Mistral Vibe", &[]);
    assert!(untrusted.starts_with("fail ") && untrusted.contains("Mistral Vibe does not trust "), "{untrusted}");
    write(".vibe/trusted_folders.toml", &format!("trusted = [{:?}]\n", project.to_str().unwrap()));
    assert!(word("Mistral Vibe", &[]).contains("armed in "));

    install("codex", "--user");
    let untrusted = word("codex", &[]);
    assert!(untrusted.starts_with("fail ") && untrusted.contains("codex does not trust it"), "{untrusted}");
    write("project/.codex/config.toml", "[features]\nhooks = false\n");
    let off = word("codex", &[]);
    assert!(off.starts_with("fail ") && off.contains("features.hooks is false in "), "{off}");
}

#[test]
fn doctor_runs_the_plugin_itself() {
    let (directory, socket, _daemon) = scripted(&response("200 OK", ALLOW));
    let home = directory.path();
    let install = at_home(home, &["hook", "install", "pi", "--socket", socket.to_str().unwrap()]).ran();
    assert_eq!(install.code, 0, "{install:?}");
    let untried = doctors_word(home, "pi", &[("PATH", "/nonexistent")]);
    assert!(untried.starts_with("ok ") && untried.contains("no node on the search path"), "{untried}");
    // A program in the place of node, by which the plugin does not load, and one by which it allows whatever happens.
    let node = home.join("node");
    for (script, why) in [
        ("echo 'SyntaxError: Unexpected token' >&2; exit 1", "the plugin does not load: exit status: 1: SyntaxError"),
        ("echo '{\"no\":null}'", "it allows without a daemon"),
    ] {
        let _ = std::fs::remove_file(&node);
        std::fs::write(&node, format!("#!/bin/sh\ncat >/dev/null\n{script}\n")).unwrap();
        std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", home.display());
        let word = doctors_word(home, "pi", &[("PATH", &path)]);
        assert!(word.starts_with("fail ") && word.contains(why), "{word}");
    }
    #[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
    let path = std::env::var("PATH").unwrap();
    if !std::env::split_paths(&path).any(|directory| directory.join("node").exists()) {
        eprintln!("SKIPPED the plugin in a real node: there is none on the search path");
        return;
    }
    let real = doctors_word(home, "pi", &[("PATH", &path)]);
    assert!(real.starts_with("ok ") && real.contains("tried: blocks without the daemon"), "{real}");
    assert!(!real.contains("not tried"), "{real}");
}

#[test]
fn settings_that_cannot_be_changed_safely_are_left_as_they_are_with_a_clear_line() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let refused = |agent: &str, file: &Path, text: &str, why: &str| {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        for verb in ["install", "uninstall"] {
            let ran = at_home(home, &["hook", verb, agent]).ran();
            assert!(ran.code == 1 && ran.err.contains(why) && ran.err.contains("nothing was changed"), "{ran:?}");
        }
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "{agent}: nothing else was written");
    };
    refused("codex", &home.join(".codex/hooks.json"), "[]", "is not an object");
    refused("qwen-code", &home.join(".qwen/settings.json"), "{\"hooks\": {\"PreToolUse\": [}", "it is not JSON");
    refused("mistral-vibe", &home.join(".vibe/hooks.toml"), "[[hooks\n", "it is not TOML");
    refused("pi", &home.join(".pi/agent/extensions/machineid.js"), "export default 1\n", "machineid did not write it");
    refused("cline", &home.join(".cline/hooks/PreToolUse.sh"), "#!/bin/sh\nexit 0\n", "machineid did not write it");

    // A link stays one; what it leads to is changed, and kept beside it as it was.
    let real = home.join("dotfiles/claude.json");
    let link = home.join(".claude/settings.json");
    std::fs::create_dir_all(real.parent().unwrap()).unwrap();
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::fs::write(&real, "{\"model\": \"opus\"}\n").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert_eq!(at_home(home, &["hook", "install", "claude-code"]).ran().code, 0);
    assert!(link.symlink_metadata().unwrap().is_symlink());
    let changed = std::fs::read_to_string(&real).unwrap();
    assert!(changed.contains("\"model\": \"opus\"") && changed.contains("hook claude-code"), "{changed}");
    let copy = home.join("dotfiles/claude.json.before-machineid");
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "{\"model\": \"opus\"}\n");

    let settings = home.join(".gemini/settings.json");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(&settings, "{}\n").unwrap();
    let mode = |mode| std::fs::set_permissions(&settings, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o444);
    let ran = at_home(home, &["hook", "install", "gemini-cli"]).ran();
    assert!(ran.code == 1 && ran.err.contains("is read-only; nothing was changed; make it writable"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), "{}\n");
    mode(0o644);
    assert_eq!(at_home(home, &["hook", "install", "gemini-cli"]).ran().code, 0);
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
