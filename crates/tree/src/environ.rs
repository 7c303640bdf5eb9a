//! Environments of other processes, read on a helper thread.
//!
//! To read an environment the kernel takes the lock of that process's memory and may have to fetch a page of it. A
//! process that holds the lock in uninterruptible sleep, or whose memory is on a mount that hangs, blocks every reader
//! for as long; a stop must not wait for that. (A page that `userfaultfd` withholds is not waited for: the read fails.)
//! So a helper thread reads. When it is blocked, it is abandoned; the process that blocks it is reported once as
//! unreadable and not read again while it lives. A slow machine is told apart: then the helper thread waits only for a
//! processor, and the caller waits for the helper.
//!
//! A process gets another environment only by its own `exec`, which most processes do in their first second. What was
//! read from an older process is kept for later looks. A changed title may write over the environment
//! later; what was read before that stays known.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::RunId;
use rustix::io::Errno;

use super::kernel_file;
use super::pid::{Identity, Pid};
use super::stat::ProcessEntry;

/// How long the helper may be silent before its state is checked.
const SILENCE: Duration = Duration::from_millis(20);
/// How many checks in a row must find the helper blocked.
const WAITING: u32 = 2;
/// How long one question may take. On a machine that is slower than this, the next look tries again.
const LONGEST: Duration = Duration::from_millis(500);
/// How many helpers may be blocked at a time.
const MOST_HELD_UP: usize = 64;
/// A younger process may have been forked and be about to execute another program.
const YOUNG: Duration = Duration::from_secs(1);

type Read = fn(Pid) -> Result<Vec<RunId>, Errno>;
type Answer = (usize, Result<Vec<RunId>, Errno>);

/// What is known about the environments of the processes on this host.
pub(super) struct EnvironLooker {
    read: Read,
    helper: Option<Helper>,
    /// One clone for each helper that lives.
    living: Arc<()>,
    found: HashMap<Identity, Vec<RunId>>,
    unreadable: HashSet<Identity>,
    /// Processes that were skipped because too many helpers were blocked. They are read once there is room.
    passed_over: HashSet<Identity>,
    /// Unreadable and skipped processes that have not been reported.
    news: Vec<Identity>,
}

struct Helper {
    jobs: Sender<Vec<Pid>>,
    answers: Receiver<Answer>,
    /// The helper's thread id.
    thread: Pid,
}

/// The looker of this process.
static LOOKER: LazyLock<Mutex<EnvironLooker>> = LazyLock::new(|| Mutex::new(EnvironLooker::new(super::cookie::read)));

/// The processes that could not be read when the last look ended. The lock of the looker itself is held for as long as
/// a look takes, and a request for the status must not wait for it.
static UNREADABLE: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

/// Returns which runs these processes name. Processes that name none, and those that cannot be read, are left out.
///
/// Fails when no descriptor or thread is available, or the machine is too slow.
pub(super) fn named_by(entries: &[ProcessEntry]) -> Result<Vec<(RunId, ProcessEntry)>, Errno> {
    let mut looker = LOOKER.lock().unwrap_or_else(PoisonError::into_inner);
    let named = looker.named_by(BootTime::now(), entries);
    {
        let unreadable = looker.unreadable.union(&looker.passed_over).copied().collect();
        *UNREADABLE.lock().unwrap_or_else(PoisonError::into_inner) = unreadable;
    }
    named
}

/// Starts the helper in advance, for a process that must be able to read environments when no thread can be started.
pub fn prepare_to_read() -> std::io::Result<()> {
    LOOKER.lock().unwrap_or_else(PoisonError::into_inner).prepare()
}

/// Processes that could not be read and have not been reported before.
pub fn newly_unreadable() -> Vec<Identity> {
    std::mem::take(&mut LOOKER.lock().unwrap_or_else(PoisonError::into_inner).news)
}

/// Processes that live and could not be read at the last look. Does not wait for a look that is under way.
pub fn unreadable() -> Vec<Pid> {
    let known = UNREADABLE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut living: Vec<_> =
        known.into_iter().filter(|&identity| super::orphans::is_alive(identity)).map(|identity| identity.pid).collect();
    living.sort_unstable();
    living
}

impl EnvironLooker {
    fn new(read: Read) -> Self {
        Self {
            read,
            helper: None,
            living: Arc::default(),
            found: HashMap::new(),
            unreadable: HashSet::new(),
            passed_over: HashSet::new(),
            news: Vec::new(),
        }
    }

