//! `machineid adopt`: puts a process that runs already under supervision.

use std::time::Duration;

use machineid_protocol::code::CodeKind;
use machineid_protocol::local::{AdoptAnswer, AdoptRequest, CheckAnswer};
use machineid_protocol::{Code, Exit};

use super::socket;
use crate::Env;
use crate::args::AdoptArgs;
use crate::printer::Printer;
use crate::problem::Problem;
use crate::words::count;

/// The daemon asks the authority first.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) async fn run(args: &AdoptArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let request = AdoptRequest {
        pid: args.pid,
        device: args.device.clone(),
        name: args.name.clone(),
        stop_signal: None,
        stop_grace: None,
    };
    let answer = socket::post(&args.socket, env, "/v1/adopt", &request, TIMEOUT).await.map_err(Problem::undecided)?;
    if answer.status == 200
        && let Ok(adopted) = serde_json::from_slice::<AdoptAnswer>(&answer.body)
    {
        if args.json {
            printer.json(&adopted);
        } else {
            let processes = count(adopted.processes, "process", "processes");
            let AdoptAnswer { run_id, device_id, pid, containment, containment_reason, .. } = adopted;
            printer.line(format!("{pid}  adopted as {device_id}, run {run_id}: {processes}"));
            printer.line(format!("    {containment}: {containment_reason}"));
        }
        return Ok(Exit::Success);
    }
    Err(match serde_json::from_slice::<CheckAnswer>(&answer.body) {
        Ok(said) => {
            let exit = exit_of(&said.code);
            let code = said.code;
            let text = said.reason.unwrap_or_else(|| format!("the daemon refused: {code}"));
            let text = if exit == Exit::Denied { format!("denied, nothing was adopted: {code}: {text}") } else { text };
            Problem { text, exit }
        }
        Err(_) => Problem::undecided(format!(
            "what listens on {} did not answer like machineid-sidecar (HTTP {}); is it another program's socket, or an older \
             daemon?",
            answer.socket.display(),
            answer.status
        )),
    })
}

/// A refusal of the process is a failure, a deny of the device is a deny.
fn exit_of(code: &Code) -> Exit {
    if matches!(code, Code::PidNotPermitted | Code::DeviceNotPermitted) {
        return Exit::Failure;
    }
    match code.kind() {
        CodeKind::Malformed => Exit::Failure,
        CodeKind::Undecided => Exit::Undecided,
        CodeKind::Allow | CodeKind::Deny | CodeKind::Unknown => Exit::Denied,
    }
}
