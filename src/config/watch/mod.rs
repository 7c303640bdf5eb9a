//! Reports when files that the daemon has read may have changed.
//!
//! Directories are watched, not files: editors, configuration managers and Kubernetes put a new file under the old name, and
//! a watch on the old file would never fire. [`chain`] determines which directories.
//!
//! A watch can miss changes: the limit of watches for this user may be exhausted (`fs.inotify.max_user_watches`), and a
//! network file system does not report changes by another host. So the files are also polled, and the kill file is examined
//! on each validation.
//!
//! A file system may also hang, so all of this runs on a thread of its own ([`Watch`]), and no task waits for it for long.
//! Files that must not wait for each other's file systems have a watch each.
//!
//! | file | concept |
//! |---|---|
//! | `chain` | where a path can change |
//! | `thread` | the thread, and its handle for tasks |
//! | this file | watches on directories, and polling of files |

mod chain;
mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use chain::LinkChain;
pub(crate) use thread::Watch;

/// The polling interval while watches work, and while they do not.
const LOOK: Duration = Duration::from_secs(30);
const BLIND_LOOK: Duration = Duration::from_secs(1);
/// Attempts to follow a path that changes meanwhile.
const MOST_ROUNDS: usize = 8;

/// A possible change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileChange {
    /// A complete change, as far as the kernel reports.
    Whole,
    /// A process is writing into a file right now.
    Writing,
}

/// Watches a set of paths, on the thread of a [`Watch`].
#[derive(Debug)]
struct Watcher {
    /// `None` when no watch is available.
    watches: Option<RecommendedWatcher>,
    shared: Arc<Shared>,
    paths: Vec<PathBuf>,
    /// The watched directories with their inodes: a directory of the same name may be another one.
    watched: BTreeMap<PathBuf, Option<Inode>>,
    /// The state of the files at the last look.
    looks: Vec<FileState>,
    blind: bool,
}

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<BTreeSet<PathBuf>>,
    seen: Mutex<Option<FileChange>>,
    bell: Notify,
}

type Inode = (u64, u64);

/// The attributes of a file by which a change or replacement is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileState {
    File { identity: Inode, length: u64, mode: u32, changed: (i64, i64) },
    Error(io::ErrorKind),
}

impl FileState {
    fn at(path: &Path) -> Self {
        fs::metadata(path).map_or_else(
            |error| Self::Error(error.kind()),
            |about| Self::File {
                identity: (about.dev(), about.ino()),
                length: about.len(),
                mode: about.mode(),
                changed: (about.ctime(), about.ctime_nsec()),
            },
        )
    }
}

impl Shared {
    fn note(&self, event: &notify::Result<notify::Event>) {
        let Some(what) = self.what(event) else { return };
        self.ring(what);
    }

