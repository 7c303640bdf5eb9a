//! `POST /v1/hold`, `POST /v1/release`: denies a device on this host without the authority, until it is released.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use machineid_blocking::Lost;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::event::{Caller, Happening, Hold};
use machineid_protocol::local::{HoldAnswer, HoldRequest, ReleaseAnswer};
use machineid_protocol::{Code, DeviceId};
use tracing::{error, info, warn};

use super::openapi::NO;
use super::peer::Peer;
use super::rights::AgentScope;
use super::{Context, read_whole, reply};
use crate::gate::holds::Holds;
use crate::telemetry::metrics::Rejected;

pub(super) const HOLD: Operation = Operation {
    path: "/v1/hold",
    method: "post",
    summary: "Denies a device on this host until it is released, and ends its agents; for root, the daemon's user and \
              local.admin_group",
    parameters: &[],
    body: Some("HoldRequest"),
    answers: &[
        AnswerDoc(200, JSON, Some("HoldAnswer"), "held"),
        AnswerDoc(400, JSON, NO, "the request is malformed"),
        AnswerDoc(403, JSON, NO, "the caller lacks the rights"),
    ],
};

pub(super) async fn hold(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    let request = match read(&context, &peer, body).await {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let devices = match request {
        HoldRequest::Device(device) => vec![device],
        HoldRequest::All(_) => everything(&context),
    };
    let (caller, holds) = (peer.caller(), context.gates.authority().holds());
    let mut run_ids = Vec::new();
    for device in &devices {
        let news = holds.hold(device, peer.uid());
        // The agents are stopped here, before the gate has heard of the hold: the gate may be waiting for the authority.
        // Admission reads the holds under the lock that this takes, so no run falls in between.
        if let Some(denial) = holds.denial(device) {
            let (stopped, _) = context.runs.stop_chosen(&denial, &caller, |run| run.is_ruled_by(device));
            run_ids.extend(stopped);
        }
        context.gates.hint(device);
        if news {
            warn!(device_id = %device, uid = peer.uid(), "held: denied on this host until it is released");
            let hold = Hold { device_id: device.clone(), by_uid: peer.uid() };
            context.journal.tell_by(Happening::DeviceHeld(hold), Some(caller.clone()));
        }
    }
    // The holds are in force: a disk that hangs must not delay the answer to the operator for long.
    let problem = written(&context, Holds::keep).await.err().map(|error| {
        error!(%error, "cannot record which devices are held: a restart of the daemon would forget them");
        format!("the hold cannot be saved ({error}): a restart of the daemon would forget it")
    });
    (StatusCode::OK, Json(HoldAnswer { devices, run_ids, problem })).into_response()
}

/// Time that an operator waits for the disk.
const PATIENCE: Duration = Duration::from_secs(3);

/// Writes on a thread of its own, since syncing to disk takes time. Fails when that takes too long; the write may still
/// complete later.
async fn written<T: Send + 'static>(
    context: &Context,
    write: impl FnOnce(&Holds) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let holds = Arc::clone(context.gates.authority().holds());
    let written = context.writes.call_within(PATIENCE, move || write(&holds)).await;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the disk of the state directory has not answered in time");
    written.map_err(|lost| if matches!(lost, Lost::Late) { late() } else { io::Error::other(lost) })?
}

pub(super) const RELEASE: Operation = Operation {
    path: "/v1/release",
    method: "post",
    summary: "Releases a held device; for root, the daemon's user and local.admin_group",
    parameters: &[],
    body: Some("HoldRequest"),
    answers: &[
        AnswerDoc(200, JSON, Some("ReleaseAnswer"), "the authority decides again"),
        AnswerDoc(400, JSON, NO, "the request is malformed"),
        AnswerDoc(403, JSON, NO, "the caller lacks the rights"),
        AnswerDoc(404, JSON, NO, "the device is not held"),
        AnswerDoc(503, JSON, NO, "the release cannot be saved: the device stays held"),
    ],
};

pub(super) async fn release(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    let request = match read(&context, &peer, body).await {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let device = match &request {
        HoldRequest::Device(device) => Some(device),
        HoldRequest::All(_) => None,
    };
    let named = device.cloned();
    let devices = match written(&context, move |holds| holds.release(named.as_ref())).await {
        Ok(devices) => devices,
        Err(error) => {
            let reason = if error.kind() == io::ErrorKind::TimedOut {
                format!("the release is not saved yet ({error}); the devices stay denied until it is")
            } else {
                format!("the release cannot be saved ({error}), so nothing is released")
            };
            return reply::refusal(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, reason);
        }
    };
    if devices.is_empty() {
        let what = device.map_or_else(|| "no device".to_owned(), |device| format!("{device} is not held; nothing"));
        return reply::refusal(StatusCode::NOT_FOUND, Code::BadRequest, format!("{what} is held on this host"));
    }
    for device in &devices {
        info!(device_id = %device, uid = peer.uid(), "released: the authority decides again");
        let hold = Hold { device_id: device.clone(), by_uid: peer.uid() };
        context.journal.tell_by(Happening::DeviceReleased(hold), Some(peer.caller()));
        context.gates.hint(device);
    }
    (StatusCode::OK, Json(ReleaseAnswer { devices })).into_response()
}

/// The devices whose denial denies every agent: the host's device, and where that does not rule all, each device in use.
fn everything(context: &Context) -> Vec<DeviceId> {
    let rules_all = context.settings().device.host_rules_all;
    let gates = context.gates.all();
    gates.iter().take(if rules_all { 1 } else { gates.len() }).map(|gate| gate.device().clone()).collect()
}

fn may(context: &Context, peer: &Peer) -> Result<(), Box<Response>> {
    if AgentScope::of(peer, &context.settings()).is_all() {
        return Ok(());
    }
    context.journal.metrics.peer_rejected(Rejected::NotPrivileged);
    let reason = "only root, the daemon's own user and local.admin_group may hold and release a device; your own \
                  agents can be stopped without --hold";
    Err(Box::new(reply::refusal(StatusCode::FORBIDDEN, Code::DeviceNotPermitted, reason)))
}

async fn read(context: &Context, peer: &Peer, body: Body) -> Result<HoldRequest, Box<Response>> {
    let bad = |reason: String| Box::new(reply::refusal(StatusCode::BAD_REQUEST, Code::BadRequest, reason));
    may(context, peer)?;
    let body = read_whole(body).await;
    let body = body.map_err(|(status, reason)| Box::new(reply::refusal(status, Code::BadRequest, reason)))?;
    match serde_json::from_slice(&body) {
        Ok(HoldRequest::All(false)) => Err(bad("\"all\" is true or is left out".to_owned())),
        Ok(request) => Ok(request),
        Err(error) => {
            Err(bad(format!("the request cannot be read: {error}; it is one of {{\"device\":…}} and {{\"all\":true}}")))
        }
    }
}

impl Peer {
    /// The client, as the audit file names it.
    pub(super) fn caller(&self) -> Caller {
        let pid = self.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok());
        let exe = pid.and_then(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok());
        Caller { pid, uid: self.uid(), exe: exe.map(|path| path.to_string_lossy().into_owned()) }
    }
}
