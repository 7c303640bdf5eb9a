//! The question to the daemon as HTTP/1.0, and its answer.
//!
//! HTTP/1.0 and no HTTP library: a hook is started before each tool call, and a runtime with its client would be most of its
//! time.

use std::fmt::Write as _;
use std::time::Duration;

use machineid_protocol::http_head::{end_of_head, status_of};
use machineid_protocol::local::{CheckAnswer, CheckVerdict};
use machineid_protocol::{DeviceId, span};

use super::Verdict;

/// The longest answer that is read, in bytes.
pub const LONGEST: usize = 64 * 1024;

/// The question: whether the calling agent may run, and this device, when one is named. The daemon is told to answer within
/// this time: what it then says about the cause is better than silence.
#[must_use]
pub fn question(device: Option<&DeviceId>, within: Duration) -> Vec<u8> {
    let mut target = format!("/v1/check?timeout={}", span::format(within));
    if let Some(device) = device {
        target.push_str("&device=");
        for byte in device.as_str().bytes() {
            if byte.is_ascii_alphanumeric() {
                target.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(target, "%{byte:02X}");
            }
        }
    }
    format!("GET {target} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The verdict of a whole answer.
#[must_use]
pub fn verdict(answer: &[u8]) -> Verdict {
    if answer.is_empty() {
        return Verdict::undecided("the daemon closed the connection without an answer; its log says why");
    }
    if answer.len() > LONGEST {
        return Verdict::undecided("the answer on the socket is too long to be the daemon's");
    }
    let parts = end_of_head(answer).and_then(|(end, start)| Some((status_of(&answer[..end])?, &answer[start..])));
    let read = parts.and_then(|(status, body)| Some((status, serde_json::from_slice::<CheckAnswer>(body).ok()?)));
    let Some((status, answer)) = read else {
        return Verdict::undecided("what listens on the socket did not answer like machineid-sidecar");
    };
    match answer.verdict(status) {
        CheckVerdict::Allowed => Verdict::Allowed,
        CheckVerdict::Denied => Verdict::denied(&told(&answer)),
        CheckVerdict::Undecided | CheckVerdict::Malformed => Verdict::undecided(&told(&answer)),
    }
}

/// What the daemon says of its answer, as in `DEVICE_REVOKED (device agent:1, request r-1): the reason`.
fn told(answer: &CheckAnswer) -> String {
    let device = answer.device_id.iter().map(|device| format!("device {device}"));
    let request = answer.request_id.iter().map(|id| format!("request {id}"));
    let details: Vec<String> = device.chain(request).collect();
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
    let reason = answer.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{details}{reason}", answer.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: &str = r#"{"allowed":true,"code":"ALLOW","request_id":"r-1","device_id":"host:a","validated_at":null,"age_ms":1,"reason":null}"#;
    const DENY: &str = r#"{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-2","device_id":"host:a","validated_at":null,"age_ms":null,"reason":"why"}"#;

    fn answer(status: &str, body: &str) -> Verdict {
        verdict(format!("HTTP/1.0 {status}\r\ncontent-type: application/json\r\n\r\n{body}").as_bytes())
    }

    #[test]
    fn the_question_names_the_device_and_the_time() {
        let device: DeviceId = "worker:1/a@b".parse().unwrap();
        let text = String::from_utf8(question(Some(&device), Duration::from_millis(1_800))).unwrap();
        assert!(text.starts_with("GET /v1/check?timeout=1s800ms&device=worker%3A1%2Fa%40b HTTP/1.0\r\n"), "{text}");
        let text = String::from_utf8(question(None, Duration::from_secs(2))).unwrap();
        assert!(text.starts_with("GET /v1/check?timeout=2s HTTP/1.0\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn nothing_but_a_whole_allow_is_a_yes() {
        assert_eq!(answer("200 OK", ALLOW), Verdict::Allowed);
        let deny = Verdict::denied("DEVICE_REVOKED (device host:a, request r-2): why");
        assert_eq!(answer("403 Forbidden", DENY), deny);
        for (status, body) in [
            ("403 Forbidden", ALLOW),
            ("503 Service Unavailable", ALLOW),
            ("503 Service Unavailable", DENY),
            ("200 OK", DENY),
            ("400 Bad Request", DENY),
            ("200 OK", "{}"),
            ("200 OK", ""),
            ("200 OK", &ALLOW[..80]),
            ("2000 OK", ALLOW),
        ] {
            assert!(matches!(answer(status, body), Verdict::Undecided(_)), "{status} {body}");
        }
        for bytes in ["", "SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", ALLOW] {
            assert!(matches!(verdict(bytes.as_bytes()), Verdict::Undecided(_)), "{bytes}");
        }
        let long = format!("HTTP/1.0 200 OK\r\n\r\n{ALLOW}{}", " ".repeat(LONGEST));
        assert!(matches!(verdict(long.as_bytes()), Verdict::Undecided(_)));
    }
}
