//! `GET /v1/status`, `/readyz`: the state of the daemon.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use jiff::Timestamp;
use machineid_clock::{BootTime, WallClock};
use machineid_leaf::LeafHelper;
use machineid_openapi::{AnswerDoc, JSON, Operation, TEXT};
use machineid_protocol::status::{
    AgentReport, AgentState, ConfigurationStatus, DeviceReport, KillFileStatus, LastDecision, StandingKind, Status,
    StopBound, TokenUse,
};
use machineid_protocol::{Code, Decision, RunId};
use machineid_tree as tree;

use super::peer::Peer;
use super::rights::AgentScope;
use super::{Context, millis};
use crate::gate::Standing;
use crate::gate::handle::{GateHandle, GateView};
use crate::registry::run::{Phase, deadline};
use crate::registry::{Census, Run};
use crate::telemetry::audit::Audit;

pub(super) const STATUS: Operation = Operation {
    path: "/v1/status",
    method: "get",
    summary: "The state of the daemon: devices, leases, the authority, the bounds of a stop, and the agents that \
              the caller may see",
    parameters: &[],
    body: None,
    answers: &[AnswerDoc(200, JSON, Some("Status"), "as of now")],
};

/// `GET /v1/status`
pub(super) async fn status(State(context): State<Arc<Context>>, Extension(peer): Extension<Peer>) -> Json<Status> {
    let killed = context.gates.authority().look_for_kill_file().await;
    let (now, wall) = (BootTime::now(), WallClock::now());
    let settings = context.settings();
    let scope = AgentScope::of(&peer, &settings);
    let runs = context.runs.all();
    let seen = runs.iter().filter(|run| scope.covers_run(run));
    let agents =
        seen.filter_map(|run| agent(run, knows_commands(&scope, &peer, &context, run.id()), now, wall)).collect();
    let stops = context.runs.recent_stops().into_iter().filter(|(owner, _)| scope.covers(owner));
    let oom = context.runs.recent_oom().into_iter().filter(|(owner, _)| scope.covers(owner));
    let devices = context.gates.all();
    // One pass for all devices: a thousand agents may each have a device of their own.
    let census = context.runs.census();
    let bound = settings.stop_bound().with(runs.len());
    let helper = &settings.enforcement.leaf_helper;
    let keyed = context.gates.authority().keyed_client();
    let mut problems = context.live.loaded().problems;
    problems.extend(context.ports.problems());
    if keyed.refused.is_some() {
        let source = &keyed.key_source;
        problems.push(format!("{source}: the authority refuses this org key; the previous one stays in use"));
    }
    problems.extend(tree::unreadable().into_iter().map(|pid| {
        format!("process {pid} cannot be inspected (its memory is locked, or on a mount that hangs); a stop skips it")
    }));
    let killed = killed.unwrap_or_else(|unseen| {
        problems.push(unseen.to_string());
        None
    });
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at: wall.at(context.started).to_string(),
        socket: settings.local.socket.display().to_string(),
        authority: context.gates.authority().status(),
        stop_bound: StopBound { connected_ms: millis(bound.connected), cut_off_ms: millis(bound.cut_off) },
        configuration: ConfigurationStatus {
            file: settings.file.as_ref().map(|path| path.display().to_string()),
            key_source: keyed.key_source.to_string(),
            key_protection: context.key_protection.clone(),
            loaded_at: Some(wall.at(context.live.loaded().at).to_string()),
            problems,
            kill_file: settings.enforcement.kill_file.as_ref().map(|path| KillFileStatus {
                path: path.display().to_string(),
                in_force: killed.and_then(|denial| denial.reason),
            }),
        },
        devices: devices.iter().map(|gate| device(&context, gate, &census, (now, wall))).collect(),
        agents,
        agents_shown: Some(scope.shown()),
        recent_stops: stops.map(|(_, stop)| stop).collect(),
        recent_oom: oom.map(|(_, oom)| oom).collect(),
        holds: context.gates.authority().holds().all(),
        audit: context.journal.audit().map(Audit::status),
        files: context.files_status(),
        leaf_helper: LeafHelper::at(helper).is_there().then(|| helper.display().to_string()),
    })
}

pub(super) const READYZ: Operation = Operation {
    path: "/readyz",
    method: "get",
    summary: "Whether there is a decision no older than the lease, about the host's device and its workload's. Ready does not mean allowed: a \
              revoked host is ready and denies",
    parameters: &[],
    body: None,
    answers: &[AnswerDoc(200, TEXT, None, "there is one"), AnswerDoc(503, TEXT, None, "there is none")],
};