    fn ring(&self, what: FileChange) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(what);
        drop(seen);
        self.bell.notify_one();
    }

    fn what(&self, event: &notify::Result<notify::Event>) -> Option<FileChange> {
        // An error or an overflow: some change may have been missed.
        let Ok(event) = event else { return Some(FileChange::Whole) };
        if event.need_rescan() {
            return Some(FileChange::Whole);
        }
        let what = match event.kind {
            // Reading is not a change, and the daemon reads the files itself.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => FileChange::Whole,
            EventKind::Access(_) => return None,
            EventKind::Modify(ModifyKind::Data(_)) => FileChange::Writing,
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => {
                FileChange::Whole
            }
        };
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let concerns = |path: &PathBuf| names.iter().any(|name| name == path || name.parent() == Some(path));
        event.paths.iter().any(concerns).then_some(what)
    }

    fn take(&self) -> Option<FileChange> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Watcher {
    /// Creates a watcher without paths. Where no watch is available, files are polled instead.
    fn new(shared: Arc<Shared>) -> Self {
        let watches = watches(&shared).map_err(|error| complain(&error)).ok();
        let blind = watches.is_none();
        Self { watches, shared, paths: Vec::new(), watched: BTreeMap::new(), looks: Vec::new(), blind }
    }

    /// Watches these paths from now on, following links. To be called again after each change, since they may lead elsewhere.
    /// The caller must read what changed before this returns; later changes are reported.
    fn aim(&mut self, paths: &[PathBuf]) {
        self.paths = paths.to_vec();
        let mut names = self.names();
        for _ in 0..MOST_ROUNDS {
            self.shared.names.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&names);
            self.watch(&names);
            let now = self.names();
            if now == names {
                break;
            }
            names = now;
        }
        self.looks = self.look();
    }

    /// The pause before the next look.
    fn pause(&self) -> Duration {
        if self.blind { BLIND_LOOK } else { LOOK }
    }

    /// Looks at the files; returns whether one has changed since the last look.
    fn has_changed(&mut self) -> bool {
        let before = std::mem::take(&mut self.looks);
        if self.blind {
            // A watch may be available by now.
            self.aim(&self.paths.clone());
        } else {
            self.looks = self.look();
        }
        self.looks != before
    }

    fn look(&self) -> Vec<FileState> {
        self.paths.iter().map(|path| FileState::at(path)).collect()
    }

    fn names(&self) -> BTreeSet<PathBuf> {
        self.paths.iter().flat_map(|path| LinkChain::of(path).names).collect()
    }

    fn watch(&mut self, names: &BTreeSet<PathBuf>) {
        if self.watches.is_none() {
            // The cause was logged the first time.
            self.watches = watches(&self.shared).ok();
        }
        let Some(watches) = &mut self.watches else { return };
        let wanted: BTreeMap<PathBuf, Option<Inode>> = names
            .iter()
            .filter_map(|name| name.parent())
            .map(|directory| (directory.to_owned(), identity(directory)))
            .collect();
        self.watched.retain(|directory, known| {
            let stays = known.is_some() && wanted.get(directory) == Some(known);
            if !stays {
                // The kernel has already removed the watch of a removed directory.
                let _ = watches.unwatch(directory);
            }
            stays
        });
        let mut failure = None;
        for (directory, identity) in wanted {
            if self.watched.contains_key(&directory) {
                continue;
            }
            match watches.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    debug!(directory = %directory.display(), "watching for changes");
                    self.watched.insert(directory, identity);
                }
                Err(error) => failure = Some(error),
            }
        }
        match (failure, self.blind) {
            (Some(error), false) => {
                complain(&error);
                self.blind = true;
            }
            (None, true) => {
                self.blind = false;
                info!("watching for changed files again");
            }
            (Some(_), true) | (None, false) => {}
        }
    }
}

fn watches(shared: &Arc<Shared>) -> notify::Result<RecommendedWatcher> {
    let for_events = Arc::clone(shared);
    notify::recommended_watcher(move |event| for_events.note(&event))
}

fn identity(directory: &Path) -> Option<Inode> {
    fs::metadata(directory).ok().map(|about| (about.dev(), about.ino()))
}

fn complain(error: &notify::Error) {
    let fix = match error.kind {
        notify::ErrorKind::MaxFilesWatch => "raise fs.inotify.max_user_watches",
        notify::ErrorKind::Io(ref error) if error.raw_os_error() == Some(libc::EMFILE) => {
            "raise fs.inotify.max_user_instances"
        }
        notify::ErrorKind::Generic(_)
        | notify::ErrorKind::Io(_)
        | notify::ErrorKind::PathNotFound
        | notify::ErrorKind::WatchNotFound
        | notify::ErrorKind::InvalidConfig(_) => "",
    };
    warn!(
        %error,
        fix,
        interval = machineid_protocol::span::format(BLIND_LOOK),
        "cannot watch for changed files; checking them at this interval, and SIGHUP still reloads"
    );
}

#[cfg(test)]
mod tests;
