//! One open stream, with a time limit for its silence.

use std::collections::BTreeSet;
use std::time::Duration;

use machineid_client::{EventStream, Failure};
use machineid_clock::BootTime;
use machineid_protocol::DeviceId;
use machineid_protocol::decision::Unusable;

use super::hint::{self, Heard};

/// Time limit for the first event.
const READY: Duration = Duration::from_secs(5);

/// An active subscription.
#[derive(Debug)]
pub(super) struct Connection {
    stream: EventStream,
    devices: BTreeSet<DeviceId>,
    /// A connection silent for longer than this counts as lost: nothing else reveals an unplugged cable.
    patience: Duration,
    heard_at: BootTime,
}

impl Connection {
    /// Waits until the subscription for these devices is active.
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

    /// The devices that the subscription covers.
    pub(super) fn devices(&self) -> &BTreeSet<DeviceId> {
        &self.devices
    }

    /// The next event. Fails when the stream is lost, without a cause when the authority closed it. Cancel-safe: silence is
    /// measured from the last event, not from the call.
    pub(super) async fn next(&mut self) -> Result<Heard, Option<Failure>> {
        let left = (self.heard_at + self.patience).saturating_since(BootTime::now());
        let silent = Failure::Timeout { after: self.patience };
        let event = tokio::time::timeout(left, self.stream.next()).await.map_err(|_| Some(silent))?;
        let event = event.map_err(Some)?.ok_or(None)?;
        self.heard_at = BootTime::now();
        hint::read(&event).map_err(|_| Some(Failure::Unusable(Unusable::Malformed)))
    }
}
