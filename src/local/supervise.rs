//! `POST /v1/supervise`: one question, then a stream of events for as long as the wrapper holds it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use tokio::sync::watch;
use tracing::{info, warn};

use super::peer::Peer;
use super::server::REQUEST_TIMEOUT;
use super::{Context, LARGEST_REQUEST, reply};
use crate::clock::BootTime;
use crate::gate::{Deciding, Verdict};
use crate::protocol::local::{SuperviseEvent, SuperviseRequest};
use crate::protocol::{Code, Denial, DeviceId, RequestId};
use crate::runs::run::{Outbox, Reach};
use crate::runs::{Opened, Refused, Run, Runs};
use crate::tree::{Pid, Process, ProcessTable, Tree, namespace_pids};
use crate::{span, sys};

/// The longest name and command line kept, in bytes: they are for people.
const LONGEST_NAME: usize = 256;
const LONGEST_COMMAND: usize = 4096;

/// A "no" to a wrapper.
struct No {
    code: Code,
    request_id: Option<RequestId>,
    device: Option<DeviceId>,
    reason: String,
}

impl No {
    fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, request_id: None, device: None, reason: reason.into() }
    }

    fn from_denial(denial: Denial) -> Self {
        let reason = denial.reason.unwrap_or_default();
        Self { code: denial.code, request_id: denial.request_id, device: None, reason }
    }
}

pub(super) async fn supervise(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    let (status, begun) = match read_whole(body).await {
        Ok(body) => (None, begin(&context, &peer, &body).await),
        Err((status, reason)) => (Some(status), Err(No::new(Code::BadRequest, reason))),
    };
    match begun {
        Ok(stream) => ndjson(StatusCode::OK, Body::from_stream(stream)),
        Err(no) => {
            info!(code = %no.code, uid = peer.uid(), reason = %no.reason, "refused to supervise");
            let status = status.unwrap_or_else(|| reply::status_of(&no.code));
            let reason = (!no.reason.is_empty()).then_some(no.reason);
            let event =
                SuperviseEvent::Error { code: no.code, request_id: no.request_id, device_id: no.device, reason };
            ndjson(status, Body::from(line(&event)))
        }
    }
}

/// `GET /v1/supervise?run_id=ID`: the newest event of a run, for its wrapper. An agent that ends by itself the moment it
/// is told to may be gone before the `stop` line has reached the wrapper; the stop is on record before anything is
/// signalled, so this answer is sure to know of it.
pub(super) async fn inquire(
    State(context): State<Arc<Context>>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Response {
    let id = query.as_deref().and_then(|query| query.strip_prefix("run_id=")).and_then(|id| id.parse().ok());
    let Some(id) = id else {
        return reply::refusal(StatusCode::BAD_REQUEST, Code::BadRequest, "name the run: ?run_id=, 32 hex digits");
    };
    let may_know = |run: &Arc<Run>| peer.uid() == run.opened.uid || peer.uid() == 0;
    let Some(run) = context.runs.get(id).filter(may_know) else {
        return reply::refusal(StatusCode::NOT_FOUND, Code::BadRequest, "there is no such run of yours");
    };
    let event = match run.stop() {
        Some(denial) => SuperviseEvent::Stop {
            code: denial.code,
            request_id: denial.request_id,
            reason: denial.reason,
            signalled: true,
            grace_ms: millis(run.opened.stop_grace),
        },
        None => SuperviseEvent::Lease {
            boot_ms: BootTime::now().as_millis(),
            until_boot_ms: run.deadline().unwrap_or_default().as_millis(),
        },
    };
    ndjson(StatusCode::OK, Body::from(line(&event)))
}

/// The whole request, within a limit of size and of time: a client that never finishes must not keep its place.
async fn read_whole(body: Body) -> Result<Bytes, (StatusCode, String)> {
    match tokio::time::timeout(REQUEST_TIMEOUT, to_bytes(body, LARGEST_REQUEST)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the request is torn or longer than {LARGEST_REQUEST} bytes")))
        }
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the request did not come within its time".to_owned())),
    }
}

fn ndjson(status: StatusCode, body: Body) -> Response {
    let kind = (header::CONTENT_TYPE, "application/x-ndjson");
    let fresh: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");
    (status, [kind, fresh], body).into_response()
}

