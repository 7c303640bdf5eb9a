//! The thread that ends trees.
//!
//! A thread of its own, started at boot: from a deny to the last SIGKILL no thread is started, and a stalled runtime or a
//! slow request holds no stop up. One look at `/proc` serves all trees that are being stopped.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{io, thread};

use rustix::process::Signal;
use tracing::{error, info, warn};

use super::record::Record;
use super::run::{Run, StopNotice};
use crate::clock::BootTime;
use crate::protocol::Denial;
use crate::tree::{Activity, FirstSignal, KILL_PATIENCE, Next, ProcessTable, Stop, Tree};
use crate::vital::Vital;

/// Pause after a failure to look at the processes; the next look may do better.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// A handle to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Enforcer {
    orders: Sender<Vec<Ending>>,
}

/// One tree to end.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) run: Arc<Run>,
    pub(crate) first_signal: FirstSignal,
    pub(crate) reason: Reason,
    /// Other runs have the same wrapper (a program that supervises several children itself): then its children are not
    /// all this run's, and the tree is what descends from the leader.
    pub(crate) shares_wrapper: bool,
}

/// Why a tree ends.
#[derive(Clone, Debug)]
pub(crate) enum Reason {
    /// By a decision, or the end of the lease; the wrapper is told.
    Denied(Denial),
    /// The wrapper is gone; what it left, if anything, goes too.
    WrapperGone,
}

#[derive(Debug)]
struct UnderWay {
    run: Arc<Run>,
    reason: Reason,
    stop: Stop,
    began: BootTime,
    look_at: BootTime,
    found_somebody: bool,
    survivors_reported: bool,
}

impl Enforcer {
    /// Starts the thread, which takes runs out of the record when nothing of them is left. Fails when no thread is to be
    /// had.
    pub(crate) fn start(record: Arc<Record>) -> io::Result<Self> {
        let (orders, inbox) = channel();
        thread::Builder::new().name("enforcer".to_owned()).spawn(move || work(&inbox, &record))?;
        Ok(Self { orders })
    }

    /// Ends these trees; returns at once.
    pub(crate) fn end(&self, endings: Vec<Ending>) {
        // The thread ends only with the last handle.
        let _ = self.orders.send(endings);
    }
}

