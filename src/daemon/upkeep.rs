//! Keeps the daemon's own files in place: its socket and lock, run records, registration markers, and the files in the state
//! directory.
//!
//! A logout, a cleaner of temporary files or an operator may remove them while the daemon runs. Without its socket no client
//! can reach it; without its records a restarted daemon knows no agent; without its markers and holds it registers a removed
//! device again, or forgets a hold. The daemon has all of it in memory, so it recreates the files and reports that: in the
//! log, in the status, as an event and as a metric. The place of another daemon that started meanwhile is left alone.
//!
//! It polls instead of watching: a watch is lost with the directory that it watches, and a file system may support none. The
//! two directories are checked separately, each on a thread that may block: a state disk that hangs must not prevent the
//! socket from being recreated.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machineid_blocking::{Bounds, CallOwner, Pool};
use machineid_clock as clock;
use machineid_org_key::sidecar::SidecarSecret;
use machineid_protocol::RunId;
use machineid_protocol::event::{Happening, Restored};
use thiserror::Error;
use tracing::{error, info, warn};

use super::identity::HostIdentity;
use crate::local::Context;
use crate::local::socket::{Socket, SocketError};
use crate::registry::Store;
use crate::report;
use crate::telemetry::metrics::OwnFile;

/// Pause between two checks.
const INTERVAL: Duration = Duration::from_secs(2);
/// One check at a time.
const BOUNDS: Bounds = Bounds { at_a_time: 1, most: 1 };

/// The files that are kept in place.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) socket: Arc<Socket>,
    pub(super) context: Arc<Context>,
    pub(super) store: Store,
    /// The directory from the start: a change takes effect at the next start.
    pub(super) runtime_dir: PathBuf,
    pub(super) secret: Arc<SidecarSecret>,
    /// `None` where the device id is not kept.
    pub(super) identity: Option<HostIdentity>,
    pub(super) seen: Mutex<LastLook>,
}

/// The results of the previous checks.
#[derive(Debug, Default)]
pub(super) struct LastLook {
    /// Runs without a record. A run whose record is just being written may be here once, but not twice in a row.
    unrecorded: HashSet<RunId>,
    runtime: Option<String>,
    state: Option<String>,
}

/// The result of a check: what was recreated, and what could not be.
#[derive(Debug, Default)]
struct LookResult {
    restored: Vec<(OwnFile, usize)>,
    problem: Option<UpkeepError>,
}

/// Why a file of the daemon cannot be recreated.
#[derive(Debug, Error)]
enum UpkeepError {
    #[error(transparent)]
    Socket(SocketError),
    #[error("cannot write to {} (local.runtime_dir): {source}; make it writable", .path.display())]
    RuntimeDir { path: PathBuf, source: io::Error },
    #[error("cannot record again which devices are held here: {0}; a restart would forget them")]
    Holds(#[source] io::Error),
    #[error("cannot save this host's device id again: {0}; a renamed host is another device")]
    DeviceId(#[source] io::Error),
}

/// One of the two directories.
#[derive(Clone, Copy, Debug)]
enum Area {
    Runtime,
    State,
}

/// Checks the files until dropped.
pub(super) async fn watch(upkeep: Arc<Upkeep>) {
    // The runtime directory has threads of its own: those for writes may all wait for a state disk that hangs.
    let (of_runtime, of_state) = (Pool::new("runtime-dir", BOUNDS), upkeep.context.writes.clone());
    tokio::join!(every(Arc::clone(&upkeep), Area::Runtime, of_runtime), every(upkeep, Area::State, of_state));
}

async fn every(upkeep: Arc<Upkeep>, area: Area, pool: Pool) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let looking = Arc::clone(&upkeep);
        // One check at a time: at most one thread waits for a disk that hangs.
        let looked = pool.call(CallOwner::DAEMON, move || match area {
            Area::Runtime => looking.look_at_runtime(),
            Area::State => looking.look_at_state(),
        });
        match looked.await {
            Ok(found) => upkeep.note(area, found),
            Err(error) => warn!(%error, "the check of the daemon's own files failed to run"),
        }
    }
}

