//! Replaces a file as a whole: a reader, also one after a crash of the machine, finds either the old content or the new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the content to a temporary file that only its owner can read, waits until it is on disk, and renames it. On failure
/// the old file stays.
pub(crate) fn replace_file(place: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = place.as_os_str().to_owned();
    name.push(".new");
    let fresh = Path::new(&name);
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(fresh)?;
    file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(fresh, place)).inspect_err(
        |_| {
            // A partial file on a full disk has no use.
            let _ = fs::remove_file(fresh);
        },
    )?;
    // The name is part of the directory, which is synced separately.
    let directory = place.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_content_stays_when_the_new_one_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a.json");
        replace_file(&place, b"old").unwrap();
        fs::create_dir(directory.path().join("a.json.new")).unwrap();
        assert!(replace_file(&place, b"new").is_err());
        assert_eq!(fs::read(&place).unwrap(), b"old");
        fs::remove_dir(directory.path().join("a.json.new")).unwrap();
        replace_file(&place, b"new").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(fs::read(&place).unwrap(), b"new");
    }
}
