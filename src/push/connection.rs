//! One open stream, and how long its silence is borne.

use std::collections::BTreeSet;
use std::time::Duration;

use machineid_client::{EventStream, Failure};
use machineid_clock::BootTime;
use machineid_protocol::DeviceId;
use machineid_protocol::decision::Unusable;

use super::hint::{self, Heard};

/// How long the first event may take.
const READY: Duration = Duration::from_secs(5);

/// A subscription that stands.
#[derive(Debug)]
pub(super) struct Connection {
    stream: EventStream,
    devices: BTreeSet<DeviceId>,
    /// A connection silent for longer than this counts as lost: nothing else reveals an unplugged cable.
    patience: Duration,
    heard_at: BootTime,
}

impl Connection {
    /// Waits until the subscription for these devices stands.
    pub(super) async fn opened(mut stream: EventStream, devices: BTreeSet<DeviceId>) -> Result<Self, Failure> {
        let event = tokio::time::timeout(READY, stream.next()).await.map_err(|_| Failure::Timeout { after: READY })?;
        let senseless = Failure::Unusable(Unusable::Malformed);
        match event?.map(|event| hint::read(&event)) {
            Some(Ok(Heard::Ready { heartbeat })) => {
                Ok(Self { stream, devices, patience: heartbeat * 2 + heartbeat / 2, heard_at: BootTime::now() })
            }
            Some(_) | None => Err(senseless),
        }
    }

    /// The devices it covers.
    pub(super) fn devices(&self) -> &BTreeSet<DeviceId> {
        &self.devices
    }

    /// What comes next. Fails when the stream is lost, with nothing when the other end closed it. Safe to drop and call
    /// again: silence is counted from the last word, not from the call.
    pub(super) async fn next(&mut self) -> Result<Heard, Option<Failure>> {
        let left = (self.heard_at + self.patience).saturating_since(BootTime::now());
        let silent = Failure::Timeout { after: self.patience };
        let event = tokio::time::timeout(left, self.stream.next()).await.map_err(|_| Some(silent))?;
        let event = event.map_err(Some)?.ok_or(None)?;
        self.heard_at = BootTime::now();
        hint::read(&event).map_err(|_| Some(Failure::Unusable(Unusable::Malformed)))
    }
}
