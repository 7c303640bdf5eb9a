//! Bodies of requests, tried with any bytes (`crate::fuzzing`).

use jiff::{SignedDuration, Timestamp};
use machineid_protocol::DeviceId;
use machineid_protocol::api::{LARGEST_BATCH, LARGEST_WATCH};
use machineid_protocol::report::Report;
use serde::de::IgnoredAny;

use super::ask::{BodyError, parsed, reason};
use super::wire::{
    ApprovalNamed, BatchBody, DeviceManaged, DeviceNamed, DeviceRegistered, DeviceRemoved, DeviceText, DevicesNamed,
    KeyNamed, KeyRotation, KeyWanted, Nothing, OnlyReason, PlanWanted, ReasonText,
};
use crate::audit::LONGEST_REASON;
use crate::batch::{self, BatchError, Named};
use crate::org::OrgId;
use crate::reports::{HeardDevice, HeardReport, KnownEvent, KnownStop};
use crate::store::WhichKey;

/// The first byte says which body the others are.
pub(crate) fn body(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 13 {
        0 => read::<DeviceNamed>(body, |body| device(&body.device_id)),
        1 => read::<DeviceRegistered>(body, |body| device(&body.device_id)),
        2 => read::<DeviceRemoved>(body, |body| {
            device(&body.device_id);
            said(body.reason);
        }),
        3 => read::<DeviceManaged>(body, |body| {
            device(&body.device_id);
            said(body.reason);
        }),
        4 => read::<BatchBody>(body, |body| {
            if let Some(ids) = body.device_ids {
                distinct(ids);
            }
            said(body.reason);
        }),
        5 => read::<DevicesNamed>(body, |body| body.device_ids.iter().for_each(device)),
        6 => read::<Nothing>(body, |_| ()),
        7 => read::<PlanWanted>(body, |body| {
            let _ = body.plan.parse::<crate::org::PlanTier>();
        }),
        8 => read::<KeyWanted>(body, |body| said(body.reason)),
        9 => read::<KeyNamed>(body, |body| {
            which(&body.key);
            said(body.reason);
        }),
        10 => read::<KeyRotation>(body, |body| {
            which(&body.key);
            said(body.reason);
        }),
        11 => read::<OnlyReason>(body, |body| said(body.reason)),
        _ => read::<ApprovalNamed>(body, |body| said(body.reason)),
    }
}

/// A body is an object in JSON, or refused.
fn read<T: serde::de::DeserializeOwned>(body: &[u8], check: impl FnOnce(T)) {
    match parsed::<T>(body) {
        Ok(read) => {
            // What is skipped may hold half a surrogate pair, which no `Value` takes.
            let json = serde_json::from_slice::<IgnoredAny>(body);
            assert!(json.is_ok() && str::from_utf8(body).is_ok(), "a body is JSON");
            check(read);
        }
        Err(error) => assert_eq!(error, BodyError::Malformed, "only the network makes a body late"),
    }
}

fn device(text: &DeviceText) {
    if let Ok(id) = text.0.parse::<DeviceId>() {
        assert_eq!(id.as_str(), text.0.trim(), "an id is what was sent");
        assert!((1..=DeviceId::LONGEST).contains(&id.as_str().len()));
    }
}

fn said(sent: Option<ReasonText>) {
    if let Ok(Some(reason)) = reason(sent) {
        let text = reason.as_str();
        assert!(!text.is_empty() && text.chars().count() <= LONGEST_REASON && !text.chars().any(char::is_control));
    }
}

fn which(text: &str) {
    if let Ok(which) = text.parse::<WhichKey>() {
        assert_eq!(which.to_string().parse(), Ok(which), "{text:?}");
    }
}

fn distinct(sent: Vec<String>) {
    let count = sent.len();
    match batch::distinct(sent) {
        Err(BatchError::Empty) => assert_eq!(count, 0),
        Err(BatchError::TooLarge) => assert!(count > LARGEST_BATCH),
        Ok(batch) => {
            assert!((1..=count).contains(&batch.len()));
            let mut ids: Vec<&DeviceId> = batch.iter().filter_map(|Named { id, .. }| id.as_ref()).collect();
            let all = ids.len();
            ids.sort();
            ids.dedup();
            assert!(ids.len() == all && all <= LARGEST_BATCH);
        }
    }
}

/// A report is refused, or what is kept of it is bounded, printable, and reads back.
pub(crate) fn report(data: &[u8]) {
    let Ok(report) = parsed::<Report>(data) else { return };
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let Some(heard) = HeardReport::take(OrgId::random(), report, None, now) else { return };
    let rows = heard.rows();
    assert!(heard.devices.len() <= LARGEST_WATCH && rows > heard.devices.len() && heard.sequence >= 0);
    let printable = |text: &str| !text.contains(['\u{1b}', '\u{202e}', '\u{feff}', '\u{0}']);
    for (id, body) in &heard.devices {
        let read = HeardDevice::read(&heard.sidecar.to_string(), now, body).expect("it reads back");
        assert!(
            &read.said.device.device_id == id && read.said.version.chars().count() <= 40 && printable(body),
            "{body}"
        );
    }
    let long_ago = now.saturating_sub(SignedDuration::from_hours(24 * 31)).expect("a time");
    for stop in &heard.stops {
        assert_eq!(KnownStop::read(stop.began_at, &stop.body()).as_ref(), Ok(stop), "{}", stop.body());
        assert!(printable(&stop.body()) && (long_ago..=now).contains(&stop.began_at));
    }
    for event in &heard.events {
        let read = KnownEvent::read(&heard.sidecar.to_string(), event.at, &event.body());
        assert_eq!(read.as_ref(), Ok(event), "{}", event.body());
        assert!(printable(&event.body()) && (long_ago..=now).contains(&event.at) && event.number() >= 0);
    }
}
