//! The form of settings that Claude Code began: events with groups, and each group with hooks.

use serde_json::{Value, json};

use crate::settings::Edit;

/// How long an agent waits for the hook, in seconds: far above the hook's own deadline, far below what a person would wait.
pub(super) const PATIENCE: u32 = 15;

/// A group with our hook for the calls of all tools.
pub(super) fn group(hook: &Value) -> Value {
    json!({ "hooks": [hook] })
}

/// Our hook in the list of one event.
pub(super) fn entry(event: &'static str, hook: &Value) -> Edit {
    Edit::Entry { path: vec!["hooks", event], value: group(hook) }
}
