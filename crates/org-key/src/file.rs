//! Reading an org key from a file, by the same rules wherever that is done.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::OrgKey;

/// No key file is larger, in bytes.
const LARGEST: u64 = 4096;

/// Whether a pipe may stand in the file's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    /// `--org-key-file <(pass show machineid)`: it is waited for.
    Taken,
    /// A daemon reads its file again and again, and must not hang on a pipe put there.
    Refused,
}

/// Reads the key. The error is a sentence about the file that names neither it nor what is in it.
///
/// Fails when it cannot be read, is no file, can be read by everybody (unless its mode is the platform's), is too large,
/// or holds no key.
pub fn read(path: &Path, pipe: Pipe, mode_is_the_platforms: bool) -> Result<OrgKey, String> {
    let mut options = OpenOptions::new();
    options.read(true);
    if pipe == Pipe::Refused {
        options.custom_flags(libc::O_NONBLOCK);
    }
    let mut file = options.open(path).map_err(|error| format!("cannot open it: {error}"))?;
    // Asked of the open file, so that what is judged is what is read.
    let about = file.metadata().map_err(|error| format!("cannot look at it: {error}"))?;
    let taken_pipe = pipe == Pipe::Taken && about.file_type().is_fifo();
    if !(about.is_file() || taken_pipe) {
        return Err("it is not a regular file; name the file that holds the org key".to_owned());
    }
    if about.mode() & 0o004 != 0 && !mode_is_the_platforms {
        let mode = about.mode() & 0o777;
        return Err(format!("every user of this host can read it (mode {mode:04o}); chmod 600 {}", path.display()));
    }
    let mut text = String::new();
    let read = (&mut file).take(LARGEST + 1).read_to_string(&mut text);
    read.map_err(|error| format!("cannot read it: {error}"))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST) {
        return Err(format!("it is larger than {LARGEST} bytes, and should hold the key alone"));
    }
    text.parse().map_err(|error: crate::OrgKeyError| error.to_string())
}
