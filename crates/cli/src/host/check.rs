//! `machineid check`: asks the daemon whether this device may run now.

use machineid_protocol::code::CodeKind;
use machineid_protocol::local::CheckAnswer;
use machineid_protocol::{Code, Exit, span};

use super::socket;
use crate::args::CheckArgs;
use crate::printer::{Colour, Line, Printer};
use crate::problem::Problem;
use crate::{Env, words};

/// The meaning of an answer. Only one form allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Denied,
    Undecided,
    Malformed,
}

pub(crate) async fn run(args: &CheckArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let mut query = Vec::new();
    if let Some(device) = &args.device {
        query.push(("device", device.to_string()));
    }
    if let Some(age) = args.max_age {
        query.push(("max_age", span::format(age)));
    }
    let answer = match socket::get(&args.socket, env, "/v1/check", &query, args.timeout).await {
        Ok(answer) => answer,
        Err(_) if args.quiet => return Ok(Exit::Undecided),
        Err(text) => return Err(Problem::undecided(text)),
    };
    let Ok(said) = serde_json::from_slice::<CheckAnswer>(&answer.body) else {
        let text = format!(
            "what listens on {} did not answer like machineid-sidecar (HTTP {}); is it another program's socket?",
            answer.socket.display(),
            answer.status
        );
        return if args.quiet { Ok(Exit::Undecided) } else { Err(Problem::undecided(text)) };
    };
    let verdict = verdict(answer.status, &said);
    if args.json {
        printer.json(&said);
    } else if !args.quiet {
        printer.line(sentence(verdict, &said));
    }
    Ok(match verdict {
        Verdict::Allowed => Exit::Success,
        Verdict::Denied => Exit::Denied,
        Verdict::Undecided => Exit::Undecided,
        Verdict::Malformed => Exit::Usage,
    })
}

/// Status and body must agree; if they do not, the answer is malformed.
fn verdict(status: u16, said: &CheckAnswer) -> Verdict {
    match (status, said.allowed, said.code.kind()) {
        (200, true, CodeKind::Allow | CodeKind::Unknown) => Verdict::Allowed,
        (403, false, _) => Verdict::Denied,
        (400, false, _) => Verdict::Malformed,
        _ => Verdict::Undecided,
    }
}

fn sentence(verdict: Verdict, said: &CheckAnswer) -> Line {
    let (word, colour) = match verdict {
        Verdict::Allowed => ("allowed", Colour::Good),
        Verdict::Denied => ("denied", Colour::Bad),
        Verdict::Undecided => ("could not find out", Colour::Unclear),
        Verdict::Malformed => ("malformed question", Colour::Unclear),
    };
    let mut line = Line::default();
    line.push(word, Some(colour));
    let device = said.device_id.as_ref().map_or_else(String::new, |device| format!(": {device}"));
    let mut details = Vec::new();
    if said.code != Code::Allow {
        details.push(said.code.to_string());
    }
    if let Some(id) = &said.request_id {
        details.push(format!("request {id}"));
    }
    if let Some(age) = said.age_ms {
        details.push(format!("asked {} ago", words::millis(age)));
    }
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
    let reason = said.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    line.push(&format!("{device}{details}{reason}"), None);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(allowed: bool, code: Code) -> CheckAnswer {
        CheckAnswer { allowed, code, request_id: None, device_id: None, validated_at: None, age_ms: None, reason: None }
    }

    #[test]
    fn only_one_form_is_a_yes() {
        for status in [100_u16, 200, 201, 204, 302, 400, 403, 404, 500, 503] {
            for allowed in [true, false] {
                for code in Code::KNOWN.iter().cloned().chain([Code::from("NEW")]) {
                    let kind = code.kind();
                    let yes = status == 200 && allowed && matches!(kind, CodeKind::Allow | CodeKind::Unknown);
                    assert_eq!(
                        verdict(status, &said(allowed, code)) == Verdict::Allowed,
                        yes,
                        "{status} {allowed} {kind:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_deny_is_told_from_no_answer() {
        assert_eq!(verdict(403, &said(false, Code::DeviceRevoked)), Verdict::Denied);
        assert_eq!(verdict(503, &said(false, Code::SystemUnavailable)), Verdict::Undecided);
        assert_eq!(verdict(503, &said(false, Code::CheckTimeout)), Verdict::Undecided);
        assert_eq!(verdict(400, &said(false, Code::BadRequest)), Verdict::Malformed);
        assert_eq!(verdict(200, &said(false, Code::DeviceRevoked)), Verdict::Undecided);
    }
}