    fn prepare(&mut self) -> std::io::Result<()> {
        if self.helper.is_none() {
            self.helper = Some(Helper::start(self.read, Arc::clone(&self.living))?);
        }
        Ok(())
    }

    fn named_by(&mut self, now: BootTime, entries: &[ProcessEntry]) -> Result<Vec<(RunId, ProcessEntry)>, Errno> {
        let asked: HashSet<Identity> = entries.iter().map(|entry| entry.identity).collect();
        self.found.retain(|identity, _| asked.contains(identity));
        // A younger tree asks about fewer processes. Forgetting the others would block one more helper when they are
        // asked about.
        self.unreadable.retain(|identity| asked.contains(identity) || !is_gone(*identity));
        if self.has_room() {
            self.passed_over.clear();
        }
        let mut found = Vec::new();
        let mut open = Vec::new();
        for entry in entries {
            match self.found.get(&entry.identity) {
                Some(runs) => found.extend(runs.iter().map(|run| (*run, *entry))),
                None if self.unreadable.contains(&entry.identity) => {}
                None => open.push(*entry),
            }
        }
        let mut from = 0;
        let give_up_at = now + LONGEST;
        while from < open.len() {
            if !self.has_room() {
                // All of them count as unreadable, and are reported.
                for identity in open[from..].iter().map(|entry| entry.identity) {
                    if self.passed_over.insert(identity) {
                        self.news.push(identity);
                    }
                }
                break;
            }
            // Each process that blocks a helper costs time, and there may be many.
            if BootTime::now() >= give_up_at {
                return Err(Errno::TIMEDOUT);
            }
            if self.prepare().is_err() && self.read_here(now, &open, &mut from, &mut found)? {
                continue;
            }
            self.ask(now, give_up_at, &open, &mut from, &mut found)?;
        }
        Ok(found)
    }

    fn has_room(&self) -> bool {
        Arc::strong_count(&self.living) <= MOST_HELD_UP
    }

    /// Reads on the calling thread when no helper can be started. The caller may be blocked, but could not look at all
    /// otherwise. A process that others rely on never gets here: it starts its helper in advance.
    fn read_here(
        &mut self,
        now: BootTime,
        open: &[ProcessEntry],
        from: &mut usize,
        found: &mut Vec<(RunId, ProcessEntry)>,
    ) -> Result<bool, Errno> {
        if Arc::strong_count(&self.living) > 1 {
            return Err(Errno::AGAIN);
        }
        for entry in &open[*from..] {
            let runs = (self.read)(entry.identity.pid)?;
            self.note(now, entry, runs, found);
            *from += 1;
        }
        Ok(true)
    }

    /// Has the helper read the rest, up to the first process that blocks it.
    fn ask(
        &mut self,
        now: BootTime,
        give_up_at: BootTime,
        open: &[ProcessEntry],
        from: &mut usize,
        found: &mut Vec<(RunId, ProcessEntry)>,
    ) -> Result<(), Errno> {
        let Some(helper) = self.helper.take() else { return Err(Errno::AGAIN) };
        let job = open[*from..].iter().map(|entry| entry.identity.pid).collect();
        if helper.jobs.send(job).is_err() {
            return Err(Errno::AGAIN);
        }
        let first = *from;
        let mut waiting = 0;
        while *from < open.len() {
            match helper.answers.recv_timeout(SILENCE) {
                Ok((at, runs)) => {
                    let entry = &open[first + at];
                    *from = first + at + 1;
                    waiting = 0;
                    self.note(now, entry, runs?, found);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Errno::AGAIN),
                Err(RecvTimeoutError::Timeout) => {
                    waiting = if helper.waits() { waiting + 1 } else { 0 };
                    if waiting >= WAITING {
                        // The helper is abandoned, and ends when its read returns.
                        let held_up_by = open[*from].identity;
                        self.unreadable.insert(held_up_by);
                        self.news.push(held_up_by);
                        *from += 1;
                        return Ok(());
                    }
                    if BootTime::now() >= give_up_at {
                        return Err(Errno::TIMEDOUT);
                    }
                }
            }
        }
        self.helper = Some(helper);
        Ok(())
    }

    fn note(&mut self, now: BootTime, entry: &ProcessEntry, runs: Vec<RunId>, found: &mut Vec<(RunId, ProcessEntry)>) {
        found.extend(runs.iter().map(|run| (*run, *entry)));
        let settled = BootTime::default() + now.saturating_since(BootTime::default() + YOUNG);
        if !entry.identity.start.is_after(settled) {
            self.found.insert(entry.identity, runs);
        }
    }
}

