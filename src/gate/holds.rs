//! Holds: devices that an operator denied on this host until released, without the authority and beyond a restart of the
//! daemon.
//!
//! A hold is in force before it is written to disk, and is released only after the release is on disk: whatever fails, the
//! device stays denied. Holds are kept in the state directory, so that a reboot does not undo an operator's stop.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machineid_clock as clock;
use machineid_protocol::status::HoldReport;
use machineid_protocol::{Code, Denial, DeviceId};
use serde::{Deserialize, Serialize};

use crate::disk::replace_file;
/// The devices that are held.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Holds {
    place: PathBuf,
    held: Mutex<BTreeMap<DeviceId, HeldDevice>>,
    /// Whether there are any holds: every check reads this first.
    any: AtomicBool,
    /// One change is written at a time.
    writing: Mutex<()>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct HeldDevice {
    since: String,
    by_uid: u32,
}

impl Holds {
    /// Reads the holds from this file, which need not exist.
    ///
    /// Fails when the file cannot be read or parsed: then it is unknown which devices must be denied.
    pub(crate) fn open(place: PathBuf) -> io::Result<Self> {
        let held = match fs::read(&place) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let any = AtomicBool::new(!held.is_empty());
        Ok(Self { place, held: Mutex::new(held), any, writing: Mutex::default() })
    }

    /// The deny for a held device; `None` if the device is not held.
    pub(crate) fn denial(&self, device: &DeviceId) -> Option<Denial> {
        if !self.any.load(Ordering::SeqCst) {
            return None;
        }
        self.held().get(device).map(|held| {
            let reason = format!(
                "uid {} has held {device} on this host since {}; release it with: machineid release --device {device}",
                held.by_uid, held.since
            );
            Denial::local(Code::LocalStop, reason)
        })
    }

    /// Holds a device from now on; returns `false` when it is held already.
    pub(crate) fn hold(&self, device: &DeviceId, by_uid: u32) -> bool {
        let since = clock::wall_now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let held = HeldDevice { since, by_uid };
        let mut all = self.held();
        let news = !all.contains_key(device);
        all.entry(device.clone()).or_insert(held);
        self.any.store(true, Ordering::SeqCst);
        news
    }

    /// Writes the holds to disk. On failure they stay in force as long as the daemon runs.
    pub(crate) fn keep(&self) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held().clone();
        write(&self.place, &held)
    }

    /// Writes the holds again if their file is gone; returns whether it was.
    pub(crate) fn restore(&self) -> io::Result<bool> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held().clone();
        let gone = !held.is_empty() && !self.place.try_exists()?;
        if gone {
            write(&self.place, &held)?;
        }
        Ok(gone)
    }

    /// Releases a device, or all; returns the devices that were held.
    ///
    /// Fails when the release cannot be written to disk; then everything stays held.
    pub(crate) fn release(&self, device: Option<&DeviceId>) -> io::Result<Vec<DeviceId>> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.held().clone();
        let (released, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
            before.into_iter().partition(|(held, _)| device.is_none_or(|device| device == held));
        if !released.is_empty() {
            write(&self.place, &left)?;
            let mut held = self.held();
            held.retain(|held, _| !released.contains_key(held));
            self.any.store(!held.is_empty(), Ordering::SeqCst);
        }
        Ok(released.into_keys().collect())
    }

    /// The held devices.
    pub(crate) fn all(&self) -> Vec<HoldReport> {
        let report = |(device, held): (&DeviceId, &HeldDevice)| HoldReport {
            device_id: device.clone(),
            since: held.since.clone(),
            by_uid: held.by_uid,
        };
        self.held().iter().map(report).collect()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<DeviceId, HeldDevice>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces the file as a whole and waits until it is on disk: it must survive a crash of the machine.
fn write(place: &Path, held: &BTreeMap<DeviceId, HeldDevice>) -> io::Result<()> {
    if let Some(directory) = place.parent() {
        crate::disk::make_directory(directory, 0o700)?;
    }
    replace_file(place, &serde_json::to_vec_pretty(held).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    #[test]
    fn a_hold_outlives_the_daemon_and_a_release_too() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state/holds.json");
        let holds = Holds::open(place.clone()).unwrap();
        assert!(holds.hold(&device("a:1"), 7) && !holds.hold(&device("a:1"), 8) && holds.hold(&device("b"), 0));
        holds.keep().unwrap();
        let again = Holds::open(place.clone()).unwrap();
        let denial = again.denial(&device("a:1")).unwrap();
        assert!(denial.code == Code::LocalStop && denial.reason.unwrap().contains("uid 7"));
        assert_eq!(again.release(Some(&device("c"))).unwrap(), []);
        assert_eq!(again.release(Some(&device("a:1"))).unwrap(), [device("a:1")]);
        assert_eq!(again.denial(&device("a:1")), None);
        let left = Holds::open(place).unwrap();
        assert_eq!(left.all().iter().map(|held| held.device_id.as_str().to_owned()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(left.release(None).unwrap(), [device("b")]);
        assert!(left.all().is_empty());
    }

    #[test]
    fn what_cannot_be_written_down_is_held_and_not_released() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("state/holds.json");
        let holds = Holds::open(place).unwrap();
        holds.hold(&device("a"), 0);
        holds.keep().unwrap();
        // In the place of the new file: not even root can write to a directory.
        fs::create_dir(directory.path().join("state/holds.json.new")).unwrap();
        holds.hold(&device("b"), 0);
        assert!(holds.keep().is_err() && holds.release(None).is_err());
        assert!(holds.denial(&device("a")).is_some() && holds.denial(&device("b")).is_some());
    }

    #[test]
    fn what_is_held_must_be_understood() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("holds.json");
        fs::write(&place, "{\"a\":").unwrap();
        assert!(Holds::open(place).is_err());
    }
}
