//! Removing the control groups of runs that are over.
//!
//! On a thread of its own: an agent may have made any number of groups below its own, each of which is to be removed before
//! it, and no stop waits for that.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;
use std::{io, thread};

use machineid_log::Vital;
use machineid_tree::Leaf;
use tracing::warn;

/// Pause between two attempts to remove a leaf that is not empty yet.
const AGAIN: Duration = Duration::from_millis(20);
/// How often that is tried: what keeps a child that was told not to start from ending is not ours to know.
const ATTEMPTS: u32 = 500;

/// A handle to the thread.
#[derive(Clone, Debug)]
pub(super) struct Tidy(Sender<Arc<Leaf>>);

impl Tidy {
    /// Starts the thread. It ends with the last handle. Fails when no thread can be started.
    pub(super) fn start() -> io::Result<Self> {
        let (send, leaves) = mpsc::channel();
        thread::Builder::new().name("tidy".to_owned()).spawn(move || work(&leaves))?;
        Ok(Self(send))
    }

    /// Removes it, at once where nothing is below it, for the daemon may be about to end; else in a while.
    pub(super) fn remove(&self, leaf: &Arc<Leaf>) {
        if leaf.remove_alone().is_err() {
            // The thread ends with the process.
            let _ = self.0.send(Arc::clone(leaf));
        }
    }
}

fn work(leaves: &Receiver<Arc<Leaf>>) {
    let _vital = Vital;
    let mut open: Vec<(Arc<Leaf>, u32)> = Vec::new();
    loop {
        let next = if open.is_empty() {
            leaves.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            leaves.recv_timeout(AGAIN)
        };
        match next {
            Ok(leaf) => open.push((leaf, 0)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        open.retain_mut(|(leaf, attempts)| match leaf.remove() {
            Ok(()) => false,
            Err(errno) => {
                *attempts += 1;
                if *attempts == ATTEMPTS {
                    warn!(leaf = %leaf.path().display(), %errno, "cannot remove a control group; remove it with rmdir");
                }
                *attempts < ATTEMPTS
            }
        });
    }
}
