//! The one place that turns an HTTP answer into a decision.
//!
//! An ALLOW must have exactly one form. A deny may come with any status. Any other answer is [`Unusable`], which the
//! gate treats like a network failure: never as a yes.

use std::fmt;

use serde_json::Value;

use super::code::CodeKind;
use super::{Code, DeviceId, RequestId, strict_json};

/// An authority's answer about one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The device may execute.
    Allow {
        /// `ALLOW`, or a code of a newer version.
        code: Code,
        /// The authority's id of this answer.
        request_id: Option<RequestId>,
    },
    /// The device may not execute.
    Deny(Denial),
}

/// A decision against execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The reason; `UNSPECIFIED` when the authority gave no code.
    pub code: Code,
    /// The authority's id of this answer.
    pub request_id: Option<RequestId>,
    /// The authority's reason as text, for display.
    pub reason: Option<String>,
    /// The revoke of the device that the authority knows of, as an opaque stamp. It is only ever sent back to the
    /// authority.
    pub revoked_at: Option<String>,
}

impl Denial {
    /// A deny made on this host.
    #[must_use]
    pub fn local(code: Code, reason: impl Into<String>) -> Self {
        Self { code, request_id: None, reason: Some(reason.into()), revoked_at: None }
    }
}

/// The parts of an HTTP response head that matter to a decision.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head<'a> {
    /// The status.
    pub status: u16,
    /// `Content-Type`, if there is exactly one.
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`, if there is one.
    pub content_encoding: Option<&'a str>,
    /// `Age`, if there is one: above 0, a cache answered.
    pub age: Option<&'a str>,
    /// `x-machineid-undecided`, if there is one: `1` marks an answer that is no decision.
    pub undecided: Option<&'a str>,
}

/// Why a response is no decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The status is not 200 and the body is no deny.
    Status(u16),
    /// The body is not declared as JSON in UTF-8.
    NotJson,
    /// The body is compressed although the request did not accept that.
    Encoded,
    /// The body is not one complete JSON object without duplicate keys.
    Malformed,
    /// `allowed` is missing or not a boolean.
    NoAnswer,
    /// `code` is missing or no string beside `allowed: true`, or is the code of a deny.
    Contradictory,
    /// The answer is about another device.
    OtherDevice,
    /// The answer comes from a cache.
    Stale,
    /// The authority marks its answer as no decision.
    Undecided,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the authority answered HTTP {status} without a decision"),
            Self::NotJson => f.write_str("the authority's answer is not JSON (is this the right URL?)"),
            Self::Encoded => f.write_str("the authority's answer is compressed"),
            Self::Malformed => f.write_str("the authority's answer is not one complete JSON object"),
            Self::NoAnswer => f.write_str("the authority's answer has no boolean \"allowed\""),
            Self::Contradictory => f.write_str(
                "the authority's answer contradicts itself: allowed, but its code or its head says otherwise",
            ),
            Self::OtherDevice => f.write_str("the authority answered about another device"),
            Self::Stale => f.write_str("the authority's answer comes from a cache"),
            Self::Undecided => f.write_str("the authority could not complete a decision (SYSTEM_UNAVAILABLE)"),
        }
    }
}

impl std::error::Error for Unusable {}

/// The only valid value of the mark.
const MARK: &str = "1";

/// The longest reason kept, in characters.
const LONGEST_REASON: usize = 300;

/// Reads the answer to a validation of `asked`.
///
/// Fails with [`Unusable`] on everything that is neither an ALLOW in its exact form nor a deny. `SYSTEM_UNAVAILABLE` is a
/// deny unless the authority marks its answer as no decision: then it is [`Unusable::Undecided`].
pub fn read(head: &Head<'_>, body: &[u8], asked: &DeviceId) -> Result<Decision, Unusable> {
    let not_ok = |otherwise| if head.status == 200 { otherwise } else { Unusable::Status(head.status) };
    if !is_json_utf8(head.content_type) {
        return Err(not_ok(Unusable::NotJson));
    }
    if head.content_encoding.is_some_and(|encoding| !encoding.trim().eq_ignore_ascii_case("identity")) {
        return Err(not_ok(Unusable::Encoded));
    }
    let Ok(Value::Object(object)) = strict_json::from_slice(body) else {
        return Err(not_ok(Unusable::Malformed));
    };
    match object.get("deviceId") {
        None | Some(Value::Null) => {}
        Some(Value::String(id)) if id == asked.as_str() => {}
        Some(_) => return Err(not_ok(Unusable::OtherDevice)),
    }
    let code = object.get("code");
    let request_id = object.get("request_id").and_then(Value::as_str).and_then(RequestId::from_foreign);
    match object.get("allowed") {
        Some(Value::Bool(false)) if head.undecided == Some(MARK) && is_system_unavailable(code) => {
            Err(Unusable::Undecided)
        }
        Some(Value::Bool(false)) => Ok(Decision::Deny(Denial {
            code: code.and_then(Value::as_str).map_or(Code::Unspecified, deny_code),
            request_id,
            reason: object.get("reason").and_then(Value::as_str).map(printable_reason),
            revoked_at: object.get("revokedAt").and_then(Value::as_str).and_then(stamp),
        })),
        Some(Value::Bool(true)) => {
            if head.status != 200 {
                return Err(Unusable::Status(head.status));
            }
            if head.age.is_some_and(|age| age.trim().bytes().any(|digit| digit != b'0') || age.trim().is_empty()) {
                return Err(Unusable::Stale);
            }
            // Whatever its value: "allowed" and "no decision" cannot both be true.
            if head.undecided.is_some() {
                return Err(Unusable::Contradictory);
            }
            let code = Code::from(code.and_then(Value::as_str).ok_or(Unusable::Contradictory)?);
            match code.kind() {
                CodeKind::Allow | CodeKind::Unknown => Ok(Decision::Allow { code, request_id }),
                CodeKind::Deny | CodeKind::Undecided | CodeKind::Malformed => Err(Unusable::Contradictory),
            }
        }
        _ => Err(not_ok(Unusable::NoAnswer)),
    }
}

/// The mark is accepted for this one code. Beside any other code it could turn a deny into an outage.
fn is_system_unavailable(code: Option<&Value>) -> bool {
    code.and_then(Value::as_str) == Some(Code::SystemUnavailable.as_str())
}

/// `{"allowed":false,"code":"ALLOW"}` is a deny, and must not print as an ALLOW.
fn deny_code(text: &str) -> Code {
    let code = Code::from(text);
    if code.kind() == CodeKind::Allow { Code::Unspecified } else { code }
}

fn printable_reason(text: &str) -> String {
    crate::printable::printable(text, ' ').take(LONGEST_REASON).collect()
}

/// Returns a stamp if it is short and made of visible characters, fit to be sent back.
fn stamp(text: &str) -> Option<String> {
    let fit = (1..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    fit.then(|| text.to_owned())
}

fn is_json_utf8(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return false };
    let mut parts = content_type.split(';').map(str::trim);
    let json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
