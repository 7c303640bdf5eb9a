use serde_json::Value;

use super::*;

const ALL_SCOPES: [Scope; 3] = [Scope::Project, Scope::User, Scope::Managed];

fn command(agent: Agent) -> HookCommand {
    HookCommand { program: "/usr/bin/machineid".into(), agent, socket: None, device: None, timeout: None }
}

fn answers(agent: Agent) -> [Reply; 3] {
    let verdicts = [Verdict::Allowed, Verdict::denied("DEVICE_REVOKED: why"), Verdict::undecided("no daemon")];
    verdicts.map(|verdict| agent.form().answer(&verdict))
}

fn json(reply: &Reply) -> Value {
    serde_json::from_str(&reply.stdout).unwrap()
}

#[test]
fn each_agent_is_known_by_its_name() {
    for agent in Agent::ALL {
        assert_eq!(agent.name().parse(), Ok(agent));
    }
    assert!("claude".parse::<Agent>().is_err());
}

#[test]
fn a_yes_is_silent_where_the_agent_wants_none() {
    for agent in Agent::ALL {
        let [yes, ..] = answers(agent);
        let wanted = [(Agent::Cline, "{\"cancel\":false}\n"), (Agent::Cursor, "{}\n")];
        let said = wanted.iter().find(|(known, _)| *known == agent).map_or("", |(_, said)| *said);
        assert_eq!((yes.stdout.as_str(), yes.stderr.as_str(), yes.exit), (said, "", 0), "{agent}");
        assert!(!yes.blocks(agent), "{agent}");
    }
}

#[test]
fn each_no_is_one_to_its_agent_and_has_its_reason_on_stderr() {
    for agent in Agent::ALL {
        let [_, denied, undecided] = answers(agent);
        for (no, why) in [(denied, "DEVICE_REVOKED: why"), (undecided, "no daemon")] {
            assert!(no.blocks(agent) && no.stderr.contains(why) && no.stderr.ends_with('\n'), "{agent}: {no:?}");
            assert!(
                no.stdout.is_empty() || serde_json::from_str::<Value>(&no.stdout).is_ok_and(|json| json.is_object())
            );
        }
    }
}

#[test]
fn claude_and_qwen_are_told_to_deny_and_to_end_the_session() {
    for agent in [Agent::ClaudeCode, Agent::QwenCode, Agent::ClaudeAgentSdk] {
        let [_, denied, undecided] = answers(agent);
        assert_eq!((denied.exit, undecided.exit), (2, 2));
        let (denied, undecided) = (json(&denied), json(&undecided));
        for no in [&denied, &undecided] {
            let specific = &no["hookSpecificOutput"];
            assert_eq!(
                (&specific["hookEventName"], &specific["permissionDecision"]),
                (&"PreToolUse".into(), &"deny".into())
            );
            assert!(!specific["permissionDecisionReason"].as_str().unwrap().is_empty());
        }
        assert_eq!(denied["continue"], false);
        assert!(denied["stopReason"].as_str().unwrap().contains("DEVICE_REVOKED"));
        assert!(undecided.get("continue").is_none() && undecided.get("stopReason").is_none());
    }
}

#[test]
fn codex_is_told_by_stderr_and_exit_code_alone() {
    let [_, denied, undecided] = answers(Agent::Codex);
    for no in [denied, undecided] {
        assert_eq!((no.stdout.as_str(), no.exit), ("", 2));
    }
}

#[test]
fn gemini_is_told_to_deny_and_to_end_the_session() {
    let [_, denied, undecided] = answers(Agent::GeminiCli);
    assert_eq!((denied.exit, undecided.exit), (2, 2));
    let (denied, undecided) = (json(&denied), json(&undecided));
    assert_eq!((&denied["decision"], &denied["continue"]), (&"deny".into(), &false.into()));
    assert!(!denied["reason"].as_str().unwrap().is_empty() && denied["stopReason"] == denied["reason"]);
    assert!(undecided["decision"] == "deny" && undecided.get("continue").is_none());
}

#[test]
fn those_that_take_exit_codes_for_a_broken_hook_are_told_by_json_and_0() {
    for (agent, field, no) in [
        (Agent::Copilot, "permissionDecision", Value::from("deny")),
        (Agent::MistralVibe, "decision", "deny".into()),
        (Agent::Cline, "cancel", true.into()),
        (Agent::Cursor, "permission", "deny".into()),
    ] {
        let [_, denied, undecided] = answers(agent);
        for reply in [denied, undecided] {
            assert_eq!((reply.exit, &json(&reply)[field]), (0, &no), "{agent}");
        }
    }
    assert!(json(&answers(Agent::Copilot)[1])["permissionDecisionReason"].as_str().unwrap().contains("why"));
    assert!(json(&answers(Agent::MistralVibe)[1])["reason"].as_str().unwrap().contains("why"));
    assert!(json(&answers(Agent::Cline)[1])["errorMessage"].as_str().unwrap().contains("why"));
}

#[test]
fn our_plugins_end_the_session_on_a_deny_alone() {
    for agent in [Agent::Opencode, Agent::Pi] {
        let [_, denied, undecided] = answers(agent);
        assert_eq!((json(&denied)["end"].clone(), json(&undecided)["end"].clone()), (true.into(), false.into()));
        assert_eq!((denied.exit, undecided.exit), (2, 2));
    }
}

