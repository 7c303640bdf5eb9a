//! Which sidecar this is, among all that may use a device: a random number, kept until the host boots again.

use std::fs;
use std::path::Path;

use tracing::warn;
use uuid::Uuid;

use crate::protocol::report::SidecarId;

/// The id in the runtime directory; a new one where there is none.
pub(super) fn resolve(runtime_dir: &Path) -> SidecarId {
    let path = runtime_dir.join("sidecar-id");
    if let Some(id) = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
        return id;
    }
    let id = SidecarId::random(Uuid::new_v4().as_u128());
    if let Err(error) = fs::write(&path, format!("{id}\n")) {
        warn!(%error, path = %path.display(), "cannot keep this sidecar's id: after a restart it reports as another one");
    }
    id
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
