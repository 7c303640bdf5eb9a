//! `POST /v1/adopt`: puts a process that runs already, with all its descendants, under supervision. From then on it is a run
//! like any other, without a wrapper: it lives on its lease, and the daemon alone ends it.
//!
//! Not to be confused with what a daemon does about the runs of a previous one (`registry/adoption`).
//!
//! | file | concept |
//! |---|---|
//! | `adoptee` | the process: found, looked at, or refused in a sentence |
//! | `kernel_thread` | pure: whether a process is the kernel's own |
//! | `gather` | moves a tree that runs into a control group |

mod adoptee;
mod gather;
mod kernel_thread;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use machineid_blocking::CallOwner;
use machineid_clock::BootTime;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::local::{AdoptAnswer, AdoptRequest, SuperviseRequest};
use machineid_protocol::{Code, RunId, Wish};
use machineid_tree::Leaf;
use tracing::{info, warn};

use super::containment_rules::WantedContainment;
use super::request::{self, Request};
use super::{StartRefusal, refused_by};
use crate::config::settings::UndecidedPolicy;
use crate::gate::{Deciding, GateVerdict};
use crate::local::openapi::NO;
use crate::local::peer::Peer;
use crate::local::{Context, read_whole, reply};
use crate::registry::{Opened, Run, RunContainment, RunRegistry, StartTerms};
use adoptee::Adoptee;

pub(in crate::local) const ADOPT: Operation = Operation {
    path: "/v1/adopt",
    method: "post",
    summary: "Puts a process that runs already under supervision, with all its descendants: one of the caller's own; for \
              root, the daemon's user and local.admin_group one of any user",
    parameters: &[],
    body: Some("AdoptRequest"),
    answers: &[
        AnswerDoc(200, JSON, Some("AdoptAnswer"), "it is supervised from here on"),
        AnswerDoc(400, JSON, NO, "the request is malformed"),
        AnswerDoc(403, JSON, NO, "denied, or the process may not be adopted"),
        AnswerDoc(503, JSON, NO, "there is no decision"),
    ],
};

pub(in crate::local) async fn adopt(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    let body = match read_whole(body).await {
        Ok(body) => body,
        Err((status, reason)) => return reply::refusal(status, Code::BadRequest, reason),
    };
    match begin(&context, &peer, &body).await {
        Ok(answer) => (StatusCode::OK, Json(answer)).into_response(),
        Err(no) => {
            info!(code = %no.code, uid = peer.uid(), reason = no.reason, "refused to adopt");
            reply::refusal(reply::status_of(&no.code), no.code, no.reason)
        }
    }
}

async fn begin(context: &Arc<Context>, peer: &Peer, body: &[u8]) -> Result<AdoptAnswer, StartRefusal> {
    let asked = BootTime::now();
    let bad = |reason: String| StartRefusal::new(Code::BadRequest, reason);
    let wanted: AdoptRequest =
        serde_json::from_slice(body).map_err(|error| bad(format!("the request cannot be read: {error}")))?;
    let pid = wanted.pid;
    let request = request::checked(context, peer, as_start(wanted)?)?;
    // Most refusals need no answer of the authority.
    let adoptee = look(context, peer, move |context, peer| adoptee::find(context, peer, pid)).await?;
    let deciding = context.gates.deciding(std::slice::from_ref(&request.device));
    let deciding =
        deciding.map_err(|error| StartRefusal::new(Code::Overloaded, format!("no place for another gate: {error}")))?;
    let deciding = Arc::new(deciding);
    let (purpose, over_budget) = context.purpose(peer, &request.device);
    let verdict = deciding.ask(asked + context.settings().local.check_timeout, purpose).await;
    let grant = match verdict {
        GateVerdict::Allowed { grant, .. } => grant,
        GateVerdict::Denied(refusal) => {
            let unregistered = over_budget.filter(|_| refusal.denial.code == Code::DeviceNotFound);
            return Err(StartRefusal::from_denial(unregistered.unwrap_or(refusal.denial)));
        }
        GateVerdict::Undecided { code, cause, .. } => return Err(StartRefusal::new(code, &*cause)),
    };
    let mut opening = look(context, peer, move |context, _| open(context, adoptee, request, deciding)).await?;
    let run = Arc::clone(&opening.run);
    let Some(containment) = opening.containment.take() else {
        return Err(StartRefusal::new(Code::Overloaded, "the tree was not looked at"));
    };
    let (kind, reason) = (containment.kind, containment.reason.clone());
    let terms = StartTerms {
        code: grant.code,
        request_id: grant.request_id,
        containment,
        // The process cannot be told one.
        token: None,
        caller: peer.caller(),
    };
    context.runs.admit(&run, terms).await.map_err(refused_by)?;
    Ok(AdoptAnswer {
        run_id: run.id(),
        device_id: run.opened.device.clone(),
        pid,
        processes: opening.processes,
        containment: kind,
        containment_reason: reason,
    })
}

