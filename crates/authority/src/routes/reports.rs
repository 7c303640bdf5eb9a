//! `POST /devices/report`, `GET /org/fleet`, `/org/stops`, `/org/timeline`: receives the sidecars' reports, and returns
//! them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use jiff::Timestamp;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_org_key::sidecar::needs_secret;
use machineid_protocol::DeviceId;
use machineid_protocol::api::{DeviceStatus, path};
use machineid_protocol::report::{
    FleetDevice, FleetSidecar, FleetStop, LARGEST_REPORT, Report, SidecarId, StopProgress, TimelineEvent,
};
use serde::Deserialize;
use serde_json::json;

use super::answer::Answer;
use super::ask::{self, BodyError, Prover, org_not_found};

use super::now;
use super::openapi::{
    AMONG, BAD_KEY, CONTAINING, CURSOR, DEVICE_STATUS, HEALTHY, LATE, LIMIT, LIMITED, MALFORMED, NO, NO_ORG,
    ONE_DEVICE, Route, SECRET, UNAVAILABLE,
};
use crate::access::Permission;
use crate::app::App;
use crate::repeated::rarely;
use crate::reports::{HeardDevice, HeardReport, KnownEvent, KnownStop, Notes, RevokedDevice, judge_all};
use crate::store::{Filter, FleetRow};

/// The maximum and default number of devices on one page.
const LARGEST_PAGE: u32 = 1_000;

/// The query parameters of the fleet.
#[derive(Debug, Deserialize)]
pub(super) struct FleetQuery {
    status: Option<DeviceStatus>,
    q: Option<String>,
    limit: Option<u32>,
    cursor: Option<DeviceId>,
}

/// The query parameters of a device's stops and events.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceQuery {
    device_id: DeviceId,
}

pub(super) const REPORT: Route = Route::needing(
    Permission::Work,
    Operation {
        path: path::REPORT,
        method: "post",
        summary: "Reports a sidecar's decisions and stops. Affects no decision. An extension",
        parameters: &[SECRET],
        body: Some("Report"),
        answers: &[
            HEALTHY,
            MALFORMED,
            BAD_KEY,
            AnswerDoc(403, JSON, NO, "the secret is not that of the sidecar; `error` is `not_this_sidecar`"),
            NO_ORG,
            LATE,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

/// Whether the sender of a report is the sidecar that the report names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Proven,
    /// The id is one that every holder of a key can use: that of a sidecar of an earlier version.
    Unproven,
    Foreign,
}

impl Sender {
    fn of(prover: Prover, named: SidecarId) -> Self {
        match prover {
            Prover::Sidecar(id) if id == named => Self::Proven,
            Prover::None if !needs_secret(named.bits()) => Self::Unproven,
            Prover::Sidecar(_) | Prover::None | Prover::Malformed => Self::Foreign,
        }
    }

    /// The value of the metric's label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Unproven => "unproven",
            Self::Foreign => "foreign",
        }
    }
}

pub(super) async fn report(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let body = ask::object(body, LARGEST_REPORT).await;
    let caller = ask::caller(&app, &head).await?;
    let report: Report = body?;
    let org = caller.within_pattern().id;
    let sidecar = report.sidecar_id;
    let sender = Sender::of(ask::prover(&head.headers), sidecar);
    app.metrics.reported(sender.as_str());
    if sender == Sender::Foreign {
        rarely!(warn, %org, %sidecar, "a report came without the secret of the sidecar that it names; it is refused");
        return Err(Answer::error(StatusCode::FORBIDDEN, "not_this_sidecar")
            .with(
                "reason",
                "The header x-machineid-sidecar does not have the secret of the sidecar that the report names.",
            )
            .to(org));
    }
    let mut taken = HeardReport::take(org, report, caller.pattern(), now()).ok_or(BodyError::Malformed)?;
    taken.proofs = app.proofs.of(org, sidecar);
    app.reports.keep(taken).await.map_err(|_| Answer::unavailable())?;
    Ok(Answer::ok("ok", "devices/report"))
}

