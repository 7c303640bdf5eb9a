//! Removes the control groups of runs that have ended.
//!
//! This is a thread of its own: an agent may have created any number of groups below its own, all of which must be removed
//! first, and no stop may wait for that.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;
use std::{io, thread};

use machineid_leaf::LeafHelper;
use machineid_log::Vital;
use machineid_tree::Leaf;
use rustix::io::Errno;
use tracing::warn;

use crate::config::Live;

/// Pause between two attempts to remove a leaf that is not empty yet.
const AGAIN: Duration = Duration::from_millis(20);
/// Attempts to remove one leaf. A child that was told not to start may take long to end for reasons that the daemon cannot
/// see.
const ATTEMPTS: u32 = 500;

/// A handle to the thread.
#[derive(Clone, Debug)]
pub(super) struct Tidy {
    leaves: Sender<Arc<Leaf>>,
    live: Live,
}

impl Tidy {
    /// Starts the thread. It ends with the last handle. Fails when no thread can be started.
    pub(super) fn start(live: Live) -> io::Result<Self> {
        let (send, leaves) = mpsc::channel();
        let of_thread = live.clone();
        thread::Builder::new().name("tidy".to_owned()).spawn(move || work(&leaves, &of_thread))?;
        Ok(Self { leaves: send, live })
    }

    /// Removes a leaf: at once when it has no groups below it, since the daemon may be about to end; otherwise later on the
    /// thread.
    pub(super) fn remove(&self, leaf: &Arc<Leaf>) {
        let Err(errno) = leaf.remove_alone() else { return };
        if is_not_permitted(errno) {
            helper(&self.live).begin_removal(leaf.directory(), leaf.run());
        }
        // The thread ends with the process.
        let _ = self.leaves.send(Arc::clone(leaf));
    }
}

fn helper(live: &Live) -> LeafHelper {
    LeafHelper::at(&live.now().enforcement.leaf_helper)
}

fn is_not_permitted(errno: Errno) -> bool {
    errno == Errno::ACCESS || errno == Errno::PERM
}

/// Removes the leaf, or has the helper remove it that made it.
fn remove(leaf: &Leaf, live: &Live) -> Result<(), Errno> {
    match leaf.remove() {
        Err(errno) if is_not_permitted(errno) => match helper(live).remove(leaf.directory(), leaf.run()) {
            Err(error) if error.is_absent() => Err(errno),
            asked => asked.map_err(|error| error.errno()),
        },
        other => other,
    }
}

fn work(leaves: &Receiver<Arc<Leaf>>, live: &Live) {
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
        open.retain_mut(|(leaf, attempts)| match remove(leaf, live) {
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
