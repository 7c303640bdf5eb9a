//! Reads every file that a reload concerns. Any of it may block, so all of it is one call on a thread of its own.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use machineid_client::AuthorityClient;
use machineid_org_key::OrgKey;

use super::SettingsSource;
use crate::config::changes::Changes;
use crate::config::org_key::{self, KeySource};
use crate::config::{self, ConfigError, Origin, Settings};
use crate::daemon::sidecar::{ca_pem_of, client_of};
use crate::gate::keyed_client::KeyedClient;

/// The settings in force, and where to read their successors.
#[derive(Debug)]
pub(super) struct FilesToRead {
    pub(super) source: SettingsSource,
    pub(super) running: Arc<Settings>,
    pub(super) keyed: Arc<KeyedClient>,
    pub(super) progress: Progress,
}

/// The file that is being read, so that a read that hangs can be reported with its path.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Mutex<PathBuf>>);

/// The contents of the files.
#[derive(Debug)]
pub(super) struct FilesRead {
    pub(super) changes: Changes,
    pub(super) key: Result<SourcedKey, ConfigError>,
    /// A new client of the authority, if one is needed.
    pub(super) client: Result<Option<AuthorityClient>, ConfigError>,
    /// What cannot be put in force, and why.
    pub(super) problems: Vec<String>,
    /// Every file to watch for changes.
    pub(super) paths: Vec<PathBuf>,
}

/// A key and its source.
#[derive(Debug)]
pub(super) struct SourcedKey {
    pub(super) source: KeySource,
    pub(super) key: OrgKey,
}

impl Progress {
    pub(super) fn at(&self) -> PathBuf {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reads(&self, path: &Path) {
        path.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl FilesToRead {
    pub(super) fn read(&self) -> FilesRead {
        let mut paths = BTreeSet::new();
        let mut problems = Vec::new();
        let (settings, key) = self.settings_and_key(&mut paths).unwrap_or_else(|error| {
            problems.push(error.to_string());
            // The key is independent of the settings' error.
            (Settings::clone(&self.running), self.key(&self.running))
        });
        let changes = Changes::between(&self.running, settings);
        problems.extend(changes.needs_restart.iter().map(ToString::to_string));
        let client = self.client(&changes.settings, &mut problems);
        paths.extend(self.running_paths());
        problems.extend(paths.iter().filter(|path| is_left_behind(path)).map(|path| {
            format!(
                "{} was replaced at the place it is mounted from, and this mount still shows the old file; mount its \
                 directory instead",
                path.display()
            )
        }));
        FilesRead { changes, key, client, problems, paths: paths.into_iter().collect() }
    }

    /// The settings and the key in the files now. `named` receives the paths of the files that they name, including missing
    /// ones, which may appear later. Fails when the settings are wrong, or name a key file that does not exist.
    fn settings_and_key(
        &self,
        named: &mut BTreeSet<PathBuf>,
    ) -> Result<(Settings, Result<SourcedKey, ConfigError>), ConfigError> {
        let running = &*self.running;
        let fresh = match &self.source {
            SettingsSource::Files(environment) => {
                self.progress.reads(running.file.as_deref().unwrap_or(Path::new("the configuration")));
                config::load_again(running, environment)?
            }
            SettingsSource::BuiltIn => running.clone(),
        };
        let key = self.key(&fresh);
        named.extend(fresh.authority.ca_file.iter().map(|(path, _)| path.clone()));
        named.extend(self.key_path(&fresh).ok().flatten());
        match &key {
            // The settings name another key file: settings and key belong together.
            Err(error) if self.key_path(&fresh)? != self.key_path(running)? => Err(error.clone()),
            Ok(_) | Err(_) => Ok((fresh, key)),
        }
    }

    /// The files of the settings in force.
    fn running_paths(&self) -> Vec<PathBuf> {
        let mut paths = match &self.source {
            SettingsSource::Files(environment) => config::files(&self.running, environment),
            SettingsSource::BuiltIn => Vec::new(),
        };
        paths.extend(self.running.authority.ca_file.iter().map(|(path, _)| path.clone()));
        match &self.keyed.key_source {
            KeySource::File { path, .. } => paths.push(path.clone()),
            KeySource::Environment => {}
        }
        paths
    }

    /// The key's source according to these settings.
    fn key_source(&self, settings: &Settings) -> Result<KeySource, ConfigError> {
        let known = self.keyed.key_source.clone();
        let environment = match (&self.source, known) {
            // The environment was read once and then overwritten.
            (_, known @ KeySource::Environment) | (SettingsSource::BuiltIn, known) => return Ok(known),
            (SettingsSource::Files(environment), KeySource::File { .. }) => environment,
        };
        let credentials = environment.path("CREDENTIALS_DIRECTORY");
        org_key::choose(false, settings.authority.org_key_file.as_ref(), credentials.as_deref())
    }

    fn key_path(&self, settings: &Settings) -> Result<Option<PathBuf>, ConfigError> {
        Ok(match self.key_source(settings)? {
            KeySource::Environment => None,
            KeySource::File { path, .. } => Some(path),
        })
    }

    fn key(&self, settings: &Settings) -> Result<SourcedKey, ConfigError> {
        let source = self.key_source(settings)?;
        let key = match &source {
            KeySource::Environment => self.keyed.key.clone(),
            KeySource::File { path, origin, mode_is_the_platforms } => {
                self.progress.reads(path);
                org_key::read_file(path, origin, *mode_is_the_platforms)?
            }
        };
        Ok(SourcedKey { source, key })
    }

    /// A new client of the authority, if one is needed. If a changed file of certificates cannot be used, the old
    /// certificates stay; if a newly configured file cannot be used, this fails.
    fn client(&self, settings: &Settings, problems: &mut Vec<String>) -> Result<Option<AuthorityClient>, ConfigError> {
        let (old, new) = (&self.running.authority, &settings.authority);
        let same_place = old.url == new.url && old.timeout == new.timeout && old.user == new.user;
        let path = |named: &Option<(PathBuf, Origin)>| named.as_ref().map(|(path, _)| path.clone());
        let same_file = same_place && path(&old.ca_file) == path(&new.ca_file);
        if let Some((path, _)) = &new.ca_file {
            self.progress.reads(path);
        }
        let client = ca_pem_of(settings).and_then(|ca_pem| {
            if same_place && ca_pem.as_deref() == self.keyed.client.ca_pem() {
                return Ok(None);
            }
            let client = client_of(settings, ca_pem)?;
            Ok(Some(match self.keyed.client.sidecar() {
                Some(secret) => client.of_sidecar(secret),
                None => client,
            }))
        });
        match client {
            Err(error) if same_file => {
                problems.push(format!("{error}; the certificates in use stay"));
                Ok(None)
            }
            client => client,
        }
    }
}

/// Whether the file at this path has no name any more: it is mounted by itself (`-v FILE:FILE`, `subPath`), and another file
/// has taken its name at the source of the mount. Changes of the new file are never visible through this mount.
fn is_left_behind(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.nlink() == 0)
}
