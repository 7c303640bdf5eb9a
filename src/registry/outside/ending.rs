//! The thread that ends agents' daemons outside the trees, with what they started, where `enforcement.outside_helpers` is "stop".
//!
//! A thread of its own: each step reads the process table of the host, and no stop of a tree may wait for that. Never ended are
//! the first process, this daemon, a process of another user, and a process that belongs to a supervised tree: that tree is ended
//! by its own stop, or allowed to run.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use std::{io, thread};

use machineid_clock::BootTime;
use machineid_log::keep_up;
use machineid_outside::{Proc, Processes as _};
use machineid_tree::{FirstSignal, Identity, Next, Pid, ProcessTable, Stop, Tree};
use rustix::io::Errno;
use tracing::{error, info, warn};

use super::OutsideWatch;
use crate::config::Live;
use crate::registry::reach::Reach;
use crate::registry::roster::Roster;
use crate::registry::run::Run;

/// The pause after the process table could not be read, and the shortest between two reads.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
const SHORTEST: Duration = Duration::from_millis(20);
/// How long after SIGKILL a helper that does not end is tried again.
const GIVE_UP: Duration = Duration::from_mins(1);

/// A handle to the thread.
#[derive(Clone, Debug)]
pub(super) struct Ender {
    helpers: Sender<Condemned>,
    roster: Weak<Roster>,
}

/// A helper that is to be ended, and for which run.
#[derive(Debug)]
struct Condemned {
    process: Identity,
    run: Arc<Run>,
}

impl Ender {
    /// Starts the thread. It ends with the last handle. Fails when no thread can be started.
    pub(super) fn start(roster: Weak<Roster>, live: Live, watch: OutsideWatch) -> io::Result<Self> {
        let (helpers, orders) = mpsc::channel();
        let mut work = Work { orders, roster: roster.clone(), live, watch, under_way: HashMap::new() };
        thread::Builder::new()
            .name("outside-stop".to_owned())
            .spawn(move || keep_up("the stop of helpers outside the trees", || work.work()))?;
        Ok(Self { helpers, roster })
    }

    /// The helpers of this run that a stop of it ends.
    pub(super) fn may_end(&self, run: &Arc<Run>) -> Vec<Identity> {
        let Some(roster) = self.roster.upgrade() else { return Vec::new() };
        let known = run.helpers.lock().unwrap_or_else(PoisonError::into_inner).to_end(run.opened.uid);
        known.into_iter().filter(|process| refusal(&roster, *process, run).is_none()).collect()
    }

    /// Ends the helpers of this run that may be ended; returns at once.
    pub(super) fn end(&self, run: &Arc<Run>) {
        let Some(roster) = self.roster.upgrade() else { return };
        let mut helpers = run.helpers.lock().unwrap_or_else(PoisonError::into_inner);
        let to_end = helpers.to_end(run.opened.uid);
        let mut any = false;
        for process in to_end {
            match refusal(&roster, process, run) {
                None => {
                    helpers.note_ending(process);
                    any = true;
                    let _ = self.helpers.send(Condemned { process, run: Arc::clone(run) });
                }
                Some(why) => {
                    info!(run_id = %run.id(), pid = process.pid.as_raw(), why, "a helper outside the agent's tree is not ended");
                }
            }
        }
        drop(helpers);
        if any {
            run.tell_helpers();
        }
    }
}

/// Why this helper is left alone.
fn refusal(roster: &Roster, process: Identity, run: &Run) -> Option<&'static str> {
    if process.pid.is_init() || process.pid == Pid::own() {
        return Some("it is the first process, or this daemon");
    }
    if Proc.program(process.pid).is_none_or(|program| program.uid != run.opened.uid) {
        return Some("it belongs to another user, or has ended");
    }
    match roster.containing(|| Ok(Some(process))) {
        Ok(runs) if runs.is_empty() => None,
        Ok(_) => Some("it is in a supervised tree of its own"),
        Err(_) => Some("it has ended, or its ancestors cannot be read"),
    }
}

/// The processes by which a supervised tree is known.
fn processes(run: &Run) -> impl Iterator<Item = Identity> {
    let guardian = run.opened.reach.as_ref().and_then(Reach::guardian_process);
    run.wrapper().into_iter().chain(guardian).chain(run.leader())
}

struct Work {
    orders: Receiver<Condemned>,
    roster: Weak<Roster>,
    live: Live,
    watch: OutsideWatch,
    under_way: HashMap<Identity, (Stop, BootTime)>,
}

impl Work {
    /// Returns when no order can come any more.
    fn work(&mut self) {
        loop {
            let now = BootTime::now();
            let due = self.under_way.values().map(|(_, at)| *at).min();
            let order = match due {
                Some(at) => self.orders.recv_timeout(at.saturating_since(now)),
                None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(condemned) => self.begin(&condemned),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(roster) = self.roster.upgrade() else { return };
            self.advance(&roster);
        }
    }

    fn begin(&mut self, Condemned { process, run }: &Condemned) {
        if self.under_way.contains_key(process) {
            return;
        }
        let (now, terms) = (BootTime::now(), self.live.now().stop_terms());
        warn!(run_id = %run.id(), device_id = %run.opened.device, pid = process.pid.as_raw(), "ending the helper that the stopped agent used, with what it started");
        let stop =
            Stop::begin(now, Tree::alone(*process, None).without_group(), terms.signal, FirstSignal::Ours, terms.grace);
        self.under_way.insert(*process, (stop, now));
    }

    fn advance(&mut self, roster: &Roster) {
        let now = BootTime::now();
        if !self.under_way.values().any(|(_, at)| *at <= now) {
            return;
        }
        let table = match ProcessTable::scan() {
            Ok(table) => table,
            Err(errno) => return self.put_off(now, errno),
        };
        // Agents below a helper that are supervised, through a wrapper or adopted: their own devices decide.
        let supervised: Vec<Identity> = roster.all().iter().flat_map(|run| processes(run)).collect();
        let mut ended = false;
        self.under_way.retain(|process, (stop, at)| {
            if *at > now {
                return true;
            }
            stop.spare(supervised.iter().copied().filter(|supervised| supervised != process));
            let pid = process.pid.as_raw();
            match stop.step(now, &table) {
                Next::LookAt(next) if now < stop.ladder().kill_at() + GIVE_UP => {
                    *at = next.max(now + SHORTEST);
                    true
                }
                Next::LookAt(_) => {
                    error!(pid, "the helper outside the agent's tree outlived SIGKILL; it is left alone now");
                    ended = true;
                    false
                }
                Next::Over => {
                    info!(pid, "the helper outside the agent's tree has ended, with what it started");
                    ended = true;
                    false
                }
            }
        });
        if ended {
            self.watch.ended();
        }
    }

    fn put_off(&mut self, now: BootTime, errno: Errno) {
        warn!(%errno, "cannot read the process table of this host; the helpers outside the trees are ended later");
        self.under_way.values_mut().for_each(|(_, at)| *at = (*at).max(now + AFTER_FAILURE));
    }
}