#[test]
fn each_setting_holds_what_must_stand_beside_the_hook() {
    let text = |agent: Agent, scope| {
        let Kind::Files(files) = agent.form().kind else { panic!("{agent}") };
        let targets = files(scope, &command(agent));
        (!targets.is_empty()).then(|| targets.iter().map(|target| target.content.fragment(agent)).collect::<String>())
    };
    let value = |agent, scope| serde_json::from_str::<Value>(&text(agent, scope).unwrap()).unwrap();
    let hook = |agent: Agent, scope, event: &str| value(agent, scope)["hooks"][event][0]["hooks"][0].clone();
    for scope in ALL_SCOPES {
        let claude = hook(Agent::ClaudeCode, scope, "PreToolUse");
        assert_eq!((&claude["onFailure"], &claude["timeout"]), (&"block".into(), &15.into()));
        assert_eq!(hook(Agent::GeminiCli, scope, "BeforeTool")["timeout"], 15_000);
        assert_eq!(hook(Agent::QwenCode, scope, "PreToolUse")["timeout"], 15_000);
    }
    for event in ["PreToolUse", "UserPromptSubmit"] {
        assert_eq!(hook(Agent::Codex, Scope::User, event)["timeout"], 15);
    }
    let names: Vec<String> = value(Agent::Codex, Scope::User).as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["hooks"], "codex refuses a file with anything else");
    let managed = text(Agent::Codex, Scope::Managed).unwrap();
    for line in [
        "[features]",
        "hooks = true",
        "[[hooks.PreToolUse]]",
        "[[hooks.PreToolUse.hooks]]",
        "[[hooks.UserPromptSubmit]]",
    ] {
        assert!(managed.lines().any(|found| found == line), "{line}: {managed}");
    }
    assert_eq!(value(Agent::GeminiCli, Scope::Managed)["hooksConfig"]["enabled"], true);
    assert_eq!(value(Agent::QwenCode, Scope::Managed)["disableAllHooks"], false);
    let vibe = text(Agent::MistralVibe, Scope::User).unwrap();
    assert!(
        vibe.contains("[[hooks]]") && vibe.contains("strict = true") && vibe.contains("type = \"pre_tool\""),
        "{vibe}"
    );
    assert_eq!(value(Agent::Copilot, Scope::User)["hooks"]["preToolUse"][0]["timeoutSec"], 15);
    assert_eq!(value(Agent::Cursor, Scope::User)["hooks"]["preToolUse"][0]["failClosed"], true);
    assert!(text(Agent::Cline, Scope::User).unwrap().starts_with("#!/bin/sh\n"));
    for agent in [Agent::Copilot, Agent::MistralVibe, Agent::Cline, Agent::Opencode, Agent::Pi] {
        assert_eq!(text(agent, Scope::Managed), None, "{agent}");
    }
}

#[test]
fn a_program_with_a_hook_of_its_own_is_shown_one() {
    for agent in [Agent::ClaudeAgentSdk, Agent::OpenaiAgents] {
        let Kind::InProgram(snippet) = agent.form().kind else { panic!("{agent}") };
        let text = snippet(&command(agent));
        assert!(text.contains(&format!("[\"/usr/bin/machineid\",\"hook\",\"{agent}\"]")), "{text}");
    }
    assert!(matches!(Agent::Cn.form().kind, Kind::Unsupported(why) if why.contains("no hook")));
}

#[test]
fn codex_runs_a_hook_only_as_it_was_trusted() {
    // As codex 0.171.0 wrote it down for these lines.
    let hashes = [
        ("pre_tool_use", "sha256:11653e467c1ff2763654d0c22a9dcf8bd46ceb26a914c4c8f306331f4773edad"),
        ("user_prompt_submit", "sha256:15921e15bc42f70e552d655739087ab0a096c506d6b4b9d1f2d74512d28f1a64"),
    ];
    let line = command(Agent::Codex).line();
    let config = |change: &dyn Fn(&str, &mut Value)| {
        let states = hashes.map(|(event, hash)| {
            let mut state = serde_json::json!({ "trusted_hash": hash });
            change(event, &mut state);
            (format!("/h/.codex/hooks.json:{event}:0:0"), state)
        });
        serde_json::json!({ "hooks": { "state": serde_json::Map::from_iter(states) } })
    };
    let skips = |config: &Value| codex_skips(config, "/h/.codex/hooks.json", &line);
    assert_eq!(skips(&config(&|_, _| ())), None);
    assert!(skips(&Value::Null).unwrap().contains("does not trust it"));
    assert!(skips(&config(&|_, state| state["enabled"] = false.into())).unwrap().contains("disabled"));
    for one in ["pre_tool_use", "user_prompt_submit"] {
        let changed = config(&|event, state| {
            if event == one {
                state["trusted_hash"] = "sha256:00".into();
            }
        });
        assert!(skips(&changed).unwrap().contains("an earlier form"), "{one}");
    }
    assert!(codex_skips(&config(&|_, _| ()), "/other/hooks.json", &line).is_some());
}
