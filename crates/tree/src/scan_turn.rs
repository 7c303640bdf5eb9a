//! One scan of the whole host at a time.
//!
//! Wrappers and guardians need a process table only when descent does not tell which processes belong to a tree. When a
//! thousand of them need one at once, their scans slow each other down. So they take turns, by a lock on the directory
//! that they are about to read: `/proc` exists for every user and every daemon. Since any process may keep it locked,
//! the wait is short.

use std::fs::File;
use std::time::Duration;

use machineid_clock::BootTime;
use nix::fcntl::{Flock, FlockArg};
use rustix::io::Errno;

use super::pid::Pid;
use super::table::ProcessTable;

/// The longest wait for a turn. It is part of the time that a stop may take beyond its grace.
const PATIENCE: Duration = Duration::from_millis(250);
/// The shortest time between two attempts, in milliseconds.
const PAUSE: u64 = 10;
/// The most that is added to it, in milliseconds; the addition differs between processes.
const JITTER: u64 = 16;

/// One process's place among those that take turns.
#[derive(Debug, Default)]
pub struct ScanTurn {
    waiting_since: Option<BootTime>,
}

/// The result of an attempt.
#[derive(Debug)]
pub enum ScanAttempt {
    /// The table, which was read.
    Table(ProcessTable),
    /// Another process is scanning. Try again at this time.
    RetryAt(BootTime),
}

impl ScanTurn {
    /// Reads all processes, if it is this process's turn; see [`ProcessTable::scan_until`].
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

/// Takes the lock. Fails while another process has it. Where there are no such locks, it succeeds without one.
fn take() -> Result<Option<Flock<File>>, Errno> {
    let Ok(directory) = File::open("/proc") else { return Ok(None) };
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Errno::WOULDBLOCK),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_scans_at_a_time_and_none_waits_for_ever() {
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
            "a lock that is kept blocks no other process"
        );
        let again = now + PATIENCE;
        assert!(matches!(turns.scan(again, None), Ok(ScanAttempt::RetryAt(_))), "each look waits anew");
        drop(taken);
        assert!(turns.scan(again, None).is_ok());
    }
}