impl Upkeep {
    fn look_at_runtime(&self) -> LookResult {
        let kept = self.socket.keep(&self.context.settings().local);
        let restored = kept.restored.into_iter().map(|file| (file, 1)).collect();
        let mut found = LookResult { restored, problem: kept.problem.map(UpkeepError::Socket) };
        let markers = &self.context.gates.authority().keyed_client().markers;
        self.store.set_displaced(!kept.has_lock);
        markers.set_displaced(!kept.has_lock);
        if !kept.has_lock {
            // The directory may belong to another daemon by now: this daemon writes nothing into it.
            return found;
        }
        let below = |source| UpkeepError::RuntimeDir { path: self.runtime_dir.clone(), source };
        found.take(OwnFile::Record, self.restore_records().map_err(below));
        found.take(OwnFile::Marker, markers.restore().map_err(below));
        let secret = report::restore_secret(&self.runtime_dir, &self.secret);
        found.take(OwnFile::SidecarSecret, secret.map(usize::from).map_err(below));
        found
    }

    /// Records those runs again that had no record at the previous check either.
    fn restore_records(&self) -> io::Result<usize> {
        let runs = &self.context.runs;
        if runs.record_problem().is_some() {
            // The ledger's thread has not written them yet, and reports that itself.
            return Ok(0);
        }
        let missing = runs.unrecorded(&self.store)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = missing.iter().filter(|run| seen.unrecorded.contains(&run.id())).collect();
        for run in &gone {
            runs.record_again(run);
        }
        let count = gone.len();
        seen.unrecorded = missing.iter().map(|run| run.id()).collect();
        Ok(count)
    }

    fn look_at_state(&self) -> LookResult {
        let mut found = LookResult::default();
        let holds = self.context.gates.authority().holds().restore().map(usize::from);
        found.take(OwnFile::Holds, holds.map_err(UpkeepError::Holds));
        if let Some(identity) = &self.identity {
            found.take(OwnFile::Device, identity.restore().map(usize::from).map_err(UpkeepError::DeviceId));
        }
        found
    }

    fn note(&self, area: Area, found: LookResult) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match area {
            Area::Runtime => &mut seen.runtime,
            Area::State => &mut seen.state,
        };
        let before = std::mem::replace(known, found.problem.map(|error| error.to_string()));
        match (&before, &*known) {
            (old, Some(problem)) if old.as_ref() != Some(problem) => {
                error!(problem, "files of the daemon are missing or were replaced");
            }
            (Some(_), None) => info!("the files of the daemon are in place again"),
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
        let problem = seen.runtime.clone().or_else(|| seen.state.clone());
        drop(seen);
        let files: Vec<_> = found.restored.iter().map(|(file, _)| file.as_str().to_owned()).collect();
        self.context.note_files(|status| {
            status.problem = problem;
            if !files.is_empty() {
                status.restored_at = Some(clock::wall_now().to_string());
                status.restored.clone_from(&files);
            }
        });
        if files.is_empty() {
            return;
        }
        for (file, count) in &found.restored {
            self.context.journal.metrics.restored(*file, *count);
        }
        let count: usize = found.restored.iter().map(|(_, count)| count).sum();
        warn!(files = files.join(","), count, "files of the daemon were removed and have been recreated");
        self.context.journal.tell(Happening::FilesRestored(Restored { files }));
    }
}

impl LookResult {
    /// Notes how many of these files were recreated.
    fn take(&mut self, file: OwnFile, count: Result<usize, UpkeepError>) {
        match count {
            Ok(0) => {}
            Ok(count) => self.restored.push((file, count)),
            Err(problem) => self.problem = self.problem.take().or(Some(problem)),
        }
    }
}