/// Whether this process has ended for certain.
fn is_gone(identity: Identity) -> bool {
    ProcessEntry::read(identity.pid)
        .is_ok_and(|entry| entry.is_none_or(|entry| entry.identity != identity || !entry.is_alive()))
}

impl Helper {
    fn start(read: Read, living: Arc<()>) -> std::io::Result<Self> {
        let (jobs, job) = mpsc::channel::<Vec<Pid>>();
        let (answer, answers) = mpsc::channel::<Answer>();
        let (tell, told) = mpsc::channel();
        thread::Builder::new().name("look".to_owned()).spawn(move || {
            let _ = tell.send(Pid::from(rustix::thread::gettid()));
            while let Ok(pids) = job.recv() {
                for (at, pid) in pids.into_iter().enumerate() {
                    if answer.send((at, read(pid))).is_err() {
                        return;
                    }
                }
            }
            drop(living);
        })?;
        let thread = told.recv().map_err(|_| std::io::Error::from(Errno::AGAIN))?;
        Ok(Self { jobs, answers, thread })
    }

    /// Whether the helper waits for something other than a processor.
    fn waits(&self) -> bool {
        let Ok(text) = kernel_file::read(&format!("/proc/self/task/{}/stat", self.thread)) else { return false };
        let state = text.iter().rposition(|&byte| byte == b')').and_then(|at| text.get(at + 2));
        state.is_some_and(|&state| state != b'R')
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::pid::StartTime;
    use crate::stat::Activity;

    const HOLDS_UP: i32 = 1_000_001;
    const NAMES_ONE: i32 = 1_000_002;

    static READS: AtomicUsize = AtomicUsize::new(0);
    static LET_GO: AtomicBool = AtomicBool::new(false);

    fn run() -> RunId {
        "00000000000000000000000000000007".parse().unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the real one is")]
    fn read(pid: Pid) -> Result<Vec<RunId>, Errno> {
        READS.fetch_add(1, Ordering::SeqCst);
        while pid.as_raw() == HOLDS_UP && !LET_GO.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(if pid.as_raw() == NAMES_ONE { vec![run()] } else { Vec::new() })
    }

    fn entry(raw: i32) -> ProcessEntry {
        let identity = Identity { pid: Pid::new(raw).unwrap(), start: StartTime(5) };
        ProcessEntry { identity, parent: None, group: 0, session: 0, activity: Activity::Interruptible }
    }

    #[test]
    fn a_process_that_blocks_the_reader_is_skipped_named_once_and_not_read_again() {
        let mut looker = EnvironLooker::new(read);
        let entries = [entry(1_000_000), entry(HOLDS_UP), entry(NAMES_ONE)];
        let began = BootTime::now();
        let found = looker.named_by(began, &entries).unwrap();
        assert!(BootTime::now().saturating_since(began) < LONGEST);
        assert_eq!(found, [(run(), entries[2])]);
        assert_eq!(std::mem::take(&mut looker.news), [entries[1].identity]);
        let reads = READS.load(Ordering::SeqCst);
        assert_eq!(looker.named_by(BootTime::now(), &entries).unwrap(), [(run(), entries[2])]);
        assert_eq!((READS.load(Ordering::SeqCst), looker.news.len()), (reads, 0));
        LET_GO.store(true, Ordering::SeqCst);
        // The abandoned helper ends; another one is ready.
        while Arc::strong_count(&looker.living) > 2 {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn an_unreadable_process_is_remembered_until_it_ends_whichever_tree_asks() {
        let mut looker = EnvironLooker::new(read);
        let own = ProcessEntry::read(Pid::own()).unwrap().unwrap().identity;
        let ended = entry(i32::MAX).identity;
        looker.unreadable.extend([own, ended]);
        looker.named_by(BootTime::now(), &[]).unwrap();
        assert_eq!(looker.unreadable, HashSet::from([own]));
    }

    #[test]
    fn what_is_passed_over_for_want_of_helpers_is_reported_once_and_read_when_there_is_room() {
        let mut looker = EnvironLooker::new(read);
        let entries = [entry(NAMES_ONE)];
        let held_up: Vec<_> = (0..MOST_HELD_UP).map(|_| Arc::clone(&looker.living)).collect();
        for _ in 0..2 {
            assert_eq!(looker.named_by(BootTime::now(), &entries), Ok(Vec::new()));
        }
        assert_eq!(looker.news, [entries[0].identity]);
        drop(held_up);
        assert_eq!(looker.named_by(BootTime::now(), &entries).unwrap(), [(run(), entries[0])]);
        assert!(looker.passed_over.is_empty());
    }
}