fn line(event: &SuperviseEvent) -> Bytes {
    // The events hold nothing that JSON cannot express.
    let mut text = serde_json::to_vec(event).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

async fn begin(
    context: &Arc<Context>,
    peer: &Peer,
    body: &[u8],
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + use<>, No> {
    let asked = BootTime::now();
    let request: SuperviseRequest = serde_json::from_slice(body)
        .map_err(|error| No::new(Code::BadRequest, format!("the request cannot be read: {error}")))?;
    let (deciding, opened) = open(context, peer, request)?;
    let device = opened.device.clone();
    let run = context.runs.open(opened);
    let run = run.ok_or_else(|| No::new(Code::BadRequest, "this run id is in use"))?;
    // From here on the record goes when the client does, also in the middle of the question.
    let held = HeldRun { run, runs: Arc::clone(&context.runs), deciding };
    let events = held.run.subscribe();
    let verdict = held.deciding.ask(asked + context.settings.local.check_timeout).await;
    let about = |no: No| No { device: Some(device.clone()), ..no };
    let grant = match verdict {
        Verdict::Allowed { grant, .. } => grant,
        Verdict::Denied(refusal) => return Err(about(No::from_denial(refusal.denial))),
        Verdict::Undecided { code, cause, .. } => return Err(about(No::new(code, &*cause))),
    };
    let until = context.runs.admit(&held.run, &held.deciding).map_err(|refused| match refused {
        Refused::Denied(denial) => about(No::from_denial(denial)),
        Refused::NoLease => about(No::new(Code::LeaseExpired, "the lease ended before the agent could start")),
    })?;
    let opened = &held.run.opened;
    let allow = SuperviseEvent::Allow {
        run_id: opened.id,
        device_id: opened.device.clone(),
        base_url: None,
        code: grant.code,
        request_id: grant.request_id,
        boot_ms: BootTime::now().as_millis(),
        until_boot_ms: until.as_millis(),
        lease_ms: millis(context.settings.enforcement.lease),
        stop_grace_ms: millis(opened.stop_grace),
        stop_signal: Some(sys::signal_name(opened.stop_signal)),
        containment: opened.containment.clone(),
        killer: held.run.killer(),
        token: None,
    };
    Ok(EventStream { first: Some(line(&allow)), until, stopped: false, events, _held: held }.into_stream())
}

/// Parses, checks and caps what the wrapper asks for.
fn open(context: &Context, peer: &Peer, request: SuperviseRequest) -> Result<(Deciding, Opened), No> {
    let host = context.gates.host().device();
    let device = request.device.unwrap_or_else(|| host.clone());
    if !context.may_name(&device) {
        let reason = format!("this host's configuration (device.allow) does not let agents run as {device}");
        return Err(No { device: Some(device), ..No::new(Code::DeviceNotPermitted, reason) });
    }
    if peer.is_nobody() {
        return Err(No::new(Code::PidNotPermitted, "a user of another user namespace may only check"));
    }
    let settings = &context.settings.enforcement;
    let stop_grace = match &request.stop_grace {
        None => settings.stop_grace,
        Some(text) => {
            let asked = span::parse(text);
            let asked = asked.map_err(|error| No::new(Code::BadRequest, format!("stop_grace: {error}")))?;
            asked.min(settings.stop_grace)
        }
    };
    let stop_signal = match &request.stop_signal {
        None => settings.stop_signal,
        Some(name) => {
            sys::parse_signal(name).map_err(|error| No::new(Code::BadRequest, format!("stop_signal: {error}")))?
        }
    };
    let containment = containment(request.containment.as_deref())?;
    let reach = reach(peer, request.pid, request.alone)?;
    if reach.is_none() && context.settings.local.require_local_killer {
        let reason = "the daemon cannot end this agent by itself (another PID namespace or user), and \
                      local.require_local_killer is set";
        return Err(No::new(Code::RemoteRefused, reason));
    }
    let deciding = context.gates.deciding(std::slice::from_ref(&device));
    let deciding =
        deciding.map_err(|error| No::new(Code::Overloaded, format!("no place for another gate: {error}")))?;
    let opened = Opened {
        id: request.run_id,
        device,
        name: request.name.map(|name| printable(&name, LONGEST_NAME)),
        command: command_for_people(&request.command),
        uid: peer.uid(),
        containment: containment.to_owned(),
        stop_signal,
        stop_grace,
        reach,
    };
    Ok((deciding, opened))
}

/// What holds the tree together, which is what is recorded and shown; never just the client's word. A stronger one than
/// there is must not be promised.
fn containment(asked: Option<&str>) -> Result<&'static str, No> {
    match asked {
        None | Some("auto" | "subreaper") => Ok("subreaper"),
        Some(other) => {
            let reason = format!("containment {:?} is not to be had; ask for auto or subreaper", printable(other, 16));
            Err(No::new(Code::BadRequest, reason))
        }
    }
}

/// Pins the agent's leader and its wrapper. `None` where the daemon cannot see or signal them.
fn reach(peer: &Peer, requested: i32, alone: bool) -> Result<Option<Reach>, No> {
    let refused = |reason: &str| No::new(Code::PidNotPermitted, reason);
    let Some(peer_pid) = peer.pid() else { return Ok(None) };
    let wrapper = peer.process();
    let wrapper =
        wrapper.map_err(|error| No::new(Code::Overloaded, format!("cannot hold the calling process: {error}")))?;
    let Some(wrapper) = wrapper else { return Err(refused("the caller has ended")) };
    // In the daemon's own PID namespace the number is the right one, and only its ancestors matter.
    let near = alone && namespace_pids(peer_pid).is_some_and(|pids| pids.len() == 1);
    let table = match Pid::new(requested).filter(|_| near) {
        Some(requested) => ProcessTable::line_of_descent(requested, peer_pid),
        None => ProcessTable::scan(),
    };
    let table = table
        .map_err(|errno| No::new(Code::Overloaded, format!("cannot look at the processes of this host: {errno}")))?;
    // Its number may be another's by now, and so the table's word about who descends from it.
    if !table.is_alive(wrapper.identity()) {
        return Err(refused("the caller has ended"));
    }
    let leader = table.resolve(peer_pid, requested, namespace_pids);
    let leader = leader.ok_or_else(|| refused("that process is neither the caller nor a living descendant of it"))?;
    let pinned = Process::pin(leader.pid, leader.start)
        .map_err(|errno| No::new(Code::Overloaded, format!("cannot hold the agent's process: {errno}")))?;
    let pinned = pinned.ok_or_else(|| refused("that process has ended"))?;
    if !sys::may_signal(&pinned) {
        warn!(
            pid = leader.pid.as_raw(),
            uid = peer.uid(),
            "the daemon may not signal this agent: its wrapper alone can end it"
        );
        return Ok(None);
    }
    let supervisor = Some(wrapper.identity());
    let tree = if alone { Tree::alone(leader, supervisor) } else { Tree::new(leader, supervisor, &table) };
    Ok(Some(Reach { leader: pinned, wrapper, tree }))
}

fn command_for_people(command: &[String]) -> Vec<String> {
    let mut left = LONGEST_COMMAND;
    let mut kept = Vec::new();
    for argument in command {
        if left == 0 {
            break;
        }
        let argument = printable(argument, left);
        left = left.saturating_sub(argument.len() + 1);
        kept.push(argument);
    }
    kept
}

fn printable(text: &str, longest: usize) -> String {
    let mut kept = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if kept.len() + c.len_utf8() > longest {
            break;
        }
        kept.push(c);
    }
    kept
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A run as long as its connection lives; its end ends the run.
struct HeldRun {
    run: Arc<Run>,
    runs: Arc<Runs>,
    deciding: Deciding,
}

impl Drop for HeldRun {
    fn drop(&mut self) {
        self.runs.stream_ended(&self.run);
        for gate in self.deciding.gates() {
            gate.set_agents(self.runs.count(gate.device()));
        }
    }
}

struct EventStream {
    first: Option<Bytes>,
    until: BootTime,
    stopped: bool,
    events: watch::Receiver<Outbox>,
    /// Dropped with the connection, which is how the run's end is noticed.
    _held: HeldRun,
}

impl EventStream {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        futures_util::stream::unfold(self, |mut stream| async move {
            let line = stream.next_line().await;
            Some((Ok(line), stream))
        })
    }

    /// The next thing to tell. Never ends by itself: the wrapper closes the connection when it is done.
    async fn next_line(&mut self) -> Bytes {
        if let Some(first) = self.first.take() {
            return first;
        }
        loop {
            let outbox = self.events.borrow_and_update().clone();
            if let Some(notice) = outbox.stop.filter(|_| !self.stopped) {
                self.stopped = true;
                let grace = notice.kill_at.saturating_since(BootTime::now());
                return line(&SuperviseEvent::Stop {
                    code: notice.denial.code,
                    request_id: notice.denial.request_id,
                    reason: notice.denial.reason,
                    signalled: notice.signalled,
                    grace_ms: millis(grace),
                });
            }
            if let Some(until) = outbox.until.filter(|until| *until != self.until && !self.stopped) {
                self.until = until;
                let boot_ms = BootTime::now().as_millis();
                return line(&SuperviseEvent::Lease { boot_ms, until_boot_ms: until.as_millis() });
            }
            if self.events.changed().await.is_err() {
                // The sender lives in the run that this stream holds.
                return std::future::pending().await;
            }
        }
    }
}
