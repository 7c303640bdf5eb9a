//! Which devices were registered since this boot: one empty file each, in the runtime directory.
//!
//! A device that an operator removed must stay removed, so a daemon that restarts must not register again; a host that
//! boots must. The marker's name is a hash over the boot, the authority, the key and the device.

use std::io;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::hex;
use crate::protocol::DeviceId;

/// The markers of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Markers {
    directory: PathBuf,
    scope: String,
}

impl Markers {
    /// `boot_id` is the kernel's name for this boot, `authority` the base URL.
    pub(crate) fn new(directory: PathBuf, boot_id: &str, authority: &str) -> Self {
        Self { directory, scope: format!("{}\0{authority}\0", boot_id.trim()) }
    }

    pub(crate) fn exists(&self, device: &DeviceId, key_fingerprint: &str) -> bool {
        self.path(device, key_fingerprint).exists()
    }

    /// Fails when the directory cannot be written; a repeated registration is the only harm.
    pub(crate) fn put(&self, device: &DeviceId, key_fingerprint: &str) -> io::Result<()> {
        std::fs::File::create(self.path(device, key_fingerprint)).map(drop)
    }

    pub(crate) fn forget(&self, device: &DeviceId, key_fingerprint: &str) {
        // Left behind, it would at most save a registration that is not wanted.
        let _ = std::fs::remove_file(self.path(device, key_fingerprint));
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
}
