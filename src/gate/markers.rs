//! Which devices were registered since this boot: one empty file each, in the runtime directory.
//!
//! A device that an operator removed must stay removed, so a daemon that restarts must not register again; a host that
//! boots must. The marker's name is a hash over the boot, the authority, the key and the device.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::hex;
use crate::protocol::DeviceId;

/// The markers of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Markers {
    directory: PathBuf,
    scope: String,
    /// Those that were put or found: they hold although their files may be gone.
    known: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Markers {
    /// `boot_id` is the kernel's name for this boot, `authority` the base URL.
    pub(crate) fn new(directory: PathBuf, boot_id: &str, authority: &str) -> Self {
        Self { directory, scope: format!("{}\0{authority}\0", boot_id.trim()), known: Arc::default() }
    }

    pub(crate) fn exists(&self, device: &DeviceId, key_fingerprint: &str) -> bool {
        let path = self.path(device, key_fingerprint);
        if self.known().contains(&path) {
            return true;
        }
        let exists = path.exists();
        if exists {
            self.known().insert(path);
        }
        exists
    }

    /// Makes those again whose files are gone, and says how many: without them a daemon that is started again would
    /// register a device that an operator has removed.
    pub(crate) fn restore(&self) -> io::Result<usize> {
        let known = self.known().clone();
        let mut restored = 0;
        for path in known {
            if !path.try_exists()? {
                std::fs::File::create(path)?;
                restored += 1;
            }
        }
        Ok(restored)
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when the directory cannot be written; a repeated registration is the only harm.
    pub(crate) fn put(&self, device: &DeviceId, key_fingerprint: &str) -> io::Result<()> {
        let path = self.path(device, key_fingerprint);
        self.known().insert(path.clone());
        std::fs::File::create(path).map(drop)
    }

    pub(crate) fn forget(&self, device: &DeviceId, key_fingerprint: &str) {
        // Left behind, it would at most save a registration that is not wanted.
        let path = self.path(device, key_fingerprint);
        self.known().remove(&path);
        let _ = std::fs::remove_file(path);
    }

    fn path(&self, device: &DeviceId, key_fingerprint: &str) -> PathBuf {
        let digest = Sha256::new()
            .chain_update(&self.scope)
            .chain_update(key_fingerprint)
            .chain_update("\0")
            .chain_update(device.as_str())
            .finalize();
        self.directory.join(format!("registered-{}", hex::of(&digest[..16])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_holds_for_one_boot_authority_key_and_device() {
        let directory = tempfile::tempdir().unwrap();
        let markers = |boot: &str, url: &str| Markers::new(directory.path().to_owned(), boot, url);
        let device: DeviceId = "agent-01".parse().unwrap();
        markers("boot-1", "https://a").put(&device, "key-1").unwrap();
        assert!(markers("boot-1\n", "https://a").exists(&device, "key-1"));
        assert!(!markers("boot-2", "https://a").exists(&device, "key-1"));
        assert!(!markers("boot-1", "https://b").exists(&device, "key-1"));
        assert!(!markers("boot-1", "https://a").exists(&device, "key-2"));
        assert!(!markers("boot-1", "https://a").exists(&"agent-02".parse().unwrap(), "key-1"));
    }

    #[test]
    fn a_marker_whose_file_is_gone_still_holds_and_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let markers = || Markers::new(directory.path().to_owned(), "boot-1", "https://a");
        let device: DeviceId = "agent-01".parse().unwrap();
        let ours = markers();
        ours.put(&device, "key-1").unwrap();
        for file in std::fs::read_dir(directory.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        assert!(ours.clone().exists(&device, "key-1") && !markers().exists(&device, "key-1"));
        assert_eq!(ours.restore().unwrap(), 1);
        assert!(markers().exists(&device, "key-1"));
        ours.forget(&device, "key-1");
        assert_eq!((ours.restore().unwrap(), ours.exists(&device, "key-1")), (0, false));
    }
}
