//! The live page of a stop of many devices: the request, the hosts that confirmed it, and the time by which the leases
//! of the others end everything. [`tally`] is pure; the page only shows its result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use machineid_protocol::report::{Doubt, StopState};

use super::frame::{Frame, Section};
use super::refused::Refused;
use super::{page, visit};
use crate::access::Permission;
use crate::app::App;
use crate::console::pictures::{self, CurveData, Picture};
use crate::console::words::{State as Shown, When, grouped};
use crate::reports::{Judged, Notes, RevokedDevice, judge_all};
use crate::routes::now;
use crate::store::{Aftermath, HeardOf};

/// Hosts in one list. A longer list of outstanding hosts is too long to read.
const SHOWN: usize = 200;

/// A host whose sidecar uses devices that were stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// The host's own device.
    name: String,
    state: StopState,
    /// Why its confirmation of a device does not count.
    doubt: Option<Doubt>,
    /// The number of agents on these devices in the sidecar's last report.
    agents: u64,
    heard_at: Timestamp,
    /// The time by which its lease has ended them, in the worst case.
    by: Timestamp,
}

/// The progress of the stop.
#[derive(Clone, Debug)]
struct Tally {
    /// Hosts that have not confirmed, ordered by the time at which nothing can run, the latest first.
    outstanding: Vec<Host>,
    /// Hosts that have confirmed, ordered by name.
    confirmed: Vec<Host>,
    /// Devices that no sidecar has reported about.
    untold: u64,
    /// Helpers that run on outside the trees, each with its host, sorted.
    outside: BTreeSet<String>,
    progress: CurveData,
}

/// A sidecar's report about a device, judged beside the others about the device.
struct JudgedRow {
    judged: Judged,
    /// Whether it is the first of its device.
    is_first: bool,
}

/// The rows, which are sorted by device, each with its judgement.
fn judged(rows: &[HeardOf], revoked_at: Timestamp, now: Timestamp) -> impl Iterator<Item = (&HeardOf, JudgedRow)> {
    rows.chunk_by(|one, next| one.device == next.device).flat_map(move |rows| {
        let last_seen_at = rows.first().and_then(|row| row.last_seen_at);
        let known = RevokedDevice { revoked_at, last_seen_at, notes: Notes::in_time(now) };
        let heard: Vec<_> = rows.iter().map(|row| &row.heard).collect();
        let all = judge_all(&known, &heard, now).into_iter().enumerate();
        rows.iter().zip(all.map(|(place, judged)| JudgedRow { judged, is_first: place == 0 }))
    })
}

fn tally(after: &Aftermath, asked_at: Timestamp, now: Timestamp) -> Tally {
    let mut hosts: BTreeMap<_, Host> = BTreeMap::new();
    let mut told = 0_u64;
    let mut outside = BTreeSet::new();
    for (row, judged) in judged(&after.heard, asked_at, now) {
        told += u64::from(judged.is_first);
        let said = &row.heard.said;
        outside.extend(said.device.outside.iter().map(|helper| format!("{}: {}", said.host, helper.in_words())));
        let Judged { state, by, doubt } = judged.judged;
        let agents = u64::from(said.device.agents) + u64::from(said.device.stopping);
        let host = hosts.entry(row.heard.sidecar).or_insert_with(|| Host {
            name: said.host.to_string(),
            state: StopState::Confirmed,
            doubt: None,
            agents: 0,
            heard_at: row.heard.heard_at,
            by,
        });
        host.agents += agents;
        host.heard_at = host.heard_at.max(row.heard.heard_at);
        (host.state, host.by) = worse((host.state, host.by), (state, by));
        host.doubt = host.doubt.max(doubt);
    }
    let (mut confirmed, mut outstanding): (Vec<Host>, Vec<Host>) =
        hosts.into_values().partition(|host| host.state == StopState::Confirmed);
    confirmed.sort_by(|one, other| one.name.cmp(&other.name));
    outstanding.sort_by(|one, other| other.by.cmp(&one.by).then_with(|| one.name.cmp(&other.name)));
    let alive = || outstanding.iter().filter(|host| host.state != StopState::Lapsed);
    let progress = CurveData {
        stopped: after
            .stops
            .iter()
            .filter(|known| known.stop.confirmed)
            .map(|known| span(asked_at, known.began_at) + Duration::from_millis(known.stop.took_ms))
            .collect(),
        outstanding: alive().map(|host| host.agents).sum(),
        bound: alive().map(|host| span(asked_at, host.by)).max(),
        since: span(asked_at, now),
    };
    Tally { outstanding, confirmed, untold: after.devices.saturating_sub(told), outside, progress }
}

