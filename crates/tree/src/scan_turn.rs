//! Whose turn it is to look at every process of the host.
//!
//! Wrappers and guardians need a process table only when descent does not tell who belongs to a tree. Should that happen to
//! a thousand at once, each table would take longer for all the others. So they take turns, by a lock on the directory that
//! they are about to read: everybody has it, whatever their user and their daemon. Anybody may also keep it locked, so
//! nobody waits for long.

use std::os::fd::OwnedFd;
use std::time::Duration;

use machineid_clock::BootTime;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::pid::Pid;
use super::table::ProcessTable;

/// How long a turn is waited for at most. Part of the time that a stop may take beyond its grace.
const PATIENCE: Duration = Duration::from_millis(250);
/// Time between two attempts, at least.
const PAUSE: u64 = 10;
/// What is added to it differs between processes.
const JITTER: u64 = 16;

/// One process's place among those that take turns.
#[derive(Debug, Default)]
pub struct ScanTurn {
    waiting_since: Option<BootTime>,
}

/// What came of asking for a turn.
#[derive(Debug)]
pub enum ScanAttempt {
    /// It was had.
    Table(ProcessTable),
    /// Another process looks. Ask again at this time.
    RetryAt(BootTime),
}

impl ScanTurn {
    /// Reads all processes, when it is this process's turn; see [`ProcessTable::scan_until`].
    pub fn scan(&mut self, now: BootTime, deadline: Option<BootTime>) -> Result<ScanAttempt, Errno> {
        let since = *self.waiting_since.get_or_insert(now);
        let Ok(turn) = take() else {
            if now.saturating_since(since) >= PATIENCE {
                self.waiting_since = None;
                return ProcessTable::scan_until(deadline).map(ScanAttempt::Table);
            }
            let own = u64::try_from(Pid::own().as_raw()).unwrap_or(0);
            return Ok(ScanAttempt::RetryAt(now + Duration::from_millis(PAUSE + own % JITTER)));
        };
        self.waiting_since = None;
        let table = ProcessTable::scan_until(deadline).map(ScanAttempt::Table);
        drop(turn);
        table
    }
}

/// Fails while another process has it. Where there are no such locks, everybody has it.
fn take() -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open("/proc", flags, Mode::empty()) else { return Ok(None) };
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(directory)),
        Err(Errno::WOULDBLOCK) => Err(Errno::WOULDBLOCK),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_looks_at_a_time_and_nobody_waits_for_ever() {
        let taken = loop {
            if let Ok(Some(turn)) = take() {
                break turn;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let now = BootTime::now();
        let mut turns = ScanTurn::default();
        assert!(matches!(turns.scan(now, None), Ok(ScanAttempt::RetryAt(at)) if at > now && at < now + PATIENCE));
        assert!(
            matches!(turns.scan(now + PATIENCE, None), Ok(ScanAttempt::Table(_))),
            "whoever keeps it holds nobody up"
        );
        let again = now + PATIENCE;
        assert!(matches!(turns.scan(again, None), Ok(ScanAttempt::RetryAt(_))), "each look waits anew");
        drop(taken);
        assert!(turns.scan(again, None).is_ok());
    }
}
