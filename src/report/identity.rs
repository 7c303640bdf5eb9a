//! The secret of this sidecar, from which its id is made: random, and kept until the host reboots.
//!
//! It is in the runtime directory and not in the state directory, because a state directory is copied with a machine's image:
//! two machines with one secret would be one sidecar to the authority, and each would overwrite the reports of the other.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use machineid_org_key::sidecar::SidecarSecret;
use machineid_protocol::report::SidecarId;
use tracing::warn;

/// The rights of group and others.
const OTHERS: u32 = 0o077;

/// The mode of the file: a process that reads it can report as this sidecar.
const MODE: u32 = 0o600;

/// The secret in the runtime directory; a new one if there is none. Fails when the host gives no random bytes.
pub(crate) fn resolve(runtime_dir: &Path) -> io::Result<SidecarSecret> {
    let path = place(runtime_dir);
    if let Some(secret) = read(&path) {
        return Ok(secret);
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let secret = SidecarSecret::of(random);
    if let Err(error) = write(&path, &secret) {
        warn!(%error, path = %path.display(), "cannot save this sidecar's secret: after a restart it reports as another \
                                               sidecar");
    }
    Ok(secret)
}

/// The id of the sidecar with this secret.
pub(crate) fn id_of(secret: &SidecarSecret) -> SidecarId {
    SidecarId::random(secret.id_bits())
}

/// Writes the file again if it is gone; returns whether it was.
pub(crate) fn restore(runtime_dir: &Path, secret: &SidecarSecret) -> io::Result<bool> {
    let path = place(runtime_dir);
    let gone = !path.try_exists()?;
    if gone {
        write(&path, secret)?;
    }
    Ok(gone)
}

fn place(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("sidecar-secret")
}

/// The secret in the file. One that other users could have read is not used.
fn read(path: &Path) -> Option<SidecarSecret> {
    let alone =
        fs::symlink_metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & OTHERS == 0);
    if alone { fs::read_to_string(path).ok()?.trim().parse().ok() } else { None }
}

fn write(path: &Path, secret: &SidecarSecret) -> io::Result<()> {
    // Removed and made again: an existing file would keep its mode, and its readers.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(format!("{}\n", secret.expose()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_stays_as_long_as_the_runtime_directory_and_garbage_or_a_readable_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sidecar-secret");
        let id = || id_of(&resolve(directory.path()).unwrap());
        let first = id();
        assert_eq!(id(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        fs::write(&path, "garbage").unwrap();
        let second = id();
        assert_ne!(second, first);
        assert_eq!(id(), second);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_ne!(id(), second, "another user may have read it");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    }

    #[test]
    fn a_removed_file_is_written_again_with_the_same_secret() {
        let directory = tempfile::tempdir().unwrap();
        let secret = resolve(directory.path()).unwrap();
        assert!(!restore(directory.path(), &secret).unwrap());
        fs::remove_file(directory.path().join("sidecar-secret")).unwrap();
        assert!(restore(directory.path(), &secret).unwrap());
        assert_eq!(resolve(directory.path()).unwrap().id_bits(), secret.id_bits());
    }
}
