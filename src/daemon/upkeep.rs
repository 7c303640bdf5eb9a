//! Keeps in place what the daemon has in the file system: its socket and lock, the records of runs, the notes of
//! registrations, and what outlives it in the state directory.
//!
//! A logout, a cleaner of temporary files or an operator may remove them while the daemon lives. Without its socket nobody
//! can reach it; without its records a daemon that is started again knows no agent; without its notes it registers a device
//! that was removed, or forgets a hold. All of it is in memory as well, so it is made again, and that is said: in the log, in
//! status, as an event and as a metric. The place of another daemon that came meanwhile is left alone.
//!
//! It looks now and then instead of watching: a watch is lost with the directory that it watches, and a file system may have
//! none. The two directories are looked at apart, each on a thread that may block: a state disk that hangs must not keep the
//! socket from being made again.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machineid_blocking::{Bounds, Owner, Pool};
use machineid_clock as clock;
use machineid_protocol::RunId;
use machineid_protocol::event::{Happening, Restored};
use machineid_protocol::report::SidecarId;
use thiserror::Error;
use tracing::{error, info, warn};

use super::identity::HostIdentity;
use crate::local::Context;
use crate::local::socket::{Socket, SocketError};
use crate::registry::Store;
use crate::report;
use crate::telemetry::metrics::OwnFile;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// There is one look at a time.
const BOUNDS: Bounds = Bounds { at_a_time: 1, most: 1 };

/// What is kept in place.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) socket: Arc<Socket>,
    pub(super) context: Arc<Context>,
    pub(super) store: Store,
    /// As at the start: a change of it takes effect at the next one.
    pub(super) runtime_dir: PathBuf,
    pub(super) sidecar_id: SidecarId,
    /// `None` where the device id is not kept.
    pub(super) identity: Option<HostIdentity>,
    pub(super) seen: Mutex<LastLook>,
}

/// What the looks before came to.
#[derive(Debug, Default)]
pub(super) struct LastLook {
    /// Runs without a record. A run that is just being written down is among them once, and not twice.
    unrecorded: HashSet<RunId>,
    runtime: Option<String>,
    state: Option<String>,
}

/// What a look came to: what was made again, and what could not be.
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

/// Which of the two directories.
#[derive(Clone, Copy, Debug)]
enum Area {
    Runtime,
    State,
}

/// Looks from now on.
pub(super) async fn watch(upkeep: Arc<Upkeep>) {
    // Threads of their own for the runtime directory: those for writes may all wait for a state disk that hangs.
    let (of_runtime, of_state) = (Pool::new("runtime-dir", BOUNDS), upkeep.context.writes.clone());
    tokio::join!(every(Arc::clone(&upkeep), Area::Runtime, of_runtime), every(upkeep, Area::State, of_state));
}

async fn every(upkeep: Arc<Upkeep>, area: Area, pool: Pool) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let looking = Arc::clone(&upkeep);
        // One look at a time: of a disk that hangs, one thread waits.
        let looked = pool.call(Owner::DAEMON, move || match area {
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
            // The directory may be another daemon's by now: nothing of ours goes there.
            return found;
        }
        let below = |source| UpkeepError::RuntimeDir { path: self.runtime_dir.clone(), source };
        found.take(OwnFile::Record, self.restore_records().map_err(below));
        found.take(OwnFile::Marker, markers.restore().map_err(below));
        let id = report::restore_id(&self.runtime_dir, self.sidecar_id);
        found.take(OwnFile::SidecarId, id.map(usize::from).map_err(below));
        found
    }

    /// Has those runs written down again whose records were gone at the look before, too.
    fn restore_records(&self) -> io::Result<usize> {
        let runs = &self.context.runs;
        if runs.record_problem().is_some() {
            // The thread that writes has not got to them; it says so itself.
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
    /// Takes note of how many of these were made again.
    fn take(&mut self, file: OwnFile, count: Result<usize, UpkeepError>) {
        match count {
            Ok(0) => {}
            Ok(count) => self.restored.push((file, count)),
            Err(problem) => self.problem = self.problem.take().or(Some(problem)),
        }
    }
}
