//! File operations that several modules share.

mod replace_file;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

pub(crate) use replace_file::replace_file;

/// Creates a directory with its parents. An existing directory is left as it is.
pub(crate) fn make_directory(directory: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory)
}
