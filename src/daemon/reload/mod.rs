//! Puts a changed configuration, org key or kill file in force without a restart.
//!
//! ```text
//!   SIGHUP ─────────┐   load (file, environment) ─▶ Changes ─┬▶ Live      rules, limits, who may do what
//!   watched files ──┼─▶ key file ──────────────────▶ KeyedClient ──┼▶ Authority whom to ask, with what key
//!   a look at them ─┘   kill file ───────────────────────────┴▶ gates     a deny at once, without the network
//! ```
//!
//! Each gate hears of new rules, a new authority or key by itself, and validates at once. What a reload came to is an
//! [`ReloadOutcome`], and [`Reloader::conclude`] the one place that knows it.

mod kill_file;
mod outcome;
mod reading;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use machineid_blocking::{Bounds, Lost, Pool};
use machineid_client::AuthorityClient;
use machineid_protocol::event::{Happening, Reload, ReloadResult};
use thiserror::Error;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::manager;
use crate::config::watch::{FileChange, Watch};
use crate::config::{ConfigError, Environment, Settings};
use crate::gate::keyed_client::KeyedClient;
use crate::local::{Context, socket};
pub(super) use kill_file::watch as watch_kill_file;
use outcome::ReloadOutcome;
use reading::{FilesRead, FilesToRead, Progress, SourcedKey};

/// How long reading all files may take, or another call that may block.
const PATIENCE: Duration = Duration::from_secs(3);
const BOUNDS: Bounds = Bounds { at_a_time: 2, most: 16 };
/// How long files must be left alone before they are read: a change often is several.
const QUIET: Duration = Duration::from_millis(50);
/// The same while a process writes into one in place, until it is closed.
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

/// The files could not be read; `path` is the one that was being read.
#[derive(Debug, Error)]
#[error("cannot read {}: {why}; the settings in force stay", .path.display())]
struct NotRead {
    path: PathBuf,
    why: Lost,
}

/// Where settings come from.
#[derive(Clone, Debug)]
pub(super) enum SettingsSource {
    /// The configuration file and the environment.
    Files(Environment),
    /// Nowhere: `--dev` has its own. Its key is in a file all the same.
    BuiltIn,
}

/// What the reload works on.
#[derive(Debug)]
pub(super) struct Reloader {
    source: SettingsSource,
    context: Arc<Context>,
    pool: Pool,
    /// What is watched: as the newest reading that came to an end says.
    paths: Vec<PathBuf>,
    /// What the newest reload came to: a problem that stays is told once.
    last: ReloadOutcome,
}

impl Reloader {
    pub(super) fn new(source: SettingsSource, context: Arc<Context>) -> Self {
        let (pool, last) = (Pool::new("reload", BOUNDS), ReloadOutcome::default());
        Self { source, context, pool, paths: Vec::new(), last }
    }

    /// Reloads whenever there is a reason to, until it is dropped. `asked` rings for SIGHUP.
    pub(super) async fn run(mut self, asked: Arc<Notify>) {
        let watch = loop {
            match Watch::start("watch") {
                Ok(watch) => break watch,
                Err(error) => {
                    warn!(%error, "cannot watch for changed files; SIGHUP still reloads");
                    asked.notified().await;
                }
            }
        };
        // What changed while the daemon started.
        let mut cause = Cause::Seen;
        loop {
            let before = self.paths.clone();
            self.reload(cause, &watch).await;
            watch.aim(self.paths.clone()).await;
            if self.paths != before {
                // What was not watched while it was read may have changed since.
                cause = Cause::Seen;
                continue;
            }
            cause = tokio::select! {
                () = asked.notified() => Cause::Asked,
                seen = watch.seen() => {
                    self.let_settle(&watch, seen).await;
                    Cause::Seen
                },
            };
        }
    }

