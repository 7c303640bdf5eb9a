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
            Some(Hint::Devices(devices)) => some(event, &devices),
            Some(Hint::All) => format!("event: {event}\ndata: {{\"all\":true}}\n\n"),
            Some(Hint::End) => return None,
        };
        Some((Ok(Bytes::from(text)), (None, watcher)))
    }))
}

async fn within_a_beat(watcher: &mut Watcher) -> Option<Hint> {
    tokio::time::timeout(HEARTBEAT, watcher.next()).await.ok()
}

fn some(event: &str, devices: &[DeviceId]) -> String {
    let one = |ids: &[DeviceId]| {
        let ids: Vec<&str> = ids.iter().map(DeviceId::as_str).collect();
        format!("event: {event}\ndata: {}\n\n", json!({ "deviceIds": ids }))
    };
    devices.chunks(IDS_IN_ONE).map(one).collect()
}
