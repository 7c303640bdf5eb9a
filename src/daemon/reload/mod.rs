//! Puts a changed configuration, org key or kill file in force without a restart.
//!
//! ```text
//!   SIGHUP ────────┐   load (file, environment) ─▶ Changes ─┬▶ Live           rules, limits, rights of clients
//!   watched files ─┼─▶ key file ─────────────▶ KeyedClient ─┼▶ AuthorityLink  the authority to ask, and its key
//!   polling ───────┘   kill file ───────────────────────────┴▶ gates          a deny at once, without the network
//! ```
//!
//! Each gate is notified of new rules, a new authority or key, and validates at once. The result of a reload is a
//! [`ReloadOutcome`], handled in one place, [`Reloader::conclude`].

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

/// Time limit for reading all files, and for other calls that may block.
const PATIENCE: Duration = Duration::from_secs(3);
const BOUNDS: Bounds = Bounds { at_a_time: 2, most: 16 };
/// How long files must be unchanged before they are read: one change is often several writes.
const QUIET: Duration = Duration::from_millis(50);
/// The same while a process is writing into a file in place, until it closes the file.
const WRITING: Duration = Duration::from_secs(1);
/// The longest wait before files are read, even if they keep changing.
const LONGEST_QUIET: Duration = Duration::from_secs(5);

/// The reason for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// SIGHUP.
    Asked,
    /// Files may have changed.
    Seen,
}

/// The files could not be read; `path` is the one that was being read.
#[derive(Debug, Error)]
#[error("cannot read {}: {why}; the settings in force stay", .path.display())]
struct NotRead {
    path: PathBuf,
    why: Lost,
}

/// The source of the settings.
#[derive(Clone, Debug)]
pub(super) enum SettingsSource {
    /// The configuration file and the environment.
    Files(Environment),
    /// Built-in settings of `--dev`. Its key is in a file all the same.
    BuiltIn,
}

/// The task that reloads the configuration.
#[derive(Debug)]
pub(super) struct Reloader {
    source: SettingsSource,
    context: Arc<Context>,
    pool: Pool,
    /// The watched paths, according to the newest completed reading.
    paths: Vec<PathBuf>,
    /// The result of the newest reload: a problem that stays is reported once.
    last: ReloadOutcome,
}

impl Reloader {
    pub(super) fn new(source: SettingsSource, context: Arc<Context>) -> Self {
        let (pool, last) = (Pool::new("reload", BOUNDS), ReloadOutcome::default());
        Self { source, context, pool, paths: Vec::new(), last }
    }

    /// Reloads whenever there is a reason to, until dropped. `asked` is notified by SIGHUP.
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
        // The files may have changed while the daemon started.
        let mut cause = Cause::Seen;
        loop {
            let before = self.paths.clone();
            self.reload(cause, &watch).await;
            watch.aim(self.paths.clone()).await;
            if self.paths != before {
                // Paths that were not watched while they were read may have changed since.
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

    /// Waits until the files have stopped changing.
    async fn let_settle(&self, watch: &Watch, mut seen: FileChange) {
        let settled = async {
            loop {
                // A directory that was just created may have to be watched itself.
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
        // A service manager waits only for the end of a reload that it requested.
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

    /// Reads all files. If that takes too long, the read goes on in the background, and its end triggers another reload.
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
        // Set by the call when it ends, and by this task when it has waited long enough: whichever comes second rings the
        // bell.
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

    /// Puts the files' contents in force, as far as possible.
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

    /// The client to use from now on, if it changed, and whether the key did. If the key cannot be read, the old one stays.
    ///
    /// Fails when there is no usable client for the configured authority.
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
        // A refused key is tried again only by SIGHUP: the operator may know that the authority accepts it by now.
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
        // The kill file's path may have changed. The gates report a look that fails.
        let _ = context.gates.authority().look_for_kill_file().await;
    }

    /// Reports the result of a reload; the only place that does.
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