/// Of the states of two devices on one host, the one further from its end.
fn worse(one: (StopState, Timestamp), other: (StopState, Timestamp)) -> (StopState, Timestamp) {
    const fn rank(state: StopState) -> u8 {
        match state {
            StopState::Confirmed => 0,
            StopState::Lapsed => 1,
            StopState::Stopping => 2,
            StopState::Pending => 3,
        }
    }
    let state = if rank(other.0) > rank(one.0) { other.0 } else { one.0 };
    match (one.0, other.0) {
        // A confirmed stop waits for no lease.
        (StopState::Confirmed, _) => (state, other.1),
        (_, StopState::Confirmed) => (state, one.1),
        _ => (state, one.1.max(other.1)),
    }
}

/// The time from `earlier` to `later`; zero when they are in the other order.
fn span(earlier: Timestamp, later: Timestamp) -> Duration {
    later.duration_since(earlier).try_into().unwrap_or_default()
}

/// A host as a row of the page.
struct Row {
    name: String,
    state: Shown,
    agents: String,
    heard: When,
    by: When,
}

impl Row {
    fn new(host: &Host, now: Timestamp) -> Self {
        let (word, shape, class) = match (host.doubt, host.state) {
            (Some(Doubt::Contradictory), _) => ("Contradictory", "▲", "revoked"),
            (Some(Doubt::Unproven), _) => ("Not proven", "△", "revoked"),
            (None, StopState::Confirmed) => ("Confirmed", "✓", "allowed"),
            (None, StopState::Stopping) => ("Stopping", "…", "halted"),
            (None, StopState::Pending) => ("Not confirmed", "▲", "revoked"),
            (None, StopState::Lapsed) => ("Lease ended", "◇", "halted"),
        };
        Self {
            name: host.name.clone(),
            state: Shown { word, shape, class },
            agents: grouped(host.agents),
            heard: When::new(host.heard_at, now),
            by: When::new(host.by, now),
        }
    }
}

