//! What an agent says to its hook before a tool call: one JSON object on stdin.

use serde::de::IgnoredAny;

/// The largest event that is read, in bytes. An event contains the arguments of a tool call, also the text of a file that is
/// written.
pub const LONGEST: usize = 8 * 1024 * 1024;

/// Why an event cannot be understood. The call is then blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Longer than [`LONGEST`].
    #[error("the agent's event is longer than {} MiB", LONGEST / 1024 / 1024)]
    TooLong,
    /// Nothing was said.
    #[error("the agent sent no event")]
    Empty,
    /// It is not one JSON object.
    #[error("the agent's event is not a JSON object")]
    NotAnObject,
}

/// Checks that this is an event. What it says is not used: the question is whether the agent may run, not what it does. But
/// what is no event does not come from an agent that would understand the answer.
pub fn check(bytes: &[u8]) -> Result<(), EventError> {
    if bytes.len() > LONGEST {
        return Err(EventError::TooLong);
    }
    if bytes.trim_ascii().is_empty() {
        return Err(EventError::Empty);
    }
    // Strings that are skipped are not looked into.
    let text = std::str::from_utf8(bytes).map_err(|_| EventError::NotAnObject)?;
    if !text.trim_start().starts_with('{') {
        return Err(EventError::NotAnObject);
    }
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|_| EventError::NotAnObject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_of_each_agent_is_one() {
        for text in [
            r#"{"session_id":"s","hook_event_name":"PreToolUse","tool_name":"Bash","tool_input":{"command":"ls"}}"#,
            r#"{"hookName":"tool_call","hookEventName":"x","hook_event_name":"y"}"#,
            " {\"toolName\":\"bash\",\"toolArgs\":\"{}\"}\n",
            "{}",
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for (bytes, error) in [
            (&b""[..], EventError::Empty),
            (b" \n", EventError::Empty),
            (b"[]", EventError::NotAnObject),
            (b"null", EventError::NotAnObject),
            (b"{\"a\":", EventError::NotAnObject),
            (b"{} {}", EventError::NotAnObject),
            (b"{\"a\":\"\xff\"}", EventError::NotAnObject),
            (b"hello", EventError::NotAnObject),
        ] {
            assert_eq!(check(bytes), Err(error), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(check(&vec![b' '; LONGEST + 1]), Err(EventError::TooLong));
        let deep = "[".repeat(1_000_000);
        assert_eq!(check(format!("{{\"a\":{deep}").as_bytes()), Err(EventError::NotAnObject));
    }
}
