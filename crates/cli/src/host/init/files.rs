//! Where `machineid init` writes, and the writing: new files alone, with the right modes.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use machineid_org_key::OrgKey;
use machineid_protocol::shell_word;

use super::choices::DEFAULT;
use crate::Env;
use crate::problem::Problem;

/// The places of a setup.
#[derive(Debug)]
pub(super) struct InitPlace {
    /// The directory of configuration and key.
    pub(super) directory: PathBuf,
    pub(super) config: PathBuf,
    pub(super) key: PathBuf,
    /// Whether everything else is kept below the directory as well.
    pub(super) alone: bool,
    /// Whether it is the system's place, which is root's.
    pub(super) system: bool,
}

impl InitPlace {
    /// The place that the daemon finds by itself, or the directory that was named.
    pub(super) fn of(named: Option<&Path>, env: Env<'_>) -> Result<Self, Problem> {
        let root = rustix::process::geteuid().is_root();
        let (directory, system) = match (named, root) {
            (Some(named), _) => {
                let absolute = std::path::absolute(named);
                (absolute.map_err(|error| Problem::usage(format!("--directory {}: {error}", named.display())))?, false)
            }
            (None, true) => (PathBuf::from("/etc/machineid"), true),
            (None, false) => {
                let home = env("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
                let home = home.ok_or_else(|| Problem::usage("HOME names no directory; use --directory"))?;
                (home.join(".config/machineid"), false)
            }
        };
        let (config, key) = (directory.join("machineid-sidecar.toml"), directory.join("org-key"));
        Ok(Self { directory, config, key, alone: named.is_some(), system })
    }

    /// Fails when a file is there already. The unchanged default of a package holds no decision of the user's.
    pub(super) fn refuse_existing(&self) -> Result<(), Problem> {
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        let found = [&self.config, &self.key, &self.admin_key()]
            .into_iter()
            .find(|path| exists(path) && !(**path == self.config && self.has_default()))
            .cloned();
        match found {
            None => Ok(()),
            Some(path) => Err(Problem::failure(format!(
                "{} exists, and nothing was changed: this host is set up already. machineid doctor checks it; edit {}, or \
                 name another place with --directory",
                path.display(),
                self.config.display()
            ))),
        }
    }

    /// Fails when another user may change what is in the directory: it could name another authority for the key.
    pub(super) fn refuse_shared(&self) -> Result<(), Problem> {
        let cannot = |why: String| Problem::failure(format!("{} {why}; nothing was changed", self.directory.display()));
        let about = fs::metadata(&self.directory).map_err(|error| cannot(format!("cannot be looked at: {error}")))?;
        let own = rustix::process::geteuid().as_raw();
        if about.uid() != own {
            return Err(cannot(format!(
                "belongs to uid {}, which could change the configuration: name another --directory",
                about.uid()
            )));
        }
        if about.mode() & 0o022 != 0 {
            let mode = about.mode() & 0o7777;
            return Err(cannot(format!(
                "can be changed by other users (mode {mode:04o}): chmod go-w {}",
                shell_word(&self.directory.to_string_lossy())
            )));
        }
        Ok(())
    }

    /// The operator's key of an authority of one's own.
    pub(super) fn admin_key(&self) -> PathBuf {
        self.directory.join("admin-key")
    }

    fn has_default(&self) -> bool {
        fs::read_to_string(&self.config).is_ok_and(|text| text == DEFAULT)
    }
}

/// The files that were made, to be removed when a later step fails.
#[derive(Debug, Default)]
pub(super) struct Made {
    files: Vec<PathBuf>,
    default_of: Option<PathBuf>,
}

impl Made {
    /// Makes a directory with those above it: open to all for root's configuration, else for its user alone.
    pub(super) fn directory(path: &Path, mode: u32) -> Result<(), Problem> {
        let created = DirBuilder::new().recursive(true).mode(mode).create(path);
        created.map_err(|error| Problem::failure(format!("cannot make {}: {error}", path.display())))
    }

    /// Writes the configuration, in the place of a default that is there.
    pub(super) fn config(&mut self, place: &InitPlace, text: &str) -> Result<(), Problem> {
        if place.has_default() {
            fs::remove_file(&place.config).map_err(|error| failed(&place.config, &error))?;
            self.default_of = Some(place.config.clone());
        }
        self.new_file(&place.config, text, 0o644)
    }

    /// Writes a key for its user alone.
    pub(super) fn key(&mut self, path: &Path, key: &OrgKey) -> Result<(), Problem> {
        self.new_file(path, &format!("{}\n", key.expose()), 0o600)
    }

    /// Remembers a file that another program made.
    pub(super) fn add(&mut self, path: PathBuf) {
        self.files.push(path);
    }

    fn new_file(&mut self, path: &Path, text: &str, mode: u32) -> Result<(), Problem> {
        // Fails if the file exists, or a link does.
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let mut file = opened.map_err(|error| failed(path, &error))?;
        self.files.push(path.to_owned());
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| failed(path, &error))
    }

    /// Removes what was made.
    pub(super) fn undo(self) {
        for path in self.files {
            let _ = fs::remove_file(path);
        }
        if let Some(path) = self.default_of {
            let _ = fs::write(path, DEFAULT);
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> Problem {
    Problem::failure(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_other_users_may_change_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("place");
        Made::directory(&directory, 0o700).unwrap();
        let place = InitPlace::of(Some(&directory), &|_| None).unwrap();
        assert!(place.refuse_shared().is_ok());
        for mode in [0o770, 0o707, 0o1777] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
            let problem = place.refuse_shared().unwrap_err().text;
            assert!(problem.contains("chmod go-w"), "{problem}");
        }
        // The root directory is root's; where root runs this test, another user's is needed.
        let foreign = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&directory, Some(65_534), None).unwrap();
            directory
        } else {
            PathBuf::from("/")
        };
        let place = InitPlace::of(Some(&foreign), &|_| None).unwrap();
        assert!(place.refuse_shared().unwrap_err().text.contains("belongs to uid"));
    }
}