#[derive(Template)]
#[template(path = "console/board.html")]
struct Page {
    frame: Frame,
    place: String,
    restore: String,
    asked: When,
    reason: Option<String>,
    devices: u64,
    untold: u64,
    hosts: usize,
    confirmed: usize,
    /// Hosts that have not confirmed and whose lease still lasts.
    pending: usize,
    stopped: usize,
    left: u64,
    /// When the last lease ends, if one has not ended yet.
    last: Option<When>,
    curve: Picture,
    histogram: Option<Picture>,
    rows: Vec<Row>,
    /// The number of outstanding hosts beyond those shown.
    more: usize,
    confirmed_names: Vec<String>,
    more_confirmed: usize,
    /// Helpers that run on outside the trees.
    outside: Vec<String>,
    outside_count: usize,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path((org, at)): Path<(String, i64)>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let asked_at = Timestamp::from_microsecond(at).map_err(|_| Refused::NotFound)?;
    let after = app.store.aftermath(account.org.id, asked_at).await?.ok_or(Refused::NotFound)?;
    let now = now();
    let Tally { outstanding, confirmed, untold, outside, progress } = tally(&after, asked_at, now);
    let alive = outstanding.iter().filter(|host| host.state != StopState::Lapsed);
    let place = format!("{}/org/{}", app.console.base, account.org.id);
    let asked = When::new(asked_at, now);
    page(
        StatusCode::OK,
        &Page {
            frame: Frame::inside(&app, &visit, &account.org, Section::Stop, &format!("Stop of {}", asked.clock)),
            restore: format!("{place}/stop/{at}/restore"),
            place,
            asked,
            reason: after.reason,
            devices: after.devices,
            untold,
            hosts: outstanding.len() + confirmed.len(),
            confirmed: confirmed.len(),
            pending: alive.clone().count(),
            last: alive.map(|host| host.by).max().map(|by| When::new(by, now)),
            stopped: progress.stopped.len(),
            left: progress.outstanding,
            curve: pictures::curve(&progress),
            histogram: (!progress.stopped.is_empty()).then(|| pictures::histogram(&progress.stopped)),
            rows: outstanding.iter().take(SHOWN).map(|host| Row::new(host, now)).collect(),
            more: outstanding.len().saturating_sub(SHOWN),
            outside_count: outside.len(),
            outside: outside.into_iter().take(SHOWN).collect(),
            more_confirmed: confirmed.len().saturating_sub(SHOWN),
            confirmed_names: confirmed.into_iter().take(SHOWN).map(|host| host.name).collect(),
        },
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reports::{HeardDevice, KnownStop};
    use crate::store::HeardOf;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// A sidecar's report about a device at that second: whether it knows the stop of second 100, and how many agents
    /// run.
    fn heard(sidecar: u32, device: &str, second: i64, knows: bool, agents: u32) -> HeardOf {
        let stamp = knows.then(|| at(100).to_string());
        let said = json!({
            "version": "1", "host": format!("host:{sidecar}"), "bound": {"connectedMs": 1, "cutOffMs": 41_000},
            "push": true, "device": {
                "deviceId": device, "standing": if knows { "denied" } else { "allowed" }, "revokedAt": stamp,
                "agents": agents, "stopping": 0,
            },
        });
        let heard = HeardDevice::read(&format!("{sidecar:032x}"), at(second), &said.to_string()).unwrap();
        HeardOf { device: device.to_owned(), last_seen_at: None, heard }
    }

    fn stop(run: u32, second: i64, took_ms: u64, confirmed: bool) -> KnownStop {
        let body = json!({"sidecar": format!("{run:032x}"), "stop": {
            "deviceId": "a", "runId": format!("{run:032x}"), "code": "DEVICE_REVOKED", "agoMs": 0, "tookMs": took_ms,
            "signalled": 1, "killed": 0, "confirmed": confirmed,
        }});
        KnownStop::read(at(second), &body.to_string()).unwrap()
    }

    fn after(devices: u64, heard: Vec<HeardOf>, stops: Vec<KnownStop>) -> Aftermath {
        Aftermath { devices, reason: None, heard, stops }
    }

    fn names(hosts: &[Host]) -> Vec<&str> {
        hosts.iter().map(|host| host.name.as_str()).collect()
    }

    #[test]
    fn a_host_is_outstanding_until_it_confirms_this_stop_of_each_of_its_devices() {
        let rows = vec![
            heard(1, "a", 101, true, 0),
            heard(2, "b", 101, true, 0),
            heard(2, "c", 99, false, 2),
            heard(3, "d", 101, true, 1),
        ];
        let found = tally(&after(5, rows, vec![stop(1, 100, 300, true), stop(3, 101, 50, false)]), at(100), at(103));
        assert_eq!((names(&found.confirmed), names(&found.outstanding)), (vec!["host:1"], vec!["host:3", "host:2"]));
        assert_eq!(found.untold, 1);
        assert_eq!(
            found.outstanding.iter().map(|host| (host.state, host.agents)).collect::<Vec<_>>(),
            [(StopState::Stopping, 1), (StopState::Pending, 2)]
        );
        assert_eq!(found.outstanding[1].by, at(140), "41 seconds after it was last heard, before the stop");
        assert_eq!(found.progress.stopped, [Duration::from_millis(300)], "only what is confirmed");
        assert_eq!((found.progress.outstanding, found.progress.bound), (3, Some(Duration::from_secs(41))));
    }

    #[test]
    fn what_a_lease_has_ended_runs_no_more_and_is_confirmed_by_no_sidecar() {
        let rows = vec![heard(1, "a", 99, false, 4)];
        let found = tally(&after(1, rows, Vec::new()), at(100), at(141));
        assert_eq!((found.confirmed.len(), found.outstanding[0].state), (0, StopState::Lapsed));
        assert_eq!((found.progress.outstanding, found.progress.bound), (0, None));
    }

    #[test]
    fn of_two_devices_of_a_host_the_one_further_from_its_end_counts() {
        let states = [StopState::Confirmed, StopState::Lapsed, StopState::Stopping, StopState::Pending];
        for (place, one) in states.into_iter().enumerate() {
            for (other_place, other) in states.into_iter().enumerate() {
                let (state, by) = worse((one, at(1)), (other, at(2)));
                assert_eq!(state, states[place.max(other_place)]);
                let alone = other == StopState::Confirmed && one != StopState::Confirmed;
                assert_eq!(by, if alone { at(1) } else { at(2) }, "{one:?} {other:?}");
            }
        }
    }
}
