//! Serialises the registrations of each device: a second one under way when an operator removes the device would bring it
//! back. Registrations of different devices do not wait for each other, since an authority may be slow with one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use machineid_protocol::DeviceId;
use tokio::sync::OwnedMutexGuard;

type DeviceLock = Arc<tokio::sync::Mutex<()>>;

/// The devices that are being registered.
#[derive(Debug, Default)]
pub(super) struct Registering(Mutex<HashMap<DeviceId, DeviceLock>>);

/// The exclusive right to register one device, until dropped.
#[derive(Debug)]
pub(super) struct Alone<'a> {
    of: &'a Registering,
    device: DeviceId,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Registering {
    /// Waits until no other registration of this device is under way.
    pub(super) async fn alone(&self, device: &DeviceId) -> Alone<'_> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(device.clone()).or_default())
        };
        // Created before the wait, so that a cancelled wait cleans up as well.
        let mut alone = Alone { of: self, device: device.clone(), turn: None };
        alone.turn = Some(turn.lock_owned().await);
        alone
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut turns = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.turn = None;
        // Counted under the lock under which references are handed out: the map's own is the last.
        if turns.get(&self.device).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT_ONCE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn one_device_waits_for_itself_alone_and_nothing_is_kept() {
        let registering = Registering::default();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = registering.alone(&a).await;
        let second = tokio::time::timeout(AT_ONCE, registering.alone(&a)).await;
        assert!(second.is_err(), "the same device");
        let other = tokio::time::timeout(AT_ONCE, registering.alone(&b)).await;
        assert!(other.is_ok(), "another device");
        drop((first, other));
        let again = tokio::time::timeout(AT_ONCE, registering.alone(&a)).await;
        assert!(again.is_ok());
        drop(again);
        assert!(registering.0.lock().unwrap().is_empty());
    }
}
