//! `POST /v1/supervise`: one question, then a stream of events for as long as the wrapper keeps the connection.
//!
//! | file | concept |
//! |---|---|
//! | `request` | what the wrapper asks for, checked and capped |
//! | `reach` | its processes, identified and held by descriptors |
//! | `containment_rules` | pure: which containment a run gets, or why it gets none |
//! | `contain` | finds or makes the control group |
//! | `stream` | the events |
//! | `refusals` | limits the refusals in the log |
//! | `adopt` | `POST /v1/adopt`: a process that runs already |
//! | `inquiry` | `GET /v1/supervise`, `POST /v1/thaw`, `POST /v1/outside`: about one run |

mod adopt;
mod contain;
mod containment_rules;
mod inquiry;
mod reach;
mod refusals;
mod request;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::future::Either;
use tracing::{debug, info};

use contain::Contained;
use machineid_blocking::{CallOwner, Lost};
use machineid_clock::BootTime;
use machineid_leaf::LeafHelper;
use machineid_openapi::{AnswerDoc, Operation};
use machineid_protocol::event::Caller;
use machineid_protocol::local::{SuperviseEvent, SuperviseRequest};
use machineid_protocol::{Code, Denial, DeviceId, RequestId};
use machineid_sys as sys;
use request::Request;
use stream::{HeldRun, RunEventStream, line};

use super::openapi::LINES;
use super::peer::Peer;
use super::{Context, millis, read_whole, reply};
use crate::gate::{Deciding, GateVerdict};
use crate::registry::{Refused, Run, StartTerms, Token};
use crate::telemetry::metrics::Rejected;

pub(super) use adopt::{ADOPT, adopt};
pub(super) use inquiry::{INQUIRE, OUTSIDE, THAW, inquire, outside, thaw};
pub(super) use refusals::Refusals;
pub(super) use request::fuzz;

/// A refusal of a start, for the wrapper.
#[derive(Debug)]
struct StartRefusal {
    code: Code,
    request_id: Option<RequestId>,
    device: Option<DeviceId>,
    reason: String,
}

impl StartRefusal {
    fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, request_id: None, device: None, reason: reason.into() }
    }

    fn from_denial(denial: Denial) -> Self {
        let reason = denial.reason.unwrap_or_default();
        Self { code: denial.code, request_id: denial.request_id, device: None, reason }
    }
}

pub(in crate::local) const SUPERVISE: Operation = Operation {
    path: "/v1/supervise",
    method: "post",
    summary: "May this process run? If so it is supervised as long as the connection lives, and told of every lease and stop",
    parameters: &[],
    body: Some("SuperviseRequest"),
    answers: &[
        AnswerDoc(200, LINES, Some("SuperviseEvent"), "allowed; a line for each event from here on"),
        AnswerDoc(400, LINES, Some("SuperviseEvent"), "the request is malformed, or its run id is in use"),
        AnswerDoc(403, LINES, Some("SuperviseEvent"), "denied"),
        AnswerDoc(503, LINES, Some("SuperviseEvent"), "there is no decision"),
    ],
};

pub(super) async fn supervise(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    let (status, begun) = match read_whole(body).await {
        Ok(body) => (None, begin(&context, &peer, &body).await),
        Err((status, reason)) => (Some(status), Err(StartRefusal::new(Code::BadRequest, reason))),
    };
    match begun {
        Ok(stream) => ndjson(StatusCode::OK, Body::from_stream(stream)),
        Err(no) => {
            let (code, uid, reason) = (&no.code, peer.uid(), &no.reason);
            match context.refusals.count(BootTime::now(), uid) {
                Some(0) => info!(%code, uid, reason, "refused to supervise"),
                Some(left_out) => info!(%code, uid, reason, left_out, "refused to supervise; earlier refusals of this \
                                                                       user were not logged"),
                None => debug!(%code, uid, reason, "refused to supervise"),
            }
            if let Some(rejected) = Rejected::of(&no.code) {
                context.journal.metrics.peer_rejected(rejected);
            }
            let status = status.unwrap_or_else(|| reply::status_of(&no.code));
            let reason = (!no.reason.is_empty()).then_some(no.reason);
            let event =
                SuperviseEvent::Error { code: no.code, request_id: no.request_id, device_id: no.device, reason };
            ndjson(status, Body::from(line(&event)))
        }
    }
}

