//! One file of an agent's settings: read, and replaced as a whole, with its mode and owner. A copy of what was there before is
//! kept beside it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use machineid_hook::settings::{LONGEST, SettingsError};
use rustix::fs::{Access, AtFlags, CWD};

/// What the copy's name ends with. No agent reads files that end so.
const COPY: &str = ".before-machineid";
/// How often a file is read again that changes meanwhile.
const TRIES: usize = 3;

/// Why a file is left as it is.
#[derive(Debug, thiserror::Error)]
pub(in crate::host) enum FileError {
    #[error("{}: {source}", path.display())]
    Settings { path: PathBuf, source: SettingsError },
    #[error("{} is a link to nothing", path.display())]
    Dangling { path: PathBuf },
    #[error("{} is a link of another user, which root does not follow", path.display())]
    ForeignLink { path: PathBuf },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is longer than {} MiB, or not UTF-8", path.display(), LONGEST / 1024 / 1024)]
    NotText { path: PathBuf },
    #[error("{} is read-only", path.display())]
    ReadOnly { path: PathBuf },
    #[error("{} changes while it is written", path.display())]
    Changing { path: PathBuf },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl FileError {
    /// What to do, for a command that wanted to change the file.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Settings { .. } | Self::Dangling { .. } | Self::NotAFile { .. } | Self::NotText { .. } => {
                "nothing was changed; mend the file or move it away"
            }
            Self::ForeignLink { .. } => "nothing was changed; name the file itself",
            Self::ReadOnly { .. } => {
                "nothing was changed; make it writable (chmod u+w), or change it by hand (machineid hook install AGENT --print)"
            }
            Self::Changing { .. } => "nothing was changed; close the agent and try again",
            Self::Io { .. } => "the file is as it was, or as a whole the new one",
        }
    }
}

/// A file as it was read.
#[derive(Debug)]
pub(in crate::host) struct SettingsFile {
    /// The file itself, behind every link.
    pub(in crate::host) path: PathBuf,
    /// Its text, empty without a file.
    pub(in crate::host) text: String,
    about: Option<Metadata>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Change {
    Unchanged,
    Written,
    Removed,
}

impl SettingsFile {
    pub(in crate::host) fn read(path: &Path) -> Result<Self, FileError> {
        let owned = || path.to_owned();
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path: owned(), text: String::new(), about: None });
            }
            Err(source) => return Err(FileError::Io { action: "look at", path: owned(), source }),
        };
        let mut target = owned();
        if found.is_symlink() {
            if rustix::process::geteuid().is_root() && found.uid() != 0 {
                return Err(FileError::ForeignLink { path: owned() });
            }
            target = path.canonicalize().map_err(|_| FileError::Dangling { path: owned() })?;
        }
        // Without waiting: a pipe would have no writer.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&target);
        let file = file.map_err(|source| FileError::Io { action: "read", path: target.clone(), source })?;
        let about = file.metadata().map_err(|source| FileError::Io { action: "read", path: target.clone(), source })?;
        if !about.is_file() {
            return Err(FileError::NotAFile { path: target });
        }
        let mut bytes = Vec::new();
        let most = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 1;
        let read = file.take(most).read_to_end(&mut bytes);
        read.map_err(|source| FileError::Io { action: "read", path: target.clone(), source })?;
        if bytes.len() > LONGEST {
            return Err(FileError::NotText { path: target });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { path: target, text, about: Some(about) }),
            Err(_) => Err(FileError::NotText { path: target }),
        }
    }

    pub(in crate::host) const fn exists(&self) -> bool {
        self.about.is_some()
    }

    /// The copy of this file's text from before our change, if there is one.
    pub(in crate::host) fn copy(&self) -> Option<String> {
        fs::read_to_string(self.copy_path()).ok()
    }

    pub(in crate::host) fn copy_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(COPY);
        name.into()
    }

    fn is_writable(&self) -> bool {
        // Root may write to every file; that one is marked as read-only is said by its mode.
        self.about.as_ref().is_none_or(|about| {
            about.mode() & 0o222 != 0
                && rustix::fs::accessat(CWD, &self.path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
        })
    }

    /// Writes this text, or removes the file without one.
    fn replace(&self, text: Option<&str>, executable: bool) -> Result<Change, FileError> {
        if !self.is_writable() {
            return Err(FileError::ReadOnly { path: self.path.clone() });
        }
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| FileError::Io { action, path, source }
        };
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        if self.exists() && text.is_some() {
            let copy = self.copy_path();
            // The file as it was before our hook is worth more than one that has it.
            if !copy.exists() || !self.text.contains("machineid hook ") {
                self.write(&copy, &self.text, false).map_err(io("write the copy", &copy))?;
            }
        }
        match text {
            Some(text) => {
                make_directory(directory).map_err(io("make", directory))?;
                self.write(&self.path, text, executable).map_err(io("write", &self.path))?;
            }
            None => fs::remove_file(&self.path).map_err(io("remove", &self.path))?,
        }
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("write", directory))?;
        Ok(if text.is_some() { Change::Written } else { Change::Removed })
    }

    /// Writes a fresh file of the same mode and owner, and gives it the name of the old one.
    fn write(&self, place: &Path, text: &str, executable: bool) -> io::Result<()> {
        let mut name = place.as_os_str().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let fresh = PathBuf::from(name);
        // A file that a crash left behind is not written to: it could be a link.
        let _ = fs::remove_file(&fresh);
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&fresh)?;
        let written = (|| {
            if let Some(about) = &self.about {
                let bits = about.mode() & 0o7777 | if executable { 0o111 } else { 0 };
                own(&file, about.uid(), about.gid())?;
                file.set_permissions(fs::Permissions::from_mode(bits))?;
            } else if let Some(above) = place.parent().and_then(|above| above.metadata().ok()) {
                // Root writes into a user's directory for that user.
                own(&file, above.uid(), above.gid())?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, place)
        })();
        written.inspect_err(|_| {
            let _ = fs::remove_file(&fresh);
        })
    }
}

/// Changes a file by this function of its text; `None` removes it.
pub(in crate::host) fn change(
    path: &Path,
    executable: bool,
    edit: impl Fn(&SettingsFile) -> Result<Option<String>, SettingsError>,
) -> Result<Change, FileError> {
    for _ in 0..TRIES {
        let file = SettingsFile::read(path)?;
        let new = edit(&file).map_err(|source| FileError::Settings { path: file.path.clone(), source })?;
        match &new {
            None if !file.exists() => return Ok(Change::Unchanged),
            Some(new) if *new == file.text && (file.exists() || new.is_empty()) => return Ok(Change::Unchanged),
            Some(_) | None => {}
        }
        // An agent that runs may have written its settings meanwhile.
        if SettingsFile::read(path)?.text == file.text {
            return file.replace(new.as_deref(), executable);
        }
    }
    Err(FileError::Changing { path: path.to_owned() })
}

fn own(file: &File, uid: u32, gid: u32) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return fchown(file, Some(uid), Some(gid));
    }
    // A group that is not ours cannot be kept; the owner is us, or the file could not be replaced.
    let _ = fchown(file, None, Some(gid));
    Ok(())
}

/// Makes a directory and those above it, each owned as the one above it.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = directory.parent().unwrap_or(Path::new("/"));
    make_directory(above)?;
    fs::create_dir(directory)?;
    let about = above.metadata()?;
    own(&File::open(directory)?, about.uid(), about.gid())
}

#[cfg(test)]
#[path = "settings_file_tests.rs"]
mod tests;
