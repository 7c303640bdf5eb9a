//! The key of the chain, read from a file at the start.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use machineid_audit::key::{Chain, ShortKey};
use thiserror::Error;

/// The largest key file, in bytes.
const LARGEST: u64 = 4096;

/// Why the key cannot be used.
#[derive(Debug, Error)]
pub(crate) enum AuditKeyError {
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error("every user of this host can read it (mode {0:04o}), and so forge the audit; run chmod 600 on it")]
    WorldReadable(u32),
    #[error(transparent)]
    Short(#[from] ShortKey),
}

/// Reads the key.
pub(crate) fn read(path: &Path) -> Result<Chain, AuditKeyError> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        return Err(AuditKeyError::WorldReadable(mode));
    }
    let mut key = Vec::new();
    file.take(LARGEST).read_to_end(&mut key)?;
    Ok(Chain::keyed(&key)?)
}
