//! The thread that watches, and its handle for tasks.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::watch;

use super::{FileChange, Shared, Watcher};

/// Time limit for a task that waits until new paths are watched.
const PATIENCE: Duration = Duration::from_secs(2);

/// A thread that watches a set of paths. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    orders: Arc<Orders>,
}

/// A handle that makes a watch report a change.
#[derive(Clone, Debug)]
pub(crate) struct WatchBell(Arc<Shared>);

/// The orders for the thread, and its progress.
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
    /// The number of this set of paths, increasing.
    number: u64,
    /// The number of the newest set whose task stopped waiting before it was watched.
    given_up: u64,
    over: bool,
}

impl Watch {
    /// Starts the thread, without paths. Where no watch is available, files are polled instead.
    ///
    /// Fails when no thread can be started.
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

    /// Watches these paths from now on, following links. To be called again after each change, since they may lead elsewhere.
    /// The caller must read what changed before this returns; later changes are reported.
    ///
    /// Always returns within a bounded time: a file system that hangs is watched when it responds again, and that counts as a
    /// change.
    pub(crate) async fn aim(&self, paths: Vec<PathBuf>) {
        let mut aimed = self.orders.aimed.subscribe();
        let number = self.orders.want(paths);
        if tokio::time::timeout(PATIENCE, aimed.wait_for(|newest| *newest >= number)).await.is_err() {
            self.orders.give_up(number, &self.shared);
        }
    }

    /// Waits until a file may have changed. Cancel-safe.
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
        // The thread may have finished at the last moment.
        if *self.aimed.borrow() >= number {
            shared.ring(FileChange::Whole);
        }
    }

    /// Runs until the watch is dropped.
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