    /// Waits until the files are left alone.
    async fn let_settle(&self, watch: &Watch, mut seen: FileChange) {
        let settled = async {
            loop {
                // What was just made may have to be watched itself.
                watch.aim(self.paths.clone()).await;
                let quiet = match seen {
                    FileChange::Whole => QUIET,
                    FileChange::Writing => WRITING,
                };
                match tokio::time::timeout(quiet, watch.seen()).await {
                    Ok(more) => seen = more,
                    Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(LONGEST_QUIET, settled).await;
    }

    async fn reload(&mut self, cause: Cause, watch: &Watch) {
        // A service manager waits for the end of a reload that it asked for, and of no other.
        if cause == Cause::Asked {
            manager::reloading();
        }
        let mut outcome = ReloadOutcome::default();
        match self.read(watch).await {
            Ok(found) => self.apply(found, cause, &mut outcome).await,
            Err(error) => outcome.problems.push(error.to_string()),
        }
        self.conclude(cause, outcome);
        if cause == Cause::Asked {
            manager::ready();
        }
    }

    /// Reads all files. When that takes too long it goes on, and its end is a reason to read them again.
    ///
    /// Fails when the files are not read in time.
    async fn read(&self, watch: &Watch) -> Result<FilesRead, NotRead> {
        let progress = Progress::default();
        let question = FilesToRead {
            source: self.source.clone(),
            running: self.context.settings(),
            keyed: self.context.gates.authority().keyed_client(),
            progress: progress.clone(),
        };
        // Set by the call when it is over, and by this when it has waited long enough: the second of them knows.
        let over = Arc::new(AtomicBool::new(false));
        let (of_call, bell) = (Arc::clone(&over), watch.bell());
        let work = move || {
            let found = question.read();
            if of_call.swap(true, Ordering::SeqCst) {
                bell.ring();
            }
            found
        };
        self.pool.call_within(PATIENCE, work).await.map_err(|why| {
            if over.swap(true, Ordering::SeqCst) {
                watch.bell().ring();
            }
            NotRead { path: progress.at(), why }
        })
    }

    /// Puts in force what was found, as far as that can be.
    async fn apply(&mut self, found: FilesRead, cause: Cause, outcome: &mut ReloadOutcome) {
        let FilesRead { changes, key, client, problems, paths } = found;
        self.paths = paths;
        outcome.problems.extend(problems);
        match self.keyed_client(&changes.settings, key, client, cause, &mut outcome.problems) {
            Ok((keyed, key_changed)) => {
                outcome.changed = changes.changed;
                outcome.changed.extend(key_changed.then_some("org key"));
                self.put_in_force(changes.settings, keyed, cause, outcome).await;
            }
            Err(error) => outcome.problems.push(error.to_string()),
        }
    }

    /// What to ask with from now on, if something about it changed, and whether the key did. A key that cannot be read
    /// leaves the old one.
    ///
    /// Fails when the authority that is to be asked cannot be.
    fn keyed_client(
        &self,
        settings: &Settings,
        key: Result<SourcedKey, ConfigError>,
        client: Result<Option<AuthorityClient>, ConfigError>,
        cause: Cause,
        problems: &mut Vec<String>,
    ) -> Result<(Option<KeyedClient>, bool), ConfigError> {
        let current = self.context.gates.authority().keyed_client();
        let SourcedKey { source, key } = key.unwrap_or_else(|error| {
            problems.push(format!("{error}; the org key in use stays"));
            SourcedKey { source: current.key_source.clone(), key: current.key.clone() }
        });
        // Not tried again by itself. Whoever asks for it may know that the authority has learnt it by now.
        let refused = current.refused.as_ref() == Some(&key) && cause == Cause::Seen;
        let key = if refused { current.key.clone() } else { key };
        let client = client?;
        let key_changed = key != current.key;
        if client.is_none() && !key_changed && source == current.key_source {
            return Ok((None, false));
        }
        let markers = current.markers.at(&settings.authority.url.to_string());
        let client = client.unwrap_or_else(|| current.client.clone());
        let mut keyed = KeyedClient::new(client, key, source, markers);
        keyed.refused = current.refused.clone().filter(|_| refused);
        Ok((Some(keyed), key_changed))
    }

    async fn put_in_force(
        &self,
        settings: Settings,
        keyed: Option<KeyedClient>,
        cause: Cause,
        outcome: &mut ReloadOutcome,
    ) {
        let context = &self.context;
        let running = context.settings();
        let nothing_new = outcome.changed.is_empty() && keyed.is_none();
        if let Some(keyed) = keyed {
            context.gates.authority().replace(keyed);
        }
        if nothing_new && cause == Cause::Seen {
            return;
        }
        let (old, new) = (&running.local, &settings.local);
        if (old.mode, &old.group) != (new.mode, &new.group) {
            let access = new.clone();
            let set = context.writes.call_within(PATIENCE, move || socket::set_access(&access)).await;
            let problem = match set {
                Ok(set) => set.err().map(|error| error.to_string()),
                Err(why) => Some(format!("cannot give {} its mode and group: {why}", new.socket.display())),
            };
            outcome.problems.extend(problem);
        }
        machineid_log::change(settings.log.format, settings.log.level);
        context.live.replace(settings);
        context.runs.settings_changed();
        // Another one may be named now. What cannot be seen is told by the gates.
        let _ = context.gates.authority().look_for_kill_file().await;
    }

    /// The one place where the result of a reload is known.
    fn conclude(&mut self, cause: Cause, outcome: ReloadOutcome) {
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
            debug!("checked the configuration: no change");
        }
        self.last = outcome;
    }
}
