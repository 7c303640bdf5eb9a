//! The id of this sidecar among all that may use a device: a random number, kept until the host reboots.

use std::path::{Path, PathBuf};
use std::{fs, io};

use machineid_protocol::report::SidecarId;
use tracing::warn;
use uuid::Uuid;

/// The id in the runtime directory; a new one if there is none.
pub(crate) fn resolve(runtime_dir: &Path) -> SidecarId {
    let path = place(runtime_dir);
    if let Some(id) = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
        return id;
    }
    let id = SidecarId::random(Uuid::new_v4().as_u128());
    if let Err(error) = write(&path, id) {
        warn!(%error, path = %path.display(), "cannot save this sidecar's id: after a restart it reports as another \
                                               sidecar");
    }
    id
}

/// Writes the file again if it is gone; returns whether it was.
pub(crate) fn restore(runtime_dir: &Path, id: SidecarId) -> io::Result<bool> {
    let path = place(runtime_dir);
    let gone = !path.try_exists()?;
    if gone {
        write(&path, id)?;
    }
    Ok(gone)
}

fn place(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("sidecar-id")
}

fn write(path: &Path, id: SidecarId) -> io::Result<()> {
    fs::write(path, format!("{id}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_as_long_as_the_runtime_directory_and_garbage_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let first = resolve(directory.path());
        assert_eq!(resolve(directory.path()), first);
        fs::write(directory.path().join("sidecar-id"), "garbage").unwrap();
        let second = resolve(directory.path());
        assert_ne!(second, first);
        assert_eq!(resolve(directory.path()), second);
    }
}
