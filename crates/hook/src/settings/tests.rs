use serde_json::json;

use super::*;
use crate::agents::{Kind, Scope};
use crate::command::HookCommand;

fn content(agent: Agent, scope: Scope) -> Content {
    let program = "/usr/bin/machineid".into();
    let command = HookCommand { program, agent, socket: None, device: None, timeout: None };
    let Kind::Files(files) = agent.form().kind else { panic!("{agent}") };
    files(scope, &command).remove(0).content
}

/// Settings with comments, in an order and a spacing of a person's.
const HANDMADE: &str = r#"// mine
{
    "model":   "opus", /* the large one */
    "hooks": {
        "PreToolUse": [
            { "matcher": "Bash", "hooks": [ { "type": "command", "command": "/opt/other --check" } ] },
        ],
        "Stop": [],
    },
    "permissions": { "allow": ["Bash(ls:*)"], },
}
"#;

#[test]
fn all_that_is_not_ours_stays_and_a_second_time_changes_nothing() {
    let claude = content(Agent::ClaudeCode, Scope::User);
    let with = claude.install(HANDMADE, Agent::ClaudeCode).unwrap();
    for line in HANDMADE.lines() {
        assert!(with.contains(line.trim_end_matches(',')), "{line} in {with}");
    }
    assert_eq!(claude.find(&with, Agent::ClaudeCode), Ok(Found::Armed));
    assert_eq!(claude.install(&with, Agent::ClaudeCode).unwrap(), with);
    assert_eq!(claude.find(HANDMADE, Agent::ClaudeCode), Ok(Found::Missing));
    assert_eq!(claude.restore(&with, Some(HANDMADE), Agent::ClaudeCode).unwrap().unwrap(), HANDMADE);
    let without = claude.uninstall(&with, Agent::ClaudeCode).unwrap().unwrap();
    assert_eq!(json::value(&without), json::value(HANDMADE));
}

#[test]
fn what_was_changed_since_is_kept_when_the_hook_goes() {
    let claude = content(Agent::ClaudeCode, Scope::User);
    let with = claude.install(HANDMADE, Agent::ClaudeCode).unwrap().replace("opus", "haiku");
    let without = claude.restore(&with, Some(HANDMADE), Agent::ClaudeCode).unwrap().unwrap();
    assert!(
        without.contains("haiku") && without.contains("/opt/other --check") && !without.contains("machineid"),
        "{without}"
    );
}

#[test]
fn an_older_hook_of_ours_is_replaced_and_a_shared_group_keeps_the_others() {
    let claude = content(Agent::ClaudeCode, Scope::User);
    let old = r#"{"hooks":{"PreToolUse":[{"hooks":[{"type":"command","command":"/old/machineid hook claude-code"},{"type":"command","command":"/opt/other"}]},{"hooks":[{"type":"command","command":"/older/machineid hook claude-code","timeout":1}]}]}}"#;
    assert!(matches!(claude.find(old, Agent::ClaudeCode), Ok(Found::Differs(_))));
    let with = claude.install(old, Agent::ClaudeCode).unwrap();
    assert_eq!(claude.find(&with, Agent::ClaudeCode), Ok(Found::Armed), "{with}");
    assert!(with.contains("/opt/other") && !with.contains("/old"), "{with}");
}

#[test]
fn a_hook_that_lacks_what_must_stand_beside_it_is_told() {
    let claude = content(Agent::ClaudeCode, Scope::User);
    let with = claude.install("", Agent::ClaudeCode).unwrap();
    let weak = with.replace("\"onFailure\": \"block\"", "\"onFailure\": \"continue\"");
    assert_ne!(weak, with);
    let Ok(Found::Differs(why)) = claude.find(&weak, Agent::ClaudeCode) else { panic!("{weak}") };
    assert!(why.contains("onFailure is not \"block\""), "{why}");
    let gemini = content(Agent::GeminiCli, Scope::Managed);
    let off = gemini.install("", Agent::GeminiCli).unwrap().replace("\"enabled\": true", "\"enabled\": false");
    let Ok(Found::Differs(why)) = gemini.find(&off, Agent::GeminiCli) else { panic!("{off}") };
    assert!(why.contains("hooksConfig.enabled is not true"), "{why}");
}