fn ndjson(status: StatusCode, body: Body) -> Response {
    let kind = (header::CONTENT_TYPE, "application/x-ndjson");
    let fresh: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");
    (status, [kind, fresh], body).into_response()
}

async fn begin(
    context: &Arc<Context>,
    peer: &Peer,
    body: &[u8],
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + use<>, StartRefusal> {
    let asked = BootTime::now();
    let request: SuperviseRequest = serde_json::from_slice(body)
        .map_err(|error| StartRefusal::new(Code::BadRequest, format!("the request cannot be read: {error}")))?;
    match context.runs.get(request.run_id) {
        Some(run) => come_back(context, peer, run).map(Either::Left),
        None => start(context, peer, request, asked).await.map(Either::Right),
    }
}

/// Handles the question of a run that has not started yet.
async fn start(
    context: &Arc<Context>,
    peer: &Peer,
    request: SuperviseRequest,
    asked: BootTime,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + use<>, StartRefusal> {
    let request = request::checked(context, peer, request)?;
    let device = request.device.clone();
    let about = |no: StartRefusal| StartRefusal { device: Some(device.clone()), ..no };
    let deciding = context.gates.deciding(std::slice::from_ref(&device));
    let deciding =
        deciding.map_err(|error| StartRefusal::new(Code::Overloaded, format!("no place for another gate: {error}")))?;
    let deciding = Arc::new(deciding);
    let (purpose, over_budget) = context.purpose(peer, &device);
    let asking = deciding.ask(asked + context.settings().local.check_timeout, purpose);
    // Whatever the answer, the look at the processes completes: the run must be removed when a refused wrapper asks again.
    // And a deny takes precedence over a containment that is not available.
    let (verdict, (started, contained, caller)) =
        tokio::try_join!(async { Ok(asking.await) }, open(context, peer, request, Arc::clone(&deciding)))?;
    let grant = match verdict {
        GateVerdict::Allowed { grant, .. } => grant,
        GateVerdict::Denied(refusal) => {
            let unregistered = over_budget.filter(|_| refusal.denial.code == Code::DeviceNotFound);
            return Err(about(StartRefusal::from_denial(unregistered.unwrap_or(refusal.denial))));
        }
        GateVerdict::Undecided { code, cause, .. } => return Err(about(StartRefusal::new(code, &*cause))),
    };
    let events = started.run.subscribe();
    let containment = contained.map(Contained::take).map_err(about)?;
    let token = context.ports.compat_address().map(|_| Token::new()).transpose();
    let token = token.map_err(|error| {
        about(StartRefusal::new(Code::Overloaded, format!("no random numbers for a token: {error}")))
    })?;
    let (code, request_id) = (grant.code, grant.request_id);
    let token_hash = token.as_ref().map(Token::hash);
    let terms = StartTerms { code, request_id, containment, token: token_hash, caller };
    let admitted = context.runs.admit(&started.run, terms).await;
    let until = admitted.map_err(|refused| about(refused_by(refused)))?;
    Ok(RunEventStream::new(
        context,
        allow(context, &started.run, until, token.as_ref()).as_ref(),
        Some(until),
        events,
        started,
    )
    .into_stream())
}

fn refused_by(refused: Refused) -> StartRefusal {
    match refused {
        Refused::Denied(denial) => StartRefusal::from_denial(denial),
        Refused::NoLease => StartRefusal::new(Code::LeaseExpired, "the lease ended before the agent could start"),
    }
}

/// Identifies a run's processes, adds it to the roster and determines its containment.
///
/// Runs on a thread of its own, while the authority is asked: there may be thousands of processes to look at, and the kernel
/// takes time to move one. Users take turns, so that many starts of one user do not delay those of another. A look that has
/// begun completes even if the client disconnects.
async fn open(
    context: &Arc<Context>,
    peer: &Peer,
    request: Request,
    deciding: Arc<Deciding>,
) -> Result<(HeldRun, Result<Contained, StartRefusal>, Caller), StartRefusal> {
    let lost =
        |error: Lost| StartRefusal::new(Code::Overloaded, format!("cannot look at the agent's processes: {error}"));
    let looks = context.looks.clone();
    let owner = CallOwner::user(peer.uid(), peer.is_privileged());
    let (context, peer) = (Arc::clone(context), peer.clone());
    let work = looks.call(owner, move || {
        let (opened, wanted) = request.open(&context, &peer)?;
        let run = context.runs.open(opened, deciding).ok_or_else(in_use)?;
        // From here on the run is removed when the client disconnects, even before the question is answered.
        let started = HeldRun::new(run, Arc::clone(&context.runs));
        let helper = LeafHelper::at(&context.settings().enforcement.leaf_helper);
        let contained = contain::contain(&started.run, &context.runs, wanted, &helper);
        Ok((started, contained, peer.caller()))
    });
    work.await.unwrap_or_else(|error| Err(lost(error)))
}

/// Handles a run id that is in the roster: its wrapper has reconnected, or another client uses its id. The recorded terms
/// hold; no question is asked, and so no lease is extended.
fn come_back(
    context: &Arc<Context>,
    peer: &Peer,
    run: Arc<Run>,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + use<>, StartRefusal> {
    let caller = peer.identity();
    let caller = caller.map_err(|error| {
        StartRefusal::new(Code::Overloaded, format!("cannot get a handle of the calling process: {error}"))
    })?;
    if caller.is_none() || caller != run.wrapper() {
        return Err(in_use());
    }
    if run.admission().is_none() {
        return Err(StartRefusal::new(Code::Overloaded, "an earlier request of this wrapper is still open"));
    }
    let held = HeldRun::come_back(run, Arc::clone(&context.runs));
    let run = &held.run;
    let events = run.subscribe();
    info!(run_id = %run.id(), device_id = %run.opened.device, "the agent's wrapper reconnected");
    // A stop that has begun is reported by the stream itself.
    let until = run.deadline();
    let first = until.and_then(|until| allow(context, run, until, None));
    Ok(RunEventStream::new(context, first.as_ref(), until, events, held).into_stream())
}

fn in_use() -> StartRefusal {
    StartRefusal::new(Code::BadRequest, "this run id is in use")
}

/// The first event of an admitted run; `None` for a run that was not admitted. The token is sent once, to an agent that has
/// not begun.
fn allow(context: &Context, run: &Run, until: BootTime, token: Option<&Token>) -> Option<SuperviseEvent> {
    let (opened, admission) = (&run.opened, run.admission()?);
    Some(SuperviseEvent::Allow {
        run_id: opened.id,
        device_id: opened.device.clone(),
        base_url: token.and(context.ports.compat_address()).map(|address| format!("http://{address}")),
        code: admission.code.clone(),
        request_id: admission.request_id.clone(),
        boot_ms: BootTime::now().as_millis(),
        until_boot_ms: until.as_millis(),
        lease_ms: millis(context.settings().enforcement.lease),
        resume_grace_ms: millis(context.settings().enforcement.resume_grace),
        stop_grace_ms: millis(run.terms().grace),
        stop_signal: Some(sys::signal_name(run.terms().signal)),
        containment: admission.containment.kind,
        killer: run.killer(),
        token: token.map(|token| token.expose().to_owned()),
    })
}
