//! The thread that writes the audit file. No task waits for it. When it cannot write, it counts and reports that, and as soon
//! as it can again, it records in the file how many records are missing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use machineid_audit::chain::{ChainedEntry, Hash, line};
use machineid_audit::key::Chain;
use machineid_clock::{self as clock, BootTime};
use tracing::{error, info, warn};

use super::file::AuditFile;
use super::{QueuedRecord, Shared, WriterOrder};

/// The pause before a file that cannot be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The least time between two checkpoints in the log.
const TELL: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    chain: Chain,
    shared: Arc<Shared>,
    file: Option<AuditFile>,
    /// The hash of the newest record, also of a file that was moved away.
    last: Option<Hash>,
    try_at: BootTime,
    unsynced: bool,
    /// The last checkpoint in the log, and its time.
    told: (Option<Hash>, BootTime),
}

impl Writer {
    pub(super) fn new(path: PathBuf, chain: Chain, shared: Arc<Shared>) -> Self {
        let now = BootTime::default();
        Self { path, chain, shared, file: None, last: None, try_at: now, unsynced: false, told: (None, now) }
    }

    pub(super) fn work(mut self, orders: &Receiver<WriterOrder>) {
        machineid_sys::use_batch_scheduling();
        self.be_ready();
        loop {
            let busy = self.shared.undeclared() > 0 || self.file.is_none();
            let order = if busy {
                match orders.recv_timeout(AGAIN) {
                    Ok(order) => Some(order),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                match orders.recv() {
                    Ok(order) => Some(order),
                    Err(_) => return,
                }
            };
            let mut flushed = Vec::new();
            for order in order.into_iter().chain(std::iter::from_fn(|| orders.try_recv().ok())) {
                match order {
                    WriterOrder::Record(record) => self.write(&record),
                    WriterOrder::Reopen => self.file = None,
                    WriterOrder::Flush(done) => flushed.push(done),
                }
            }
            // Also without a record: a gap is recorded as soon as possible.
            self.be_ready();
            self.sync();
            self.tell_log(!flushed.is_empty());
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, record: &QueuedRecord) {
        if !self.be_ready() {
            self.shared.lose(1);
            return;
        }
        if !self.append(&record.time, ChainedEntry::Happened(&record.what, record.caller.as_ref())) {
            self.shared.lose(1);
        }
    }

    /// Opens the file if it is not open or no longer in its place, and records a gap if there is one. Returns whether a
    /// record may follow.
    fn be_ready(&mut self) -> bool {
        if self.file.as_ref().is_some_and(|file| !file.is_in_place(&self.path)) {
            info!(file = %self.path.display(), "the audit file was moved or truncated; continuing in a new one");
            self.file = None;
        }
        if self.file.is_none() && !self.open() {
            return false;
        }
        let lost = self.shared.undeclared();
        if lost == 0 {
            return true;
        }
        let reason =
            self.shared.problem().unwrap_or_else(|| "events arrived faster than they could be written".to_owned());
        if !self.append(&now(), ChainedEntry::Gap { lost, reason: &reason }) {
            return false;
        }
        self.shared.undeclared.fetch_sub(lost, Ordering::SeqCst);
        warn!(file = %self.path.display(), lost, "audit records are written again; the file records how many were lost");
        self.shared.set_problem(None);
        true
    }

    fn open(&mut self) -> bool {
        if BootTime::now() < self.try_at {
            return false;
        }
        let mut file = match AuditFile::open(&self.path, &self.chain) {
            Ok(file) => file,
            Err(error) => {
                self.fail(&error);
                return false;
            }
        };
        let begins = file.tail.last.is_none() || self.last.is_none();
        match (self.last, file.tail.last) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                error!(
                    file = %self.path.display(), expected = %ours, found = %theirs,
                    "the audit file does not end as this host's daemon left it; continuing. Run `machineid audit \
                     verify` to find the change"
                );
                file.tail.last = Some(ours);
            }
            (None, found) => self.last = found,
            (Some(_), _) => {}
        }
        let torn = !file.tail.torn.is_empty();
        self.file = Some(file);
        let opened = ChainedEntry::Opened { keyed: self.chain.is_keyed() };
        // A file that is merely reopened needs no record, unless a partial line must be declared.
        if (begins || (torn && self.shared.undeclared() == 0)) && !self.append(&now(), opened) {
            return false;
        }
        if self.shared.undeclared() > 0 {
            // The problem is cleared once the gap is recorded.
            return true;
        }
        self.shared.set_problem(None);
        let last_hash = self.last.map(|hash| hash.to_string()).unwrap_or_default();
        info!(file = %self.path.display(), last_hash, "opened the audit file");
        true
    }

    fn append(&mut self, time: &str, entry: ChainedEntry<'_>) -> bool {
        let Some(file) = &mut self.file else { return false };
        let line = line(time, entry, &file.tail.torn, self.last.unwrap_or(Hash::NOTHING));
        match file.append(&line) {
            Ok(()) => {
                self.last = file.tail.last;
                self.unsynced = true;
                self.shared.set_last(self.last);
                true
            }
            Err(error) => {
                self.file = None;
                self.fail(&error);
                false
            }
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.try_at = BootTime::now() + AGAIN;
        if self.shared.set_problem(Some(error.to_string())) {
            error!(
                file = %self.path.display(), %error,
                "cannot write the audit file; enforcement continues, and lost records are counted \
                 (audit_dropped_total)"
            );
        }
    }

    fn sync(&mut self) {
        if std::mem::take(&mut self.unsynced)
            && let Some(Err(error)) = self.file.as_ref().map(AuditFile::sync)
        {
            warn!(file = %self.path.display(), %error, "cannot sync the audit file; its newest records may not be on \
                                                        the disk yet");
        }
    }

    /// Logs a checkpoint: comparing it with the file reveals a file that was cut or rewritten.
    fn tell_log(&mut self, at_once: bool) {
        let now = BootTime::now();
        if self.last.is_some() && self.last != self.told.0 && (at_once || now >= self.told.1 + TELL) {
            self.told = (self.last, now);
            info!(last_hash = self.last.map(|hash| hash.to_string()), "audit checkpoint");
        }
    }
}

fn now() -> String {
    clock::wall_now().to_string()
}
