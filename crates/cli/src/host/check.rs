//! `machineid check`: asks the daemon whether this device may run now.

use machineid_protocol::local::{CheckAnswer, CheckVerdict};
use machineid_protocol::{Code, Exit, span};

use super::socket;
use crate::args::CheckArgs;
use crate::printer::{Colour, Line, Printer};
use crate::problem::Problem;
use crate::{Env, words};

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
    let verdict = said.verdict(answer.status);
    if args.json {
        printer.json(&said);
    } else if !args.quiet {
        printer.line(sentence(verdict, &said));
    }
    Ok(match verdict {
        CheckVerdict::Allowed => Exit::Success,
        CheckVerdict::Denied => Exit::Denied,
        CheckVerdict::Undecided => Exit::Undecided,
        CheckVerdict::Malformed => Exit::Usage,
    })
}

fn sentence(verdict: CheckVerdict, said: &CheckAnswer) -> Line {
    let (word, colour) = match verdict {
        CheckVerdict::Allowed => ("allowed", Colour::Good),
        CheckVerdict::Denied => ("denied", Colour::Bad),
        CheckVerdict::Undecided => ("could not find out", Colour::Unclear),
        CheckVerdict::Malformed => ("malformed question", Colour::Unclear),
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
