//! The programs under test: those of this build, or those of another build in a directory.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static ELSEWHERE: OnceLock<PathBuf> = OnceLock::new();

/// Takes all programs from this directory from now on. Only the first call counts.
#[allow(dead_code, reason = "each of the two test programs uses its part")]
pub(crate) fn take_from(directory: PathBuf) {
    let _ = ELSEWHERE.set(directory);
}

/// Where the program is that this build has at `built`.
pub(crate) fn program(built: &str) -> PathBuf {
    let built = Path::new(built);
    match (ELSEWHERE.get(), built.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        _ => built.to_owned(),
    }
}
