//! `machineid release`, and the requests that hold and release devices on this host.

use std::time::Duration;

use machineid_protocol::local::{CheckAnswer, HoldAnswer, HoldRequest, ReleaseAnswer};
use machineid_protocol::{Code, DeviceId, Exit};
use serde::de::DeserializeOwned;

use super::{socket, status};
use crate::Env;
use crate::args::{ReleaseArgs, SocketArgs};
use crate::printer::Printer;
use crate::problem::Problem;

const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: &ReleaseArgs, env: Env<'_>, printer: &mut Printer) -> Result<Exit, Problem> {
    let request = match (&args.device, args.all) {
        (Some(device), _) => HoldRequest::Device(device.clone()),
        (None, true) => HoldRequest::All(true),
        (None, false) => HoldRequest::Device(the_one(&args.socket, env).await?),
    };
    let released: ReleaseAnswer = ask(&args.socket, env, "/v1/release", &request).await?;
    if args.json {
        printer.json(&released);
    } else {
        for device in &released.devices {
            printer.line(format!("{device}  released"));
        }
        printer.note("the authority decides about it again; what was stopped is not started by this");
    }
    Ok(Exit::Success)
}

/// The device that is held, if there is exactly one.
async fn the_one(args: &SocketArgs, env: Env<'_>) -> Result<DeviceId, Problem> {
    let (status, _) = status::ask(args, env, TIMEOUT).await.map_err(Problem::undecided)?;
    match &status.holds[..] {
        [] => Err(Problem::failure("no device is held on this host; nothing to release")),
        [held] => Ok(held.device_id.clone()),
        several => {
            let devices: Vec<&str> = several.iter().map(|held| held.device_id.as_str()).collect();
            Err(Problem::usage(format!("several devices are held: {}; say which, or --all", devices.join(", "))))
        }
    }
}

/// Sends `POST /v1/hold`.
pub(super) async fn hold(args: &SocketArgs, env: Env<'_>, request: &HoldRequest) -> Result<HoldAnswer, Problem> {
    ask(args, env, "/v1/hold", request).await
}

async fn ask<T: DeserializeOwned>(
    args: &SocketArgs,
    env: Env<'_>,
    path: &str,
    request: &HoldRequest,
) -> Result<T, Problem> {
    let answer = socket::post(args, env, path, request, TIMEOUT).await.map_err(Problem::undecided)?;
    if answer.status == 200
        && let Ok(answer) = serde_json::from_slice(&answer.body)
    {
        return Ok(answer);
    }
    Err(match serde_json::from_slice::<CheckAnswer>(&answer.body) {
        Ok(said) if said.code == Code::Overloaded => Problem::undecided(said.reason.unwrap_or_default()),
        Ok(said) => Problem::failure(said.reason.unwrap_or_else(|| format!("the daemon refused: {}", said.code))),
        Err(_) => Problem::undecided(format!(
            "what listens on {} did not answer like machineid-sidecar (HTTP {}); is it another program's socket, or an older \
             daemon?",
            answer.socket.display(),
            answer.status
        )),
    })
}
