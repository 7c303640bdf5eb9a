//! The ancestors of a process, read while they may end.
//!
//! When a parent ends between two reads, its number becomes free or belongs to another process. A line of ancestors that
//! stops there, or continues with an unrelated process, would read as "in no run". So each step is confirmed by reading the
//! child again: if its parent is unchanged, the process read in between was its parent. If not, the line is read again from
//! the start.

use std::io;

use rustix::io::Errno;

use super::pid::{Identity, Pid};
use super::stat::ProcessEntry;

/// Attempts to read the line before this fails. Each failed attempt needs an ancestor that ends at that very moment.
const TRIES: usize = 8;
/// The longest line that is read.
const LONGEST: usize = 1024;

/// The process and its ancestors, the process first, as far as they can be seen.
///
/// Fails when `read` does, when the process ends, and when its ancestors end faster than they can be read.
pub fn ancestry(
    process: Identity,
    mut read: impl FnMut(Pid) -> Result<Option<ProcessEntry>, Errno>,
) -> io::Result<Vec<Identity>> {
    for _ in 0..TRIES {
        if let Some(line) = try_line(process, &mut read)? {
            return Ok(line);
        }
    }
    Err(io::Error::other("its ancestors change while they are read"))
}

/// One attempt to read the line; `None` when an ancestor ended meanwhile.
fn try_line(
    process: Identity,
    read: &mut impl FnMut(Pid) -> Result<Option<ProcessEntry>, Errno>,
) -> io::Result<Option<Vec<Identity>>> {
    let first = read(process.pid)?.filter(|entry| entry.identity == process);
    let mut child = first.ok_or_else(|| io::Error::other("the process has ended"))?;
    let mut line = vec![process];
    while let Some(parent) = child.parent {
        let above = read(parent)?;
        let unchanged = |now: &ProcessEntry| now.identity == child.identity && now.parent == child.parent;
        if !read(child.identity.pid)?.as_ref().is_some_and(unchanged) {
            return Ok(None);
        }
        // The parent exists but is hidden from this user (`hidepid`): nothing above it can be seen.
        let Some(above) = above else { break };
        if line.len() == LONGEST {
            return Err(io::Error::other("it has too many ancestors"));
        }
        line.push(above.identity);
        child = above;
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activity, StartTime};

    fn process(number: i32) -> Identity {
        Identity { pid: Pid::new(number).unwrap(), start: StartTime(u64::try_from(number).unwrap()) }
    }

    fn entry(number: i32, parent: i32) -> ProcessEntry {
        let activity = Activity::Interruptible;
        ProcessEntry { identity: process(number), parent: Pid::new(parent), group: 0, session: 0, activity }
    }

    /// What is read by turns: one table of `(process, parent)` for each read, the last one from then on.
    fn line(tables: &[&[(i32, i32)]]) -> io::Result<Vec<Identity>> {
        let mut reads = 0;
        ancestry(process(30), |pid| {
            let table = tables[reads.min(tables.len() - 1)];
            reads += 1;
            let found = table.iter().find(|(number, _)| Pid::new(*number) == Some(pid));
            Ok(found.map(|(number, parent)| entry(*number, *parent)))
        })
    }

    fn of(numbers: &[i32]) -> Vec<Identity> {
        numbers.iter().copied().map(process).collect()
    }

    const WHOLE: &[(i32, i32)] = &[(30, 20), (20, 10), (10, 0)];
    const ADOPTED: &[(i32, i32)] = &[(30, 10), (10, 0)];

    #[test]
    fn the_line_goes_up_to_the_first_process() {
        assert_eq!(line(&[WHOLE]).unwrap(), of(&[30, 20, 10]));
    }

    #[test]
    fn a_parent_that_ends_between_two_reads_does_not_cut_the_line_short() {
        assert_eq!(line(&[WHOLE, ADOPTED]).unwrap(), of(&[30, 10]));
        // Its number is another process's by then.
        let reused: &[(i32, i32)] = &[(30, 10), (20, 5), (10, 0), (5, 0)];
        assert_eq!(line(&[WHOLE, reused]).unwrap(), of(&[30, 10]));
    }

    #[test]
    fn a_line_that_cannot_be_read_whole_is_no_short_line() {
        assert!(line(&[&[]]).is_err(), "the process has ended");
        assert!(line(&[WHOLE, &[]]).is_err(), "it ends meanwhile");
        let turns: Vec<_> = [WHOLE, ADOPTED, ADOPTED].repeat(TRIES);
        assert!(line(&turns).is_err(), "never the same twice");
    }

    #[test]
    fn the_line_ends_below_a_process_that_is_hidden_from_the_daemon() {
        assert_eq!(line(&[&[(30, 20), (20, 10)]]).unwrap(), of(&[30, 20]));
    }
}
