//! Reading an org key from a file, by the same rules in every program.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{error, fmt};

use crate::{OrgKey, OrgKeyError};

/// The largest key file, in bytes.
const LARGEST: u64 = 4096;

/// Whether a pipe may stand in the file's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    /// A pipe is read to its end, as in `--org-key-file <(pass show machineid)`.
    Taken,
    /// A pipe is refused: a daemon reads its file again and again, and must not hang on a pipe.
    Refused,
}

/// Why no key was read from a file. Each text is a sentence about the file that shows nothing of its content; the caller
/// names the file before it.
#[derive(Debug)]
pub enum KeyFileError {
    /// The file cannot be opened.
    Open(io::Error),
    /// The file's type and mode cannot be found out.
    Metadata(io::Error),
    /// The path names a directory, a device or, where none is taken, a pipe.
    NotRegular,
    /// Every user of the host may read the file.
    WorldReadable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be read, or is not UTF-8.
    Read(io::Error),
    /// The file is larger than any key.
    TooLarge,
    /// What the file holds is not an org key.
    Key(OrgKeyError),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "cannot open it: {error}"),
            Self::Metadata(error) => write!(f, "cannot read its metadata: {error}"),
            Self::NotRegular => f.write_str("it is not a regular file; name the file that holds the org key"),
            Self::WorldReadable { path, mode } => {
                write!(f, "every user of this host can read it (mode {mode:04o}); chmod 600 {}", path.display())
            }
            Self::Read(error) => write!(f, "cannot read it: {error}"),
            Self::TooLarge => write!(f, "it is larger than {LARGEST} bytes; it should hold the key alone"),
            Self::Key(error) => write!(f, "{error}"),
        }
    }
}

impl error::Error for KeyFileError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Open(error) | Self::Metadata(error) | Self::Read(error) => Some(error),
            Self::Key(error) => Some(error),
            Self::NotRegular | Self::WorldReadable { .. } | Self::TooLarge => None,
        }
    }
}

/// Reads the key. A file that every user may read is refused, unless `mode_is_the_platforms`: then a platform, such as a
/// container's secrets, sets its mode.
pub fn read(path: &Path, pipe: Pipe, mode_is_the_platforms: bool) -> Result<OrgKey, KeyFileError> {
    let mut options = OpenOptions::new();
    options.read(true);
    if pipe == Pipe::Refused {
        options.custom_flags(libc::O_NONBLOCK);
    }
    let mut file = options.open(path).map_err(KeyFileError::Open)?;
    // Asked of the open file, so that the file that is judged is the one that is read.
    let about = file.metadata().map_err(KeyFileError::Metadata)?;
    let taken_pipe = pipe == Pipe::Taken && about.file_type().is_fifo();
    if !(about.is_file() || taken_pipe) {
        return Err(KeyFileError::NotRegular);
    }
    if about.mode() & 0o004 != 0 && !mode_is_the_platforms {
        return Err(KeyFileError::WorldReadable { path: path.to_owned(), mode: about.mode() & 0o777 });
    }
    let mut text = String::new();
    (&mut file).take(LARGEST + 1).read_to_string(&mut text).map_err(KeyFileError::Read)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST) {
        return Err(KeyFileError::TooLarge);
    }
    text.parse().map_err(KeyFileError::Key)
}
