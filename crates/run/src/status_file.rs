//! The status file. It is replaced whole or not at all, so that a reader never sees half of it; and an agent that may
//! write to its directory cannot redirect it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// How to write to the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nothing or a regular file is there: rename a new file to the path.
    Replace,
    /// A pipe or a character device such as `/dev/null` is there: write to it. A file that took its place would serve
    /// no purpose and, written by root, destroy the device.
    Through,
}

/// Fails when nothing can be written there. To be called before the command runs, whose outcome would be lost.
pub(super) fn check(path: &Path) -> io::Result<()> {
    way(path).map(drop)
}

/// Writes the status file.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    match way(path)? {
        Way::Replace => replace(path, text),
        Way::Through => {
            // Without a reader, opening a pipe fails instead of waiting.
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            OpenOptions::new().write(true).custom_flags(flags).open(path)?.write_all(text.as_bytes())
        }
    }
}

fn way(path: &Path) -> io::Result<Way> {
    let kind = match fs::symlink_metadata(path) {
        Ok(about) => about.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Way::Replace),
        Err(error) => return Err(error),
    };
    let no = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what.to_owned()));
    if kind.is_file() {
        Ok(Way::Replace)
    } else if kind.is_fifo() || kind.is_char_device() {
        Ok(Way::Through)
    } else if kind.is_symlink() {
        // If it were followed, an agent's link would lead a wrapper that runs as root to any file; if it were replaced,
        // /dev/stdout would be gone.
        no("it is a link; name the file itself, or a pipe")
    } else {
        no("it is neither a file nor a pipe")
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status");
        fs::write(&path, "old and longer").unwrap();
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write(&directory.path().join("missing/status"), "new").is_err());
    }

    #[test]
    fn a_link_is_neither_followed_nor_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (path, target) = (directory.path().join("status"), directory.path().join("target"));
        fs::write(&target, "another user's").unwrap();
        symlink(&target, &path).unwrap();
        assert!(check(&path).unwrap_err().to_string().contains("link"));
        assert!(write(&path, "new").is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "another user's");
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert!(check(directory.path()).is_err());
    }

    #[test]
    fn a_pipe_is_written_to_and_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(write(&path, "new").is_err(), "no process reads it");
        let mut reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        write(&path, "new").unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "new");
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    }
}