fn work(inbox: &Receiver<Vec<Ending>>, record: &Record) {
    let _vital = Vital;
    let mut under_way: Vec<UnderWay> = Vec::new();
    let mut blind = false;
    loop {
        let now = BootTime::now();
        let wait = under_way.iter().map(|stop| stop.look_at).min().map(|at| at.saturating_since(now));
        let order = match wait {
            Some(wait) => inbox.recv_timeout(wait),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let endings = match order {
            Ok(endings) => endings,
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now = BootTime::now();
        let table = match ProcessTable::scan() {
            Ok(table) => {
                if std::mem::take(&mut blind) {
                    info!("the processes of this host can be looked at again");
                }
                table
            }
            Err(errno) => {
                if !std::mem::replace(&mut blind, true) {
                    error!(%errno, "cannot look at the processes of this host; trying on, and leaving stops to the wrappers");
                }
                // A wrapper looks for itself: it gets the whole stop at once. Here the trees are taken on all the same.
                // The pause keeps a lasting failure from burning a core.
                for mut ending in endings {
                    if is_under_way(&under_way, &ending) {
                        continue;
                    }
                    ending.first_signal = match ending.reason {
                        Reason::Denied(_) => FirstSignal::Theirs,
                        Reason::WrapperGone => ending.first_signal,
                    };
                    if let Some(stop) = begin(now, ending) {
                        tell_wrapper(&stop, false);
                        under_way.push(stop);
                    }
                }
                for stop in &mut under_way {
                    stop.look_at = now + AFTER_FAILURE;
                }
                continue;
            }
        };
        for mut ending in endings {
            // A wrapper that ends while its tree is being stopped changes nothing about that.
            if is_under_way(&under_way, &ending) {
                continue;
            }
            if ending.first_signal == FirstSignal::Theirs && !wrapper_can_act(&ending.run, &table) {
                ending.first_signal = FirstSignal::Ours;
            }
            let signalled = ending.first_signal == FirstSignal::Ours;
            if let Some(mut stop) = begin(now, ending) {
                look(&mut stop, now, &table);
                tell_wrapper(&stop, signalled);
                under_way.push(stop);
            }
        }
        under_way.retain_mut(|stop| {
            let over = stop.look_at <= now && look(stop, now, &table) == Next::Over;
            if over {
                finish(stop, record);
                end_stopped_wrapper(&stop.run, &table);
            }
            !over
        });
    }
}

fn is_under_way(under_way: &[UnderWay], ending: &Ending) -> bool {
    under_way.iter().any(|stop| stop.run.id() == ending.run.id())
}

fn begin(now: BootTime, ending: Ending) -> Option<UnderWay> {
    let Ending { run, first_signal, reason, shares_wrapper } = ending;
    let tree = &run.opened.reach.as_ref()?.tree;
    let tree = if shares_wrapper { Tree::alone(tree.leader(), None) } else { tree.clone() };
    let stop = Stop::begin(now, tree, run.opened.stop_signal, first_signal, run.opened.stop_grace);
    Some(UnderWay { run, reason, stop, began: now, look_at: now, found_somebody: false, survivors_reported: false })
}

fn look(under_way: &mut UnderWay, now: BootTime, table: &ProcessTable) -> Next {
    let next = under_way.stop.step(now, table);
    match next {
        Next::LookAt(at) => under_way.look_at = at,
        Next::Over => under_way.look_at = now,
    }
    under_way.found_somebody |= under_way.stop.ladder().found_somebody();
    let patience_ends = under_way.stop.ladder().kill_at() + KILL_PATIENCE;
    if next != Next::Over && !under_way.survivors_reported && now >= patience_ends {
        under_way.survivors_reported = true;
        for survivor in under_way.stop.survivors(now) {
            let (run_id, pid) = (under_way.run.id(), survivor.pid.as_raw());
            error!(%run_id, pid, reason = ?survivor.reason, "a process outlived SIGKILL; trying on until it is gone");
        }
    }
    next
}

/// Whether the run's wrapper is alive and not stopped, so that it can send the stop signal itself.
fn wrapper_can_act(run: &Run, table: &ProcessTable) -> bool {
    let entry = run.wrapper().and_then(|wrapper| table.find(wrapper));
    entry.is_some_and(|entry| entry.is_alive() && entry.activity != Activity::Stopped)
}

fn tell_wrapper(under_way: &UnderWay, signalled: bool) {
    match &under_way.reason {
        Reason::Denied(denial) => under_way.run.notify_stop(StopNotice {
            denial: denial.clone(),
            signalled,
            kill_at: under_way.stop.ladder().kill_at(),
        }),
        Reason::WrapperGone => {}
    }
}

/// A wrapper that was stopped (Ctrl-Z is enough) cannot end with its agent: whoever waits for it would wait for ever.
fn end_stopped_wrapper(run: &Run, table: &ProcessTable) {
    let Some(reach) = &run.opened.reach else { return };
    let stopped = table.find(reach.wrapper.identity()).is_some_and(|entry| entry.activity == Activity::Stopped);
    if stopped {
        let pid = reach.wrapper.identity().pid.as_raw();
        match reach.wrapper.signal(Signal::KILL) {
            Ok(_) => warn!(run_id = %run.id(), pid, "ended the agent's wrapper, which was stopped"),
            Err(errno) => error!(run_id = %run.id(), pid, %errno, "cannot end the agent's wrapper, which is stopped"),
        }
    }
}

fn finish(under_way: &UnderWay, record: &Record) {
    let (run_id, device_id) = (under_way.run.id(), &under_way.run.opened.device);
    let took_ms = u64::try_from(BootTime::now().saturating_since(under_way.began).as_millis()).unwrap_or(u64::MAX);
    match &under_way.reason {
        Reason::Denied(denial) => {
            info!(%run_id, %device_id, code = %denial.code, took_ms, "agent stopped: nothing of it is left");
        }
        Reason::WrapperGone if under_way.found_somebody => {
            warn!(%run_id, %device_id, took_ms, "the wrapper died; its agent was stopped, nothing of it is left");
        }
        Reason::WrapperGone => info!(%run_id, %device_id, "agent ended by itself"),
    }
    if under_way.run.note_tree_end() {
        record.forget(run_id);
    }
}