pub(super) const FLEET: Route = Route::needing(
    Permission::Read,
    Operation {
        path: path::FLEET,
        method: "get",
        summary: "The devices with what their sidecars reported. An extension",
        parameters: &[DEVICE_STATUS, CONTAINING, AMONG, LIMIT, CURSOR],
        body: None,
        answers: &[AnswerDoc(200, JSON, Some("FleetPage"), "a page"), MALFORMED, BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
);

pub(super) async fn fleet(
    State(app): State<Arc<App>>,
    head: Parts,
    RawQuery(raw): RawQuery,
    query: Result<Query<FleetQuery>, QueryRejection>,
) -> Result<Answer, Answer> {
    // Not rate-limited: a client that waits for a stop polls repeatedly.
    let caller = ask::caller(&app, &head).await?;
    let org = caller.whole()?;
    let Query(query) = query.map_err(|_| BodyError::Malformed)?;
    let limit = query.limit.unwrap_or(LARGEST_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(BodyError::Malformed.into());
    }
    let among = devices_named(raw.as_deref().unwrap_or(""))?;
    let filter = Filter {
        status: query.status,
        // Only on the first page: the count reads the reports of all sidecars.
        counted: query.cursor.is_none() && among.is_none(),
        among,
        containing: query.q,
        after: query.cursor,
        limit: Some(limit),
        ..Filter::default()
    };
    let large = caller.large_answer(&app)?;
    let page = app.store.fleet(org.id, &filter).await?.ok_or_else(org_not_found)?;
    let now = now();
    let notes = app.seen.notes(now);
    let next = page.devices.last().filter(|_| page.more).map(|last| last.device.id.clone());
    let devices: Vec<FleetDevice> = page.devices.into_iter().map(|row| fleet_device(row, now, notes)).collect();
    Ok(Answer::ok("ok", "org/fleet")
        .with("devices", json!(devices))
        .with("nextCursor", next)
        .with("sidecars", page.sidecars)
        .with("agents", page.agents)
        .large(large))
}

/// The devices that a query names, each once; `None` when it names none.
fn devices_named(query: &str) -> Result<Option<Vec<DeviceId>>, Answer> {
    let ids = ask::device_ids(query);
    if ids.is_empty() {
        return Ok(None);
    }
    let ids: Result<BTreeSet<DeviceId>, _> = ids.iter().map(|id| id.parse()).collect();
    let ids = ids.map_err(|_| BodyError::Malformed)?;
    Ok(Some(ids.into_iter().collect()))
}

pub(super) const STOPS: Route = Route::needing(
    Permission::Read,
    Operation {
        path: path::STOPS,
        method: "get",
        summary: "The last stops of a device. An extension",
        parameters: &[ONE_DEVICE],
        body: None,
        answers: &[
            AnswerDoc(200, JSON, Some("StopList"), "the stops"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn stops(
    State(app): State<Arc<App>>,
    head: Parts,
    query: Result<Query<DeviceQuery>, QueryRejection>,
) -> Result<Answer, Answer> {
    let caller = ask::manager(&app, &head).await?;
    let org = caller.whole()?;
    let Query(query) = query.map_err(|_| BodyError::Malformed)?;
    let stops = app.store.stops(org.id, &query.device_id).await?;
    let stops: Vec<FleetStop> = stops.into_iter().map(fleet_stop).collect();
    Ok(Answer::ok("ok", "org/stops").with("stops", json!(stops)))
}

pub(super) const TIMELINE: Route = Route::needing(
    Permission::Read,
    Operation {
        path: path::TIMELINE,
        method: "get",
        summary: "The events of a device, the newest first. An extension",
        parameters: &[ONE_DEVICE],
        body: None,
        answers: &[
            AnswerDoc(200, JSON, Some("Timeline"), "the events"),
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn timeline(
    State(app): State<Arc<App>>,
    head: Parts,
    query: Result<Query<DeviceQuery>, QueryRejection>,
) -> Result<Answer, Answer> {
    let caller = ask::manager(&app, &head).await?;
    let org = caller.whole()?;
    let Query(query) = query.map_err(|_| BodyError::Malformed)?;
    let events = app.store.timeline(org.id, &query.device_id).await?;
    let events: Vec<TimelineEvent> = events.into_iter().map(timeline_event).collect();
    Ok(Answer::ok("ok", "org/timeline").with("events", json!(events)))
}

fn timeline_event(known: KnownEvent) -> TimelineEvent {
    TimelineEvent { at: known.at.to_string(), sidecar_id: known.sidecar, event: known.event }
}

fn fleet_device(row: FleetRow, now: Timestamp, notes: Notes) -> FleetDevice {
    let FleetRow { device, heard, last_stop } = row;
    let known =
        device.revoked_at.map(|revoked_at| RevokedDevice { revoked_at, last_seen_at: device.last_seen_at, notes });
    let judged = known.map(|known| judge_all(&known, &heard.iter().collect::<Vec<_>>(), now));
    let stop = |place: usize| Some(judged.as_ref()?.get(place)?.progress(now));
    FleetDevice {
        status: if device.revoked_at.is_some() { DeviceStatus::Revoked } else { DeviceStatus::Active },
        last_seen_at: device.last_seen_at.map(|at| at.to_string()),
        last_seen_ago_ms: device.last_seen_at.map(|at| millis_between(at, now)),
        revoked_at: device.revoked_at.map(|at| at.to_string()),
        sidecars: heard.iter().enumerate().map(|(place, heard)| sidecar(heard, now, stop(place))).collect(),
        last_stop: last_stop.map(fleet_stop),
        revoke_reason: device.revoke_reason,
        device_id: device.id,
    }
}

fn sidecar(heard: &HeardDevice, now: Timestamp, stop: Option<StopProgress>) -> FleetSidecar {
    let HeardDevice { sidecar, heard_at, said, .. } = heard;
    let ago = millis_between(*heard_at, now);
    FleetSidecar {
        sidecar_id: *sidecar,
        host_device_id: said.host.to_string(),
        version: said.version.clone(),
        push: said.push,
        heard_at: heard_at.to_string(),
        heard_ago_ms: ago,
        standing: said.device.standing,
        code: said.device.code.clone(),
        lease_left_ms: said.device.lease_left_ms.map(|left| left.saturating_sub(ago)),
        agents: said.device.agents,
        stopping: said.device.stopping,
        stop_bound: said.bound,
        stop,
        outside: said.device.outside.clone(),
    }
}

fn fleet_stop(known: KnownStop) -> FleetStop {
    FleetStop { began_at: known.began_at.to_string(), sidecar_id: known.sidecar, stop: known.stop }
}

/// The milliseconds from `earlier` to `later`, 0 when they are in the other order.
fn millis_between(earlier: Timestamp, later: Timestamp) -> u64 {
    u64::try_from(later.as_millisecond().saturating_sub(earlier.as_millisecond())).unwrap_or(0)
}