/// `GET /readyz`: whether there is a decision no older than the lease about the host's device and its workload's. Ready does not mean allowed: a revoked host is ready.
pub(super) async fn ready(State(context): State<Arc<Context>>) -> (StatusCode, &'static str) {
    let lease = context.settings().enforcement.lease;
    let began = |gate: &GateHandle| gate.look(|view| view.last_decision.as_ref().map(|(began, _)| *began));
    let gates = std::iter::once(context.gates.host()).chain(context.gates.workload());
    // The oldest of them; none while one of them is missing, since `None` is the least.
    match gates.map(began).min().flatten() {
        None => (StatusCode::SERVICE_UNAVAILABLE, "no decision yet\n"),
        Some(began) if BootTime::now().saturating_since(began) > lease => {
            (StatusCode::SERVICE_UNAVAILABLE, "the newest decision is older than the lease\n")
        }
        Some(_) => (StatusCode::OK, "ready\n"),
    }
}

fn device(context: &Context, gate: &GateHandle, census: &Census, (now, wall): (BootTime, WallClock)) -> DeviceReport {
    let view = gate.view();
    let (standing, since, last_error) = standing(context, &view);
    DeviceReport {
        device_id: gate.device().clone(),
        host: gate.device() == context.gates.host().device(),
        workload: context.gates.workload().is_some_and(|workload| workload.device() == gate.device()),
        standing,
        since: wall.at(since).to_string(),
        last_error,
        next_validation_ms: view.next_validation.map(|at| millis(at.saturating_since(now))),
        lease_left_ms: view.lease_until.map(|until| millis(until.saturating_since(now))),
        agents: census.of(gate.device()).agents as usize,
        last_decision: view.last_decision.map(|(began, decision)| last_decision(wall.at(began), decision)),
    }
}

fn standing(context: &Context, view: &GateView) -> (StandingKind, BootTime, Option<String>) {
    match &view.standing {
        Standing::Unknown => (StandingKind::Unknown, context.started, None),
        Standing::Allowed { since, .. } => (StandingKind::Allowed, *since, None),
        Standing::Denied { since, .. } => (StandingKind::Denied, *since, None),
        Standing::Unavailable { since, cause, .. } => (StandingKind::Unavailable, *since, Some(cause.to_string())),
    }
}

fn last_decision(began: Timestamp, decision: Decision) -> LastDecision {
    let at = began.to_string();
    match decision {
        Decision::Allow { code, request_id } => LastDecision { at, allowed: true, code, request_id, reason: None },
        Decision::Deny(denial) => {
            LastDecision { at, allowed: false, code: denial.code, request_id: denial.request_id, reason: denial.reason }
        }
    }
}

/// Whether a client may know the command line of a run: it may see all agents, or is in the run's own tree. Command lines may
/// contain secrets, and a user may have agents that must not know each other's.
pub(super) fn knows_commands(scope: &AgentScope, peer: &Peer, context: &Context, run: RunId) -> bool {
    // Determined once for each connection, until a run comes or goes.
    let is_inside = || peer.runs(&context.runs).is_ok_and(|runs| runs.iter().any(|inside| inside.id() == run));
    scope.is_all() || is_inside()
}

fn agent(run: &Run, with_command: bool, now: BootTime, wall: WallClock) -> Option<AgentReport> {
    let admission = run.admission()?;
    let (lease_left, state, stop_code): (Duration, AgentState, Option<Code>) = match &*run.phase() {
        Phase::Asking => return None,
        Phase::Running { leases, .. } => {
            let left = deadline(leases).map_or(Duration::ZERO, |until| until.saturating_since(now));
            (left, AgentState::Running, None)
        }
        Phase::Stopping { stop, .. } => (Duration::ZERO, AgentState::Stopping, Some(stop.denial.code.clone())),
    };
    let (opened, containment) = (&run.opened, &admission.containment);
    let (outside, outside_gap) = run.outside();
    let usage = run.usage();
    Some(AgentReport {
        run_id: opened.id,
        pid: run.leader().and_then(|leader| u32::try_from(leader.pid.as_raw()).ok()),
        name: opened.name.clone(),
        command: if with_command { opened.command.clone() } else { Vec::new() },
        device_id: opened.device.clone(),
        uid: opened.uid,
        started_at: wall.at(admission.since).to_string(),
        uptime_ms: millis(now.saturating_since(admission.since)),
        lease_left_ms: millis(lease_left),
        state,
        stop_code,
        containment: containment.kind,
        holds_against: containment.holds_against,
        containment_reason: Some(containment.reason.clone()),
        frozen: run.is_frozen(),
        killer: run.killer(),
        outside,
        outside_gap,
        token_good_for: admission
            .token
            .map(|_| if containment.leaf.is_some() { TokenUse::Tree } else { TokenUse::User }),
        adopted: run.is_adopted(),
        processes: usage.size.map(|(processes, _)| processes),
        memory_bytes: usage.size.map(|(_, memory)| memory),
        oom_kills: usage.oom_kills,
    })
}