/// The request as one for a start, so that the same rules check it.
fn as_start(wanted: AdoptRequest) -> Result<SuperviseRequest, StartRefusal> {
    let AdoptRequest { pid, device, name, stop_signal, stop_grace } = wanted;
    let run_id = RunId::random()
        .map_err(|errno| StartRefusal::new(Code::Overloaded, format!("no random numbers for a run id: {errno}")))?;
    Ok(SuperviseRequest {
        pid,
        run_id,
        device,
        alone: true,
        name,
        command: Vec::new(),
        guardian: None,
        containment: None,
        leftovers: None,
        stop_signal,
        stop_grace,
    })
}

/// Looks at processes on a thread of its own, in the caller's turn.
async fn look<T: Send + 'static>(
    context: &Arc<Context>,
    peer: &Peer,
    work: impl FnOnce(&Arc<Context>, &Peer) -> Result<T, StartRefusal> + Send + 'static,
) -> Result<T, StartRefusal> {
    let owner = CallOwner::user(peer.uid(), peer.is_privileged());
    let (looks, context, peer) = (context.looks.clone(), Arc::clone(context), peer.clone());
    let done = looks.call(owner, move || work(&context, &peer)).await;
    done.unwrap_or_else(|lost| {
        Err(StartRefusal::new(Code::Overloaded, format!("cannot look at the agent's processes: {lost}")))
    })
}

/// A run in the roster that is not admitted yet. Dropped without an admission, everything is as before.
struct Opening {
    run: Arc<Run>,
    containment: Option<RunContainment>,
    leaf: Option<Arc<Leaf>>,
    processes: usize,
    runs: Arc<RunRegistry>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.run.admission().is_some() {
            return;
        }
        if let Some(leaf) = self.leaf.take() {
            if let Err(errno) = leaf.release() {
                warn!(run_id = %self.run.id(), %errno, "cannot move the processes back that were to be adopted");
            }
            self.runs.discard(leaf);
        }
        self.runs.abandon(&self.run);
    }
}

/// Adds the run to the roster, then holds its tree together.
fn open(
    context: &Arc<Context>,
    adoptee: Adoptee,
    request: Request,
    deciding: Arc<Deciding>,
) -> Result<Opening, StartRefusal> {
    let settings = context.settings();
    let wanted = WantedContainment {
        wish: Wish::Auto,
        floor: settings.enforcement.containment,
        freezable: settings.enforcement.undecided == UndecidedPolicy::Freeze,
    };
    let pid = adoptee.process.identity().pid;
    let mut tree = adoptee.tree.clone();
    let opened = Opened {
        id: request.text.run_id,
        device: request.device,
        name: request.text.name.map(|name| request::name_for_people(&name)),
        command: adoptee.command,
        uid: adoptee.owner.uid,
        namespaces: adoptee.owner.namespaces,
        asked: request.asked,
        reach: Some(crate::registry::reach::Reach::adopted(adoptee.process.into(), adoptee.tree)),
    };
    let run = context.runs.open_adopted(opened, deciding);
    let run = run.ok_or_else(|| adoptee::refused(format!("process {pid} is being adopted already")))?;
    let mut opening = Opening { run, containment: None, leaf: None, processes: 0, runs: Arc::clone(&context.runs) };
    // Another adoption may have begun since the first look.
    adoptee::check_apart(context, &opening.run, pid)?;
    let held = gather::contain(&mut tree, opening.run.id(), wanted)?;
    opening.leaf.clone_from(&held.leaf);
    (opening.containment, opening.processes) = (Some(held), gather::count(&mut tree));
    if opening.run.opened.reach.as_ref().is_none_or(|reach| reach.leader.has_ended()) {
        return Err(adoptee::ended(pid));
    }
    Ok(opening)
}
