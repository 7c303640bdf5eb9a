//! One process as `/proc/<pid>/stat` and `/proc/<pid>/status` describe it.

use rustix::io::Errno;

use super::kernel_file;
use super::pid::{Identity, Pid, StartTime};

/// What a process is doing, as far as it matters for ending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Running, sleeping, or in any other state that a signal interrupts.
    Interruptible,
    /// In a wait the kernel does not interrupt: even SIGKILL takes effect only after it.
    Uninterruptible,
    /// Stopped by a signal or a tracer.
    Stopped,
    /// Ended, and not yet reaped: it runs no code and holds nothing but its number.
    Ended,
}

/// One line of the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEntry {
    /// The process.
    pub identity: Identity,
    /// The parent; `None` for the first process, for kernel threads and when the parent is outside the PID namespace.
    pub parent: Option<Pid>,
    /// The process group; 0 when it is outside the PID namespace.
    pub group: i32,
    /// The session; 0 when it is outside the PID namespace.
    pub session: i32,
    /// What the process is doing.
    pub activity: Activity,
}

impl ProcessEntry {
    /// Whether the process can still run code. A zombie cannot, and needs no signal.
    #[must_use]
    pub const fn is_alive(&self) -> bool {
        !matches!(self.activity, Activity::Ended)
    }

    /// Parses the text of `/proc/<pid>/stat`. `None` when it is malformed.
    ///
    /// The second field is the program's name in parentheses and may hold anything, also parentheses, spaces and line
    /// feeds: the fields behind it are counted from the *last* closing one.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::parse_with_threads(text).map(|(entry, _)| entry)
    }

    /// The same, with the number of threads.
    fn parse_with_threads(text: &[u8]) -> Option<(Self, u32)> {
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let pid = Pid::new(number(text.get(..open)?)?)?;
        let behind = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        let mut fields = behind.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = Pid::new(fields.next()?.parse().ok()?);
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        // Fields 7 (tty_nr) to 19 (nice) are skipped; 20 is num_threads, 22 starttime.
        let threads: u32 = fields.nth(13)?.parse().ok()?;
        let start = StartTime(fields.nth(1)?.parse().ok()?);
        let activity = match state {
            // The first thread of a process may end before the others. The process then shows as a zombie, but lives
            // on: only the number of threads tells. By the letter alone an agent could hide with `pthread_exit`.
            "Z" | "X" | "x" if threads <= 1 => Activity::Ended,
            "D" => Activity::Uninterruptible,
            "T" | "t" => Activity::Stopped,
            _ => Activity::Interruptible,
        };
        Some((Self { identity: Identity { pid, start }, parent, group, session, activity }, threads))
    }

    /// Reads `/proc/<pid>/stat`. `Ok(None)` when there is no such process. Fails when it cannot be read (no descriptor
    /// left), which must not be taken for its absence.
    pub fn read(pid: Pid) -> Result<Option<Self>, Errno> {
        Ok(Self::read_with_threads(pid)?.map(|(entry, _)| entry))
    }

    /// The same, with the number of threads.
    pub(super) fn read_with_threads(pid: Pid) -> Result<Option<(Self, u32)>, Errno> {
        let mut buffer = [0_u8; STAT_SIZE];
        let Some(text) = read_file(&format!("/proc/{pid}/stat"), &mut buffer)? else { return Ok(None) };
        if text.is_empty() {
            // The process vanished between open and read.
            return Ok(None);
        }
        let (mut entry, threads) = Self::parse_with_threads(text).ok_or(Errno::ILSEQ)?;
        if threads > 1 && shows_a_zombie(text) && any_thread_is_uninterruptible(pid) {
            entry.activity = Activity::Uninterruptible;
        }
        Ok(Some((entry, threads)))
    }
}

/// How many threads are looked at when the first one has ended.
const THREADS: usize = 256;

fn state(text: &[u8]) -> Option<u8> {
    let close = text.iter().rposition(|&byte| byte == b')')?;
    text.get(close + 2).copied()
}

fn shows_a_zombie(text: &[u8]) -> bool {
    state(text) == Some(b'Z')
}

/// Whether a thread is in a wait that the kernel does not interrupt. The process's own state no longer tells once its
/// first thread has ended.
fn any_thread_is_uninterruptible(pid: Pid) -> bool {
    let Ok(tasks) = kernel_file::open_directory(format!("/proc/{pid}/task").as_str()) else { return false };
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
    let mut threads = rustix::fs::RawDir::new(&tasks, &mut buffer);
    for _ in 0..THREADS {
        let Some(Ok(thread)) = threads.next() else { return false };
        let Some(thread) = thread.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let mut buffer = [0_u8; STAT_SIZE];
        if let Ok(Some(text)) = read_file(&format!("/proc/{pid}/task/{thread}/stat"), &mut buffer)
            && state(text) == Some(b'D')
        {
            return true;
        }
    }
    false
}

