//! Markers of the devices that were registered since this boot: one empty file each, in the runtime directory.
//!
//! A device that an operator removed must stay removed, so a restarted daemon must not register it again; a rebooted host
//! must. The marker's name is a hash of the boot, the authority, the key and the device.
//!
//! The markers are read once, at the start. After that the daemon uses its memory, and the files serve the next daemon: no
//! gate waits for a disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use machineid_blocking::{Lost, Pool};
use machineid_protocol::DeviceId;
use sha2::{Digest, Sha256};

const PREFIX: &str = "registered-";
/// Time limit for writing a marker: the next daemon should know it, but a disk that hangs must not delay anything.
const PATIENCE: Duration = Duration::from_millis(500);

/// The markers of one authority. All instances of a daemon share their state.
#[derive(Clone, Debug)]
pub(crate) struct Markers {
    shared: Arc<Shared>,
    scope: Arc<str>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    boot_id: String,
    names: Mutex<HashSet<String>>,
    pool: Pool,
    /// Whether the directory now belongs to another daemon.
    displaced: AtomicBool,
}

impl Markers {
    /// Reads the existing markers. `boot_id` is the kernel's name for this boot, `authority` the base URL; `pool` runs the
    /// calls that write.
    pub(crate) fn open(directory: PathBuf, boot_id: &str, authority: &str, pool: Pool) -> Self {
        // If the directory cannot be read, devices are registered again, which is the only harm.
        let names = names_in(&directory).unwrap_or_default();
        let (boot_id, names) = (boot_id.trim().to_owned(), Mutex::new(names));
        let shared = Shared { directory, boot_id, names, pool, displaced: AtomicBool::new(false) };
        Self { scope: scope(&shared.boot_id, authority), shared: Arc::new(shared) }
    }

    /// The markers of another authority.
    pub(crate) fn at(&self, authority: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), scope: scope(&self.shared.boot_id, authority) }
    }

    /// Notes whether the directory now belongs to another daemon: then no file in it is touched.
    pub(crate) fn set_displaced(&self, displaced: bool) {
        self.shared.displaced.store(displaced, Ordering::SeqCst);
    }

    /// Recreates the files that are gone and returns their number: without them a restarted daemon would register a device
    /// that an operator has removed. May block.
    pub(crate) fn restore(&self) -> io::Result<usize> {
        let names = self.shared.names().clone();
        let mut restored = 0;
        for path in names.iter().map(|name| self.shared.directory.join(name)) {
            if !path.try_exists()? {
                fs::File::create(path)?;
                restored += 1;
            }
        }
        Ok(restored)
    }

    pub(crate) fn exists(&self, device: &DeviceId, key_fingerprint: &str) -> bool {
        self.shared.names().contains(&self.name(device, key_fingerprint))
    }

    /// Records a registration. Fails when the directory cannot be written or does not respond; a repeated registration by the
    /// next daemon is the only harm.
    pub(crate) async fn put(&self, device: &DeviceId, key_fingerprint: &str) -> io::Result<()> {
        let name = self.name(device, key_fingerprint);
        self.shared.names().insert(name.clone());
        let path = self.shared.directory.join(name);
        self.write(move || fs::File::create(path).map(drop)).await
    }

    pub(crate) async fn forget(&self, device: &DeviceId, key_fingerprint: &str) {
        let name = self.name(device, key_fingerprint);
        self.shared.names().remove(&name);
        let path = self.shared.directory.join(name);
        // A file left behind would only save a registration.
        let _ = self.write(move || fs::remove_file(path)).await;
    }

    async fn write(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        if self.shared.displaced.load(Ordering::SeqCst) {
            return Err(io::Error::other("this daemon no longer holds the lock of the directory"));
        }
        let written: Result<io::Result<()>, Lost> = self.shared.pool.call_within(PATIENCE, work).await;
        written.map_err(io::Error::other)?
    }

    fn name(&self, device: &DeviceId, key_fingerprint: &str) -> String {
        let digest = Sha256::new()
            .chain_update(&*self.scope)
            .chain_update(key_fingerprint)
            .chain_update("\0")
            .chain_update(device.as_str())
            .finalize();
        format!("{PREFIX}{}", hex::encode(&digest[..16]))
    }
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn scope(boot_id: &str, authority: &str) -> Arc<str> {
    format!("{boot_id}\0{authority}\0").into()
}

fn names_in(directory: &Path) -> io::Result<HashSet<String>> {
    let names = fs::read_dir(directory)?.filter_map(|file| file.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(PREFIX)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_blocking::Bounds;

    fn pool() -> Pool {
        Pool::new("test", Bounds { at_a_time: 1, most: 1 })
    }

    #[tokio::test]
    async fn a_marker_holds_for_one_boot_authority_key_and_device() {
        let directory = tempfile::tempdir().unwrap();
        let markers = |boot: &str, url: &str| Markers::open(directory.path().to_owned(), boot, url, pool());
        let device: DeviceId = "agent-01".parse().unwrap();
        let first = markers("boot-1", "https://a");
        first.put(&device, "key-1").await.unwrap();
        for known in [&first, &markers("boot-1\n", "https://a"), &markers("boot-1", "https://b").at("https://a")] {
            assert!(known.exists(&device, "key-1"));
            assert!(!known.exists(&device, "key-2"));
            assert!(!known.exists(&"agent-02".parse().unwrap(), "key-1"));
            assert!(!known.at("https://b").exists(&device, "key-1"));
        }
        assert!(!markers("boot-2", "https://a").exists(&device, "key-1"));
        first.forget(&device, "key-1").await;
        assert!(!first.exists(&device, "key-1") && !markers("boot-1", "https://a").exists(&device, "key-1"));
    }

    #[tokio::test]
    async fn a_marker_whose_file_is_gone_still_holds_and_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let markers = || Markers::open(directory.path().to_owned(), "boot-1", "https://a", pool());
        let device: DeviceId = "agent-01".parse().unwrap();
        let ours = markers();
        ours.put(&device, "key-1").await.unwrap();
        for file in fs::read_dir(directory.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        assert!(ours.exists(&device, "key-1") && !markers().exists(&device, "key-1"));
        assert_eq!((ours.restore().unwrap(), ours.restore().unwrap()), (1, 0));
        assert!(markers().exists(&device, "key-1"));
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_up_for_a_moment_and_what_is_registered_is_known_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (begins, begun) = tokio::sync::oneshot::channel();
        let hangs = pool.clone();
        let hanging = tokio::spawn(async move {
            let work = move || (begins.send(()), wait.recv());
            hangs.call_within(Duration::from_mins(1), work).await.map(drop)
        });
        // One that is given up before it begins holds no place.
        begun.await.unwrap();
        let markers = Markers::open(directory.path().to_owned(), "boot-1", "https://a", pool);
        let device: DeviceId = "agent-01".parse().unwrap();
        assert!(markers.put(&device, "key-1").await.is_err());
        assert!(markers.exists(&device, "key-1"));
        drop(release);
        hanging.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn no_marker_is_put_into_the_directory_of_another_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let markers = Markers::open(directory.path().to_owned(), "boot-1", "https://a", pool());
        let device: DeviceId = "agent-01".parse().unwrap();
        markers.at("https://b").set_displaced(true);
        assert!(markers.put(&device, "key-1").await.is_err());
        assert!(markers.exists(&device, "key-1") && fs::read_dir(directory.path()).unwrap().next().is_none());
    }
}
