//! The authority's own API, answered by the gates with the daemon's key: for programs that use the official clients.
//!
//! On the local socket a client names a device, as in a check. On `compat.listen`, a loopback port, it sends the token of its
//! run instead of the org key, and is answered for that run's device; agents never have the real key. Registration requests
//! are answered but register nothing: the daemon has done that.
//!
//! | file | concept |
//! |---|---|
//! | `question` | the client's request, parsed as the authority parses it |
//! | `answer` | verdicts in the format of the authority's API |
//! | `client` | the process at the other end of the port, and whether it may use a token |
//! | `listener` | the routes of the port |
//! | `serve` | the port's connections |

mod answer;
mod client;
mod listener;
mod question;
mod serve;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use client::TcpClient;
use machineid_clock::BootTime;
use machineid_protocol::api::KEY_HEADER;
use machineid_protocol::{Code, Denial, DeviceId};
use question::{Named, read};
pub(crate) use serve::serve;
use tracing::debug;

use super::check::stop_of;
use super::peer::Peer;
use super::{Context, not_nameable};
use crate::gate::{AskPurpose, GateVerdict};
use crate::registry::{Run, TokenHash};
use crate::telemetry::metrics::Rejected;

/// One of the two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Register,
    Validate,
}

/// The answer to a question, before it is written.
#[derive(Debug)]
enum CompatFinding {
    /// The verdict of the gates.
    Verdict(GateVerdict),
    /// A deny for which no gate was asked.
    Denied(Denial),
}

pub(super) async fn register(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    named(&context, &peer, Endpoint::Register, body).await
}

pub(super) async fn validate(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    named(&context, &peer, Endpoint::Validate, body).await
}

/// Answers on the socket, about a device that clients may name. A caller inside a tree whose stop has begun is denied,
/// whatever device it names.
async fn named(context: &Context, peer: &Peer, endpoint: Endpoint, body: Body) -> Response {
    let asked = BootTime::now();
    let device = match read(body).await {
        Named::Device(device) => device,
        Named::Missing => return answer::missing(endpoint),
        Named::Invalid => return answer::invalid(endpoint),
    };
    let finding = match peer.runs(&context.runs) {
        Err(error) => CompatFinding::Verdict(GateVerdict::overloaded(&error)),
        Ok(runs) => {
            if let Some(denial) = runs.iter().find_map(|run| stop_of(run)) {
                CompatFinding::Denied(denial)
            } else {
                // Only an agent makes a device known: others may merely ask.
                let registers = !runs.is_empty() && endpoint == Endpoint::Register;
                ask(context, peer, &device, asked, registers).await
            }
        }
    };
    answer::of(endpoint, finding, &device)
}

async fn ask(context: &Context, peer: &Peer, device: &DeviceId, asked: BootTime, registers: bool) -> CompatFinding {
    if !context.may_name(peer, device) {
        return CompatFinding::Denied(not_nameable(device));
    }
    let (purpose, over_budget) = if registers { context.purpose(peer, device) } else { (AskPurpose::Check, None) };
    match context.gates.deciding(std::slice::from_ref(device)) {
        Ok(deciding) => {
            let verdict = deciding.ask(asked + context.settings().local.check_timeout, purpose).await;
            match (over_budget, &verdict) {
                (Some(denial), GateVerdict::Denied(refusal)) if refusal.denial.code == Code::DeviceNotFound => {
                    CompatFinding::Denied(denial)
                }
                (Some(_) | None, _) => CompatFinding::Verdict(verdict),
            }
        }
        Err(error) => CompatFinding::Verdict(GateVerdict::overloaded(&error)),
    }
}

/// Answers on the listener, about the device of the run that has this token.
async fn by_token(
    context: &Context,
    client: &TcpClient,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let asked = BootTime::now();
    let token = headers.get(KEY_HEADER).and_then(|value| value.to_str().ok()).map(str::trim);
    let Some(run) = token.and_then(|token| context.runs.of_token(&TokenHash::of(token))) else {
        return answer::unknown_token(endpoint);
    };
    if !client.may_use_token_of(&run, context).await {
        context.journal.metrics.peer_rejected(Rejected::PidNotPermitted);
        debug!(run_id = %run.id(), uid = client.uid(), "refused an agent's token from a process outside its tree");
        return answer::foreign_token(endpoint);
    }
    let device = match read(body).await {
        Named::Device(device) => device,
        Named::Missing => return answer::missing(endpoint),
        Named::Invalid => return answer::invalid(endpoint),
    };
    let finding = if device == run.opened.device {
        ask_for(context, &run, asked).await
    } else {
        let reason = format!("this token is that of an agent that runs as {}, not as {device}", run.opened.device);
        CompatFinding::Denied(Denial::local(Code::DeviceNotPermitted, reason))
    };
    answer::of(endpoint, finding, &device)
}

async fn ask_for(context: &Context, run: &Run, asked: BootTime) -> CompatFinding {
    if let Some(denial) = stop_of(run) {
        return CompatFinding::Denied(denial);
    }
    let Some(deciding) = run.deciding() else {
        return CompatFinding::Verdict(GateVerdict::undecided(Code::Starting, "the daemon has just restarted"));
    };
    let verdict = deciding.ask(asked + context.settings().local.check_timeout, AskPurpose::Start).await;
    // The stop may have begun while the question was open.
    stop_of(run).map_or(CompatFinding::Verdict(verdict), CompatFinding::Denied)
}