#[test]
fn a_file_that_is_all_ours_goes_with_the_hook() {
    for (agent, scope) in [
        (Agent::ClaudeCode, Scope::User),
        (Agent::Codex, Scope::User),
        (Agent::Codex, Scope::Managed),
        (Agent::GeminiCli, Scope::Managed),
        (Agent::QwenCode, Scope::Managed),
        (Agent::Copilot, Scope::User),
        (Agent::MistralVibe, Scope::User),
        (Agent::Cursor, Scope::Managed),
        (Agent::Cline, Scope::User),
        (Agent::Opencode, Scope::User),
        (Agent::Pi, Scope::User),
    ] {
        let content = content(agent, scope);
        let with = content.install("", agent).unwrap();
        assert_eq!(content.find(&with, agent), Ok(Found::Armed), "{agent}: {with}");
        assert_eq!(content.install(&with, agent).unwrap(), with, "{agent}");
        assert_eq!(content.installed(&with, agent).unwrap().program.to_str(), Some("/usr/bin/machineid"), "{agent}");
        assert_eq!(content.installed("", agent), None);
        assert_eq!(content.uninstall(&with, agent), Ok(None), "{agent}: {with}");
    }
}

#[test]
fn toml_keeps_its_comments_and_the_hooks_of_others() {
    let vibe = content(Agent::MistralVibe, Scope::User);
    let old = "# mine\n[[hooks]]\nname  = \"lint\" # each turn\ntype = \"post_agent\"\ncommand = \"eslint .\"\n";
    let with = vibe.install(old, Agent::MistralVibe).unwrap();
    assert!(with.starts_with(old) && vibe.find(&with, Agent::MistralVibe) == Ok(Found::Armed), "{with}");
    assert_eq!(vibe.install(&with, Agent::MistralVibe).unwrap(), with);
    assert_eq!(vibe.uninstall(&with, Agent::MistralVibe).unwrap().unwrap(), old);
    let codex = content(Agent::Codex, Scope::Managed);
    let old = "allowed_approval_policies = [\"never\"]\n\n[features]\nhooks = false # off\nother = true\n";
    let with = codex.install(old, Agent::Codex).unwrap();
    assert!(with.contains("hooks = true # off\nother = true") && with.starts_with("allowed_approval"), "{with}");
    assert_eq!(codex.find(&with, Agent::Codex), Ok(Found::Armed), "{with}");
    assert_eq!(codex.restore(&with, Some(old), Agent::Codex).unwrap().unwrap(), old);
}

#[test]
fn what_is_not_understood_is_refused() {
    let claude = content(Agent::ClaudeCode, Scope::User);
    let refused = |text: &str| claude.install(text, Agent::ClaudeCode).unwrap_err();
    for text in ["not json", "{", "{\"a\":1,}}", "{'a':1}", "{\"a\" 1}", "\u{feff}x"] {
        assert!(matches!(refused(text), SettingsError::Syntax { .. }), "{text}");
    }
    for text in ["[]", "7", "{\"hooks\":[]}", "{\"hooks\":{\"PreToolUse\":{}}}", "{\"hooks\":null}"] {
        assert!(matches!(refused(text), SettingsError::Shape { .. }), "{text}");
    }
    assert!(matches!(refused("{\"hooks\":{},\"hooks\":{}}"), SettingsError::Twice { .. }));
    assert_eq!(refused(&format!("{{\"a\":{}", "[".repeat(100_000))), SettingsError::TooDeep);
    let vibe = content(Agent::MistralVibe, Scope::User);
    for text in ["hooks = 7", "hooks = [{ name = \"x\" }]", "[hooks]\na = 1", "= 1"] {
        assert!(vibe.install(text, Agent::MistralVibe).is_err(), "{text}");
    }
    let pi = content(Agent::Pi, Scope::User);
    assert_eq!(pi.install("export default 1", Agent::Pi), Err(SettingsError::Foreign));
    assert_eq!(pi.uninstall("export default 1", Agent::Pi), Err(SettingsError::Foreign));
}

proptest::proptest! {
    #[test]
    fn any_text_is_refused_or_keeps_all_else(text in "[\\[\\]{}\":, a-z/*\\\\0-9\n]{0,60}") {
        let claude = content(Agent::ClaudeCode, Scope::User);
        if let Ok(with) = claude.install(&text, Agent::ClaudeCode) {
            proptest::prop_assert_eq!(claude.find(&with, Agent::ClaudeCode), Ok(Found::Armed));
            let mut left = json::value(&with).unwrap();
            let mut right = json::value(&text).unwrap();
            for value in [&mut left, &mut right] {
                value.as_object_mut().unwrap().remove("hooks");
            }
            proptest::prop_assert_eq!(left, right);
        }
    }
}

#[test]
fn switches_alone_are_told_from_settings_of_others() {
    let edits = [Edit::Switch { path: vec!["a", "b"], value: json!(true) }];
    assert_eq!(switches_alone(&edits), json!({ "a": { "b": true } }));
}
