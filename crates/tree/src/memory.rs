//! The memory of a tree, and how many processes the kernel ended because there was no more of it.
//!
//! The kernel counts its OOM kills in the control group of the process that it ends. Version 2 counts them in the groups above as
//! well, so the nearest group with the file tells: a run's leaf often has no memory controller, and then the group above it is
//! the wrapper's. On hosts whose memory controller is a version 1 one, its own group tells. In the root group nothing is counted;
//! there the host's own count remains, which says less.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::Leaf;
use super::pid::Pid;

/// Where the memory controller of version 1 is mounted.
const VERSION_1: &str = "/sys/fs/cgroup/memory";
/// Where version 2 is mounted: alone, or beside version 1.
const VERSION_2: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const HOST: &str = "/proc/vmstat";
/// Processes whose memory is read; those beyond are few enough of a look to be left out.
const MOST: usize = 4096;

/// The kernel's count of OOM kills that concern a process, from the moment of this watch on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomWatch {
    file: PathBuf,
    before: u64,
}

impl OomWatch {
    /// Begins to count for the process with this number. `None` when the kernel tells nothing.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        places(&groups).into_iter().chain([PathBuf::from(HOST)]).find_map(|file| {
            let before = count(&fs::read_to_string(&file).ok()?)?;
            Some(Self { file, before })
        })
    }

    /// How many processes the kernel has ended since.
    #[must_use]
    pub fn kills(&self) -> u64 {
        let now = fs::read_to_string(&self.file).ok().and_then(|text| count(&text));
        now.map_or(0, |now| now.saturating_sub(self.before))
    }

    /// Whether only the whole host's kills are counted: one of them need not be of this tree.
    #[must_use]
    pub fn is_of_the_host(&self) -> bool {
        self.file == Path::new(HOST)
    }
}

/// The files that may have the count, the nearest group's first.
fn places(groups: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|name| name == "memory") {
            found.insert(0, Path::new(VERSION_1).join(path).join("memory.oom_control"));
        } else if controllers.is_empty() {
            // Each with those above it, without the mount's own directory: the root group counts nothing.
            for group in Path::new(path).ancestors().filter(|group| !group.as_os_str().is_empty()) {
                found.extend(VERSION_2.map(|mount| Path::new(mount).join(group).join("memory.events")));
            }
        }
    }
    // A container with a namespace of its own sees its group as the root, and there the file exists.
    found.extend(VERSION_2.map(|mount| Path::new(mount).join("memory.events")));
    found
}

/// The count in one of these files: each has a line with this word and a number.
fn count(text: &str) -> Option<u64> {
    let mut lines = text.lines().map(|line| line.split_whitespace());
    lines.find_map(|mut words| (words.next() == Some("oom_kill")).then(|| words.next()?.parse().ok())?)
}

/// The memory of the processes with these numbers, in bytes: what the kernel accounts to the leaf, where it does, otherwise what
/// is resident of each, with shared pages in each of them.
#[must_use]
pub fn memory_of(leaf: Option<&Leaf>, pids: &[Pid]) -> u64 {
    let accounted = leaf.and_then(|leaf| fs::read_to_string(leaf.path().join("memory.current")).ok());
    accounted.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        pids.iter().take(MOST).filter_map(|pid| resident_pages(*pid)).sum::<u64>().saturating_mul(page)
    })
}

/// The second number of `statm`, for which the kernel takes no lock of the process.
fn resident_pages(pid: Pid) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_group_that_counts_is_found() {
        let shown = |groups: &str| places(groups).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let both = shown("4:memory:/x\n3:cpu,cpuacct:/\n0::/\n");
        assert_eq!(both.first().unwrap(), "/sys/fs/cgroup/memory/x/memory.oom_control");
        let nested = shown("0::/a.slice/b.service/machineid-7\n");
        let events = |group: &str| format!("/sys/fs/cgroup/{group}/memory.events");
        assert_eq!((&nested[0], &nested[2]), (&events("a.slice/b.service/machineid-7"), &events("a.slice/b.service")));
        assert_eq!(shown("").len(), 2, "the root of a namespace");
    }

    #[test]
    fn the_count_is_read_from_each_kind_of_file() {
        assert_eq!(count("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(count("nr_free_pages 5\n"), None);
    }

    #[test]
    fn a_process_has_memory_and_a_watch_begins_at_zero() {
        assert!(memory_of(None, &[Pid::own()]) > 0);
        assert!(OomWatch::of(Pid::own()).is_none_or(|watch| watch.kills() < 1000));
    }
}
