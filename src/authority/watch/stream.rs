//! Hints as server-sent events: `ready` when the subscription stands, then one event for each hint, and a heartbeat when
//! there was none for a while, by which a client knows a silent connection from a dead one.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use serde_json::json;

use super::hub::{Hint, Watcher};
use crate::protocol::DeviceId;
use crate::protocol::api::HEARTBEAT;

/// How many ids one event names at most: a reader need not take long ones.
const IDS_IN_ONE: usize = 100;

/// The body of the answer. `event` is what a hint is called.
pub(in crate::authority) fn body(watcher: Watcher, event: &'static str) -> Body {
    let beat = u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX);
    let ready = format!("event: ready\ndata: {}\n\n", json!({ "heartbeatMs": beat }));
    let start = (Some(ready), watcher);
    Body::from_stream(futures_util::stream::unfold(start, move |(first, mut watcher)| async move {
        if let Some(first) = first {
            return Some((Ok::<_, Infallible>(Bytes::from(first)), (None, watcher)));
        }
        let text = match within_a_beat(&mut watcher).await {
            None => ": alive\n\n".to_owned(),
            Some(Hint::Devices { ids, denied }) => some(event, &ids, denied),
            Some(Hint::All { denied }) => one(event, "all", true, denied),
            Some(Hint::End) => return None,
        };
        Some((Ok(Bytes::from(text)), (None, watcher)))
    }))
}

async fn within_a_beat(watcher: &mut Watcher) -> Option<Hint> {
    tokio::time::timeout(HEARTBEAT, watcher.next()).await.ok()
}

fn some(event: &str, devices: &[DeviceId], denied: bool) -> String {
    let chunk = |ids: &[DeviceId]| {
        let ids: Vec<&str> = ids.iter().map(DeviceId::as_str).collect();
        one(event, "deviceIds", ids, denied)
    };
    devices.chunks(IDS_IN_ONE).map(chunk).collect()
}

/// One event. `deny` tells a sidecar which of its budgets the hint is charged to; it is still to ask.
fn one(event: &str, name: &str, what: impl Into<serde_json::Value>, denied: bool) -> String {
    let mut data = serde_json::Map::from_iter([(name.to_owned(), what.into())]);
    if denied {
        data.insert("deny".to_owned(), true.into());
    }
    format!("event: {event}\ndata: {}\n\n", json!(data))
}
