//! What agents use outside their trees: an agent's daemon, a container engine, a terminal multiplexer. What such a process starts
//! is in no tree, so a stop does not end it: it is named instead, or, with `enforcement.outside_helpers = "stop"`, an agent's
//! daemon is ended too.
//!
//! Nothing here is waited for by the threads that answer and that stop trees. Reading a process may block, and then only the looks
//! are late.
//!
//! | file | concept |
//! |---|---|
//! | `schedule` | pure: when to look |
//! | `watch` | the thread that looks |
//! | `ending` | the thread that ends agents' daemons, where the configuration says so |

mod ending;
mod schedule;
mod watch;

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

pub(crate) use machineid_outside::{Helpers, LeftHelper};
use machineid_protocol::outside::OutsideHelper;

use super::roster::Roster;
use super::run::Run;
use crate::config::Live;

/// A handle to the thread that looks.
#[derive(Clone, Debug)]
pub(crate) struct OutsideWatch(Sender<WatchOrder>);

#[derive(Debug)]
enum WatchOrder {
    /// An agent has started, or was adopted.
    Started,
    /// The stops of these runs have begun, and every process has its signal.
    Stopping(Vec<StoppingRun>),
    /// A wrapper has told what its agent uses.
    Told(Arc<Run>),
    /// A helper has been ended.
    Ended,
}

impl OutsideWatch {
    /// Starts the threads. Fails when none can be started.
    pub(super) fn start(roster: &Arc<Roster>, live: Live) -> io::Result<Self> {
        let (send, orders) = std::sync::mpsc::channel();
        let handle = Self(send);
        let ender = ending::Ender::start(Arc::downgrade(roster), live.clone(), handle.clone())?;
        watch::start(orders, Arc::downgrade(roster), live, ender)?;
        Ok(handle)
    }

    /// Looks soon: an agent has started.
    pub(super) fn started(&self) {
        self.order(WatchOrder::Started);
    }

    /// Looks at these runs now; returns at once. To be called when the first signals have been sent.
    pub(super) fn stopping(&self, runs: Vec<StoppingRun>) {
        if !runs.is_empty() {
            self.order(WatchOrder::Stopping(runs));
        }
    }

    /// Takes what a wrapper tells of its run.
    pub(super) fn told(&self, run: &Arc<Run>, helpers: Vec<OutsideHelper>) {
        // Of one run at most one waits: a wrapper may tell as often as it likes.
        if run.put_told(helpers) {
            self.order(WatchOrder::Told(Arc::clone(run)));
        }
    }

    fn ended(&self) {
        self.order(WatchOrder::Ended);
    }

    fn order(&self, order: WatchOrder) {
        // The thread ends with the process, or with the roster.
        let _ = self.0.send(order);
    }
}

/// A run whose stop has begun.
#[derive(Clone, Debug)]
pub(super) struct StoppingRun {
    pub(super) run: Arc<Run>,
    /// Whether a decision or the end of the lease stops it. A run is also stopped when its wrapper has ended, as after every
    /// normal end of an agent: that condemns no process outside the tree.
    pub(super) denied: bool,
}

/// What is known of one run, shared between the threads.
pub(crate) type SharedHelpers = Mutex<Helpers>;
