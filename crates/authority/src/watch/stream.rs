//! Hints as server-sent events: `ready` when the subscription is active, then one event for each hint, and a heartbeat
//! after a while without hints, so that a client can tell a silent connection from a dead one.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{StreamExt, stream};
use machineid_protocol::DeviceId;
use machineid_protocol::api::HEARTBEAT;
use serde_json::json;

use super::hub::{Hint, Watcher};

/// The maximum number of ids in one event, so that clients can limit the size of an event.
const IDS_IN_ONE: usize = 100;

/// The body of the answer. `event` is the name of a hint's event.
pub(crate) fn body(watcher: Watcher, event: &'static str) -> Body {
    let beat = u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX);
    let ready = Event::default().event("ready").data(json!({ "heartbeatMs": beat }).to_string());
    let hints = stream::unfold(watcher, move |mut watcher| async move {
        let events = match watcher.next().await {
            Hint::Devices { ids, denied } => some(event, &ids, denied),
            Hint::All { denied } => vec![one(event, "all", true, denied)],
            Hint::End => return None,
        };
        Some((stream::iter(events), watcher))
    });
    let events = stream::iter([ready]).chain(hints.flatten()).map(Ok::<_, Infallible>);
    let heartbeat = KeepAlive::new().interval(HEARTBEAT).text("alive");
    Sse::new(events).keep_alive(heartbeat).into_response().into_body()
}

fn some(event: &str, devices: &[DeviceId], denied: bool) -> Vec<Event> {
    let chunk = |ids: &[DeviceId]| {
        let ids: Vec<&str> = ids.iter().map(DeviceId::as_str).collect();
        one(event, "deviceIds", ids, denied)
    };
    devices.chunks(IDS_IN_ONE).map(chunk).collect()
}

/// One event. `deny` tells a sidecar which of its hint budgets to use; the sidecar still validates.
fn one(event: &str, name: &str, what: impl Into<serde_json::Value>, denied: bool) -> Event {
    let mut data = serde_json::Map::from_iter([(name.to_owned(), what.into())]);
    if denied {
        data.insert("deny".to_owned(), true.into());
    }
    Event::default().event(event).data(json!(data).to_string())
}
