//! Puts a changed configuration, org key or kill file in force without a restart.
//!
//! ```text
//!   SIGHUP ─────────┐   load (file, environment) ─▶ Changes ─┬▶ Live      rules, limits, who may do what
//!   watched files ──┼─▶ key file ──────────────────▶ Means ──┼▶ Authority whom to ask, with what key
//!   a look at them ─┘   kill file ───────────────────────────┴▶ gates     a deny at once, without the network
//! ```
//!
//! Each gate hears of new rules, a new authority or key by itself, and validates at once. What a reload came to is an
//! [`Outcome`], and [`Reloader::conclude`] the one place that knows it.

mod outcome;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::debug;

use super::sidecar::{ca_pem_of, client_of};
use super::{Fatal, manager};
use crate::client::AuthorityClient;
use crate::config::changes::Changes;
use crate::config::org_key::{self, KeySource};
use crate::config::watch::{Seen, Watcher};
use crate::config::{self, ConfigError, Environment, Origin, Settings};
use crate::gate::attempt::Means;
use crate::gate::markers::Markers;
use crate::local::{Context, socket};
use crate::protocol::OrgKey;
use crate::protocol::event::{Happening, Reload, ReloadResult};
use crate::telemetry;
use outcome::Outcome;

/// How long files must be left alone before they are read: a change often is several.
const QUIET: Duration = Duration::from_millis(50);
/// The same while somebody writes into one in place, until it is closed.
const WRITING: Duration = Duration::from_secs(1);
/// Whatever goes on, they are read after so long.
const LONGEST_QUIET: Duration = Duration::from_secs(5);

/// Why files are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// SIGHUP.
    Asked,
    /// They may have changed.
    Seen,
}

/// Where settings come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The configuration file and the environment.
    Files(Environment),
    /// Nowhere: `--dev` has its own. Its key is in a file all the same.
    BuiltIn,
}

/// What the reload works on.
#[derive(Debug)]
pub(super) struct Reloader {
    source: Source,
    context: Arc<Context>,
    /// The certificates that the client in use trusts.
    ca_pem: Option<Vec<u8>>,
    boot_id: String,
    /// What the file names by now, also when that is not in force because it is not there: it may be by and by.
    named: BTreeSet<PathBuf>,
    /// What the newest reload came to: a problem that stays is told once.
    last: Outcome,
}

impl Reloader {
    pub(super) fn new(source: Source, context: Arc<Context>, ca_pem: Option<Vec<u8>>, boot_id: String) -> Self {
        Self { source, context, ca_pem, boot_id, named: BTreeSet::new(), last: Outcome::default() }
    }

