//! The thread that watches, and what tasks have of it.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::watch;

use super::{FileChange, Shared, Watcher};

/// How long a task waits until new paths are watched.
const PATIENCE: Duration = Duration::from_secs(2);

/// A thread that watches a set of paths. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    orders: Arc<Orders>,
}

/// Rings for a watch as if it had seen a change.
#[derive(Clone, Debug)]
pub(crate) struct WatchBell(Arc<Shared>);

/// What the thread is told, and what it has done.
#[derive(Debug)]
struct Orders {
    wanted: Mutex<WantedPaths>,
    changed: Condvar,
    /// The number of the newest set of paths that is watched.
    aimed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct WantedPaths {
    paths: Vec<PathBuf>,
    /// One higher for each set of paths.
    number: u64,
    /// The task that wanted this set did not wait for it to the end.
    given_up: u64,
    over: bool,
}

impl Watch {
    /// Starts the thread, which watches nothing yet. Where no watch is available, files are polled instead.
    ///
    /// Fails when there is no thread.
    pub(crate) fn start(name: &'static str) -> io::Result<Self> {
        Self::start_with(name, Watcher::new)
    }

    pub(super) fn start_with(name: &'static str, watcher: fn(Arc<Shared>) -> Watcher) -> io::Result<Self> {
        let (aimed, _) = watch::channel(0);
        let orders = Arc::new(Orders { wanted: Mutex::default(), changed: Condvar::new(), aimed });
        let shared = Arc::<Shared>::default();
        let (of_thread, for_events) = (Arc::clone(&orders), Arc::clone(&shared));
        let work =
            move || machineid_log::keep_up(name, || of_thread.work(watcher(Arc::clone(&for_events)), &for_events));
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { shared, orders })
    }

    /// Has these paths watched from now on, wherever they lead. To be called again after each change: they may lead elsewhere.
    /// What changed before it returns is for the caller to look at; what changes later is seen.
    ///
    /// Returns after a bounded time all the same: a file system that hangs is watched when it answers again, and that counts
    /// as a change.
    pub(crate) async fn aim(&self, paths: Vec<PathBuf>) {
        let mut aimed = self.orders.aimed.subscribe();
        let number = self.orders.want(paths);
        if tokio::time::timeout(PATIENCE, aimed.wait_for(|newest| *newest >= number)).await.is_err() {
            self.orders.give_up(number, &self.shared);
        }
    }

    /// Waits until something may have changed. May be dropped and called again.
    pub(crate) async fn seen(&self) -> FileChange {
        loop {
            if let Some(seen) = self.shared.take() {
                return seen;
            }
            self.shared.bell.notified().await;
        }
    }

    pub(crate) fn bell(&self) -> WatchBell {
        WatchBell(Arc::clone(&self.shared))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.orders.lock().over = true;
        self.orders.changed.notify_one();
    }
}

impl WatchBell {
    pub(crate) fn ring(&self) {
        self.0.ring(FileChange::Whole);
    }
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, WantedPaths> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, paths: Vec<PathBuf>) -> u64 {
        let mut wanted = self.lock();
        wanted.paths = paths;
        wanted.number += 1;
        self.changed.notify_one();
        wanted.number
    }

    fn give_up(&self, number: u64, shared: &Shared) {
        let mut wanted = self.lock();
        wanted.given_up = number;
        // It may have come in the very last moment.
        if *self.aimed.borrow() >= number {
            shared.ring(FileChange::Whole);
        }
    }

    /// Works until the watch is dropped.
    fn work(&self, mut watcher: Watcher, shared: &Shared) {
        // 0 also after a panic: the new watcher watches nothing yet.
        let mut done = 0;
        let mut wanted = self.lock();
        loop {
            if wanted.over {
                return;
            }
            if wanted.number != done {
                let (paths, number) = (wanted.paths.clone(), wanted.number);
                drop(wanted);
                watcher.aim(&paths);
                wanted = self.lock();
                done = number;
                self.aimed.send_replace(number);
                if wanted.given_up >= number {
                    shared.ring(FileChange::Whole);
                }
                continue;
            }
            let pause = self.changed.wait_timeout(wanted, watcher.pause()).unwrap_or_else(PoisonError::into_inner);
            if !pause.1.timed_out() {
                wanted = pause.0;
                continue;
            }
            drop(pause);
            if watcher.has_changed() {
                shared.ring(FileChange::Whole);
            }
            wanted = self.lock();
        }
    }
}
