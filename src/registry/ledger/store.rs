//! The directory of the records: one file per run, accessible to the daemon's user alone, each replaced as a whole.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use machineid_protocol::RunId;
use rustix::fs::OFlags;
use tracing::{debug, warn};

use super::run_record::{Here, RunRecord, Unfit};
use crate::disk::make_directory;

/// The largest record, in bytes: its command line is shortened.
const LARGEST: u64 = 64 * 1024;
/// The end of a record's file name, after the run id.
const SUFFIX: &str = ".json";
/// The same while the record is being written.
const UNFINISHED: &str = ".new";
/// Appended to the name of a file that is set aside.
const ASIDE: &str = ".aside";

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    here: Here,
    /// Whether the directory above now belongs to another daemon. Clones share this.
    displaced: Arc<AtomicBool>,
}

impl Store {
    /// Opens the directory `runs` below the runtime directory, which must exist; creates it when it is missing.
    ///
    /// Fails when the directory cannot be created, or belongs to another user: its contents decide which processes are ended.
    pub(crate) fn open(runtime_dir: &Path, here: Here) -> io::Result<Self> {
        let directory = runtime_dir.join("runs");
        own_directory(&directory)?;
        Ok(Self { directory, here, displaced: Arc::default() })
    }

    /// Notes whether the runtime directory now belongs to another daemon: then nothing is written into it.
    pub(crate) fn set_displaced(&self, displaced: bool) {
        self.displaced.store(displaced, Ordering::SeqCst);
    }

    /// Writes a record, replacing an older one of the same run.
    ///
    /// Not synced to the disk: the record must survive the daemon, not the machine; after a reboot it is invalid.
    ///
    /// Also fails when the directory belongs to another daemon, which would take the run for its own.
    pub(crate) fn write(&self, record: &RunRecord) -> io::Result<()> {
        if self.displaced.load(Ordering::SeqCst) {
            return Err(io::Error::other("this daemon no longer holds the lock of the directory"));
        }
        let fresh = self.directory.join(format!("{}{UNFINISHED}", record.id));
        let text = record.to_text(&self.here);
        let written = match write_whole(&fresh, &text) {
            // The directory was removed, perhaps with the one above it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = self.directory.parent().map_or(Ok(()), |above| make_directory(above, 0o700));
                above.and_then(|()| own_directory(&self.directory)).and_then(|()| write_whole(&fresh, &text))
            }
            other => other,
        };
        let written = written.and_then(|()| fs::rename(&fresh, self.path(record.id)));
        if written.is_err() {
            // A partial file on a full disk has no use.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    /// The runs that have a record; none when the directory is gone.
    pub(crate) fn known(&self) -> io::Result<HashSet<RunId>> {
        let files = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
            other => other?,
        };
        let mut known = HashSet::new();
        for file in files {
            let name = file?.file_name();
            known.extend(name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse::<RunId>().ok()));
        }
        Ok(known)
    }

    /// Removes a run's record, if there is one.
    pub(crate) fn remove(&self, id: RunId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Reads every record of this boot. Records of other boots are removed; anything else is reported and set aside under a
    /// name that is not read again.
    pub(crate) fn read_all(&self) -> io::Result<Vec<RunRecord>> {
        let mut records = Vec::new();
        for file in fs::read_dir(&self.directory)? {
            let path = file?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.strip_suffix(ASIDE).is_some() {
                continue;
            }
            match self.read(&path, name) {
                Ok(record) => records.push(record),
                Err(Unfit::OtherBoot) => {
                    debug!(file = %path.display(), "removing the record of a run of another boot");
                    let _ = fs::remove_file(&path);
                }
                // A daemon was killed while it wrote this file; the record itself is still complete.
                Err(Unfit::Foreign(_)) if name.strip_suffix(UNFINISHED).is_some() => {
                    let _ = fs::remove_file(&path);
                }
                Err(Unfit::Foreign(problem)) => {
                    warn!(
                        file = %path.display(), problem,
                        "this is not a record of a run of this daemon; ignoring it. An agent that it names continues \
                         on the lease that its wrapper enforces"
                    );
                    let mut aside = path.clone().into_os_string();
                    aside.push(ASIDE);
                    let _ = fs::rename(&path, aside);
                }
            }
        }
        Ok(records)
    }

    fn read(&self, path: &Path, name: &str) -> Result<RunRecord, Unfit> {
        let foreign = |problem: String| Unfit::Foreign(problem);
        let id = name.strip_suffix(SUFFIX).and_then(|id| id.parse::<RunId>().ok());
        let id = id.ok_or_else(|| foreign("it is not named after a run".to_owned()))?;
        let text = read_ours(path).map_err(|error| foreign(error.to_string()))?;
        let record = RunRecord::from_text(&text, &self.here)?;
        if record.id != id {
            return Err(foreign("its content names another run than its file name".to_owned()));
        }
        Ok(record)
    }

    fn path(&self, id: RunId) -> PathBuf {
        self.directory.join(format!("{id}{SUFFIX}"))
    }
}

/// Creates the directory when it is missing. Fails when that is impossible, or when the directory belongs to another user.
fn own_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let about = fs::symlink_metadata(directory)?;
    if !about.is_dir() || about.uid() != rustix::process::geteuid().as_raw() {
        let problem = "it must be a directory of the daemon's own user; move it away";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)
}

/// Reads a file that only the daemon's user owns and can write.
fn read_ours(path: &Path) -> io::Result<Vec<u8>> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o077 != 0 {
        return Err(io::Error::other("it is not a file of the daemon's user alone"));
    }
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {LARGEST} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