    /// Reloads whenever there is a reason to, until it is dropped. `asked` rings for SIGHUP.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<()>) {
        let mut watcher = Watcher::new();
        watcher.aim(&self.paths());
        // What changed while the daemon started.
        let mut cause = Cause::Seen;
        loop {
            self.kill_file().await;
            self.reload(cause).await;
            watcher.aim(&self.paths());
            cause = tokio::select! {
                Some(()) = asked.recv() => Cause::Asked,
                seen = watcher.seen() => {
                    self.let_settle(&mut watcher, seen).await;
                    Cause::Seen
                },
            };
        }
    }

    /// Waits until the files are left alone, but for the kill file, which is looked at each time.
    async fn let_settle(&self, watcher: &mut Watcher, mut seen: Seen) {
        let settled = async {
            loop {
                self.kill_file().await;
                // What was just made may have to be watched itself.
                watcher.aim(&self.paths());
                let quiet = match seen {
                    Seen::Whole => QUIET,
                    Seen::Writing => WRITING,
                };
                match tokio::time::timeout(quiet, watcher.seen()).await {
                    Ok(more) => seen = more,
                    Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(LONGEST_QUIET, settled).await;
    }

    /// Every file that is worth a look when it changes.
    fn paths(&self) -> Vec<PathBuf> {
        let settings = self.context.settings();
        let mut paths = self.named.clone();
        if let Source::Files(environment) = &self.source {
            paths.extend(config::files(&settings, environment));
        }
        paths.extend(settings.authority.ca_file.iter().map(|(path, _)| path.clone()));
        paths.extend(settings.enforcement.kill_file.clone());
        match &self.context.gates.authority().means().key_source {
            KeySource::File { path, .. } => paths.extend([path.clone()]),
            KeySource::Environment => {}
        }
        paths.into_iter().collect()
    }

    async fn kill_file(&self) {
        self.context.gates.authority().look_for_kill_file().await;
    }

    async fn reload(&mut self, cause: Cause) {
        // A service manager waits for the end of a reload that it asked for, and of no other.
        if cause == Cause::Asked {
            manager::reloading();
        }
        let running = self.context.settings();
        let mut outcome = Outcome::default();
        let (settings, key) = match self.fresh(&running) {
            Ok(fresh) => fresh,
            Err(problem) => {
                outcome.problems.push(problem.0);
                // The key is another matter.
                (Settings::clone(&running), self.key(&running))
            }
        };
        let changes = Changes::between(&running, settings);
        outcome.problems.extend(changes.needs_restart.iter().map(ToString::to_string));
        match self.means(&running, &changes.settings, key, cause, &mut outcome.problems) {
            Ok((means, key_changed)) => {
                outcome.changed = changes.changed;
                outcome.changed.extend(key_changed.then_some("org key"));
                self.put_in_force(&running, changes.settings, means, cause, &mut outcome).await;
            }
            Err(problem) => outcome.problems.push(problem.0),
        }
        self.conclude(cause, outcome);
        if cause == Cause::Asked {
            manager::ready();
        }
    }

    /// The settings and the key as the files now say. Fails when the settings are wrong, or name a key that is not there.
    fn fresh(&mut self, running: &Settings) -> Result<(Settings, Result<Keyed, ConfigError>), Fatal> {
        let fresh = match &self.source {
            Source::Files(environment) => config::load_again(running, environment)?,
            Source::BuiltIn => running.clone(),
        };
        let key = self.key(&fresh);
        self.named = fresh.authority.ca_file.iter().map(|(path, _)| path.clone()).collect();
        self.named.extend(self.key_path(&fresh).ok().flatten());
        match &key {
            // Another file than before: the two belong together.
            Err(error) if self.key_path(&fresh)? != self.key_path(running)? => Err(error.clone().into()),
            Ok(_) | Err(_) => Ok((fresh, key)),
        }
    }

    /// Where these settings have their key.
    fn key_source(&self, settings: &Settings) -> Result<KeySource, ConfigError> {
        let known = self.context.gates.authority().means().key_source.clone();
        let environment = match (&self.source, known) {
            // Read once, and overwritten then.
            (_, known @ KeySource::Environment) | (Source::BuiltIn, known) => return Ok(known),
            (Source::Files(environment), KeySource::File { .. }) => environment,
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

    fn key(&self, settings: &Settings) -> Result<Keyed, ConfigError> {
        let source = self.key_source(settings)?;
        let key = match &source {
            KeySource::Environment => self.context.gates.authority().means().key.clone(),
            KeySource::File { path, origin, mode_is_the_platforms } => {
                org_key::read_file(path, origin, *mode_is_the_platforms)?
            }
        };
        Ok(Keyed { source, key })
    }

    /// What to ask with from now on, if something about it changed, and whether the key did. A key that cannot be read
    /// leaves the old one.
    ///
    /// Fails when the authority that is to be asked cannot be.
    fn means(
        &mut self,
        running: &Settings,
        settings: &Settings,
        key: Result<Keyed, ConfigError>,
        cause: Cause,
        problems: &mut Vec<String>,
    ) -> Result<(Option<Means>, bool), Fatal> {
        let current = self.context.gates.authority().means();
        let Keyed { source, key } = key.unwrap_or_else(|error| {
            problems.push(format!("{error}; the org key in use stays"));
            Keyed { source: current.key_source.clone(), key: current.key.clone() }
        });
        // Not tried again by itself. Whoever asks for it may know that the authority has learnt it by now.
        let refused = current.refused.as_ref() == Some(&key) && cause == Cause::Seen;
        let key = if refused { current.key.clone() } else { key };
        let client = self.client(running, settings, problems)?;
        let key_changed = key != current.key;
        if client.is_none() && !key_changed && source == current.key_source {
            return Ok((None, false));
        }
        let url = settings.authority.url.to_string();
        let markers = Markers::new(settings.local.runtime_dir.clone(), &self.boot_id, &url);
        let client = client.unwrap_or_else(|| current.client.clone());
        let mut means = Means::new(client, key, source, markers);
        means.refused = current.refused.clone().filter(|_| refused);
        Ok((Some(means), key_changed))
    }

    /// A client of the authority, when another one is needed. A changed file of certificates that cannot be used leaves the
    /// old ones; one that was just named does not.
    fn client(
        &mut self,
        running: &Settings,
        settings: &Settings,
        problems: &mut Vec<String>,
    ) -> Result<Option<AuthorityClient>, ConfigError> {
        let (old, new) = (&running.authority, &settings.authority);
        let same_place = old.url == new.url && old.timeout == new.timeout;
        let path = |named: &Option<(PathBuf, Origin)>| named.as_ref().map(|(path, _)| path.clone());
        let same_file = same_place && path(&old.ca_file) == path(&new.ca_file);
        let client = ca_pem_of(settings).and_then(|ca_pem| {
            if same_place && ca_pem == self.ca_pem {
                return Ok(None);
            }
            let client = client_of(settings, ca_pem.clone())?;
            self.ca_pem = ca_pem;
            Ok(Some(client))
        });
        match client {
            Err(error) if same_file => {
                problems.push(format!("{error}; the certificates in use stay"));
                Ok(None)
            }
            client => client,
        }
    }

    async fn put_in_force(
        &self,
        running: &Settings,
        settings: Settings,
        means: Option<Means>,
        cause: Cause,
        outcome: &mut Outcome,
    ) {
        let context = &self.context;
        let nothing_new = outcome.changed.is_empty() && means.is_none();
        if let Some(means) = means {
            context.gates.authority().replace(means);
        }
        if nothing_new && cause == Cause::Seen {
            return;
        }
        let (old, new) = (&running.local, &settings.local);
        if (old.mode, &old.group) != (new.mode, &new.group)
            && let Err(error) = socket::set_access(new)
        {
            outcome.problems.push(error.to_string());
        }
        telemetry::change(settings.log.format, settings.log.level);
        context.live.replace(settings);
        context.runs.settings_changed();
        self.kill_file().await;
    }

    /// The one place where the result of a reload is known.
    fn conclude(&mut self, cause: Cause, outcome: Outcome) {
        self.context.live.note_reload(&outcome.problems, outcome.result() != ReloadResult::Unchanged);
        let is_news = cause == Cause::Asked || !outcome.changed.is_empty() || outcome.problems != self.last.problems;
        if is_news {
            outcome.log();
            let told = Reload {
                result: outcome.result(),
                changed: outcome.changed.iter().map(|&key| key.to_owned()).collect(),
                reason: (!outcome.problems.is_empty()).then(|| outcome.problems.join("; ")),
            };
            self.context.journal.tell(Happening::ConfigReloaded(told));
        } else {
            debug!("looked at the configuration: nothing new");
        }
        self.last = outcome;
    }
}

/// A key and where it is from.
#[derive(Debug)]
struct Keyed {
    source: KeySource,
    key: OrgKey,
}