/// Room for one `stat` line: 52 numbers of at most 20 digits and a name of at most 64 bytes.
const STAT_SIZE: usize = 2048;

/// Reads a file of `/proc` as far as the buffer takes it. `Ok(None)` when the process is gone, or belongs to another
/// user and `/proc` is mounted with `hidepid`: the two cannot be told apart.
fn read_file<'a>(path: &str, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Errno> {
    let gone = |errno| match errno {
        Errno::NOENT | Errno::SRCH | Errno::PERM | Errno::ACCESS => Ok(None),
        _ => Err(errno),
    };
    let file = match kernel_file::open(path) {
        Ok(file) => file,
        Err(errno) => return gone(errno),
    };
    let mut filled = 0;
    while filled < buffer.len() {
        match kernel_file::read_on(&file, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                // The kernel returns the whole line at once. Another read to see the end would double the cost of a
                // scan.
                if buffer[..filled].ends_with(b"\n") {
                    break;
                }
            }
            Err(errno) => return gone(errno),
        }
    }
    Ok(Some(&buffer[..filled]))
}

/// The pids of one process in each PID namespace it is in, from the one `/proc` was mounted in (the caller's) down to
/// its own. `None` when it is gone or cannot be read.
#[must_use]
pub fn namespace_pids(pid: Pid) -> Option<Vec<i32>> {
    // `NSpid` stands after the groups, of which there may be 65,536.
    let status = kernel_file::read(&format!("/proc/{pid}/status")).ok()?;
    parse_namespace_pids(&status)
}

fn parse_namespace_pids(status: &[u8]) -> Option<Vec<i32>> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    let pids: Option<Vec<i32>> =
        line.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty()).map(number).collect();
    pids.filter(|pids| !pids.is_empty())
}

fn number(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Checks that foreign bytes parse into an entry with possible numbers, or into none.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz_stat(data: &[u8]) {
    let Some(entry) = ProcessEntry::parse(data) else { return };
    assert!(entry.identity.pid.as_raw() > 0 && entry.parent.is_none_or(|parent| parent.as_raw() > 0));
    let close = data.iter().rposition(|&byte| byte == b')').expect("an entry has a name");
    assert!(data[close..].windows(20).count() > 0, "all fields stand behind the name");
}

/// Checks that foreign bytes parse into the pids of all namespaces, or into nothing.
///
/// # Panics
///
/// When that does not hold.
pub fn fuzz_status(data: &[u8]) {
    if let Some(pids) = parse_namespace_pids(data) {
        assert!(data.windows(6).any(|window| window == b"NSpid:"), "{pids:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(name: &str, state: &str, threads: u32) -> Vec<u8> {
        format!(
            "42 ({name}) {state} 7 40 39 34816 42 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 123456 999 88 184467 1 1 0"
        )
        .into_bytes()
    }

    #[test]
    fn a_name_may_hold_parentheses_spaces_and_line_feeds() {
        for name in ["sh", "a b", ") R 1 1 1 (", "(((", ")\n) S 1 2", "", "\u{fffd}"] {
            let entry = ProcessEntry::parse(&line(name, "S", 1)).unwrap();
            let identity = Identity { pid: Pid::new(42).unwrap(), start: StartTime(123_456) };
            assert_eq!(entry.identity, identity, "{name:?}");
            assert_eq!((entry.parent, entry.group, entry.session), (Pid::new(7), 40, 39), "{name:?}");
        }
    }

    #[test]
    fn a_zombie_has_ended_unless_another_thread_of_it_lives() {
        assert_eq!(ProcessEntry::parse(&line("a", "Z", 1)).unwrap().activity, Activity::Ended);
        assert_eq!(ProcessEntry::parse(&line("a", "Z", 2)).unwrap().activity, Activity::Interruptible);
        assert_eq!(ProcessEntry::parse(&line("a", "D", 1)).unwrap().activity, Activity::Uninterruptible);
        assert_eq!(ProcessEntry::parse(&line("a", "T", 1)).unwrap().activity, Activity::Stopped);
    }

    #[test]
    fn this_process_can_be_read_and_a_missing_one_is_absent() {
        let entry = ProcessEntry::read(Pid::own()).unwrap().unwrap();
        assert_eq!(entry.identity.pid, Pid::own());
        assert!(entry.is_alive());
        assert_eq!(ProcessEntry::read(Pid::new(i32::MAX).unwrap()), Ok(None));
    }

    #[test]
    fn the_pids_of_all_namespaces_are_read_outermost_first() {
        let status = b"Name:\tsh\nNSpid:\t812\t3\t1\nNSpgid:\t812\n";
        assert_eq!(parse_namespace_pids(status), Some(vec![812, 3, 1]));
        assert_eq!(parse_namespace_pids(b"Name:\tsh\n"), None);
        assert_eq!(namespace_pids(Pid::own()).unwrap().first(), Some(&Pid::own().as_raw()));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ProcessEntry::parse(&bytes);
            let _ = parse_namespace_pids(&bytes);
        }
    }
}
