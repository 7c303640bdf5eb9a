//! A snapshot of the process table.

use std::cell::RefCell;
use std::collections::HashSet;

use machineid_clock::BootTime;
use machineid_protocol::RunId;
use machineid_sys as sys;
use rustix::io::Errno;

use super::holders::Holders;
use super::kernel_file;
use super::pid::{Identity, Pid, StartTime};
use super::stat::ProcessEntry;

/// The process that reads a table, which no tree may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observer {
    /// Its process id.
    pub pid: Pid,
    /// Its process group; 0 when that is outside the PID namespace.
    pub group: i32,
}

impl Observer {
    /// The calling process.
    #[must_use]
    pub fn current() -> Self {
        Self { pid: Pid::own(), group: sys::own_group() }
    }
}

/// How many processes are read between two looks at the clock.
const BETWEEN_CLOCKS: usize = 64;

/// The longest line of descent that is followed, in case processes change into a circle while they are read.
const LONGEST_LINE: usize = 1024;

/// All processes at one moment, or nearly so: the kernel offers no atomic view. A process that was forked during the
/// read may be missing, which is why a stop looks again until it has found no process twice.
///
/// One snapshot serves any number of trees.
#[derive(Clone, Debug)]
pub struct ProcessTable {
    caller: Observer,
    /// Sorted by pid.
    entries: Vec<ProcessEntry>,
    /// Positions in `entries`, sorted by parent, then pid.
    by_parent: Vec<u32>,
    /// Positions in `entries`, sorted by process group, then pid.
    by_group: Vec<u32>,
    /// Which of the processes name which runs, as far as a caller has asked.
    holders: RefCell<Holders>,
}

impl ProcessTable {
    /// Reads `/proc`. A process that vanishes meanwhile is left out.
    ///
    /// Fails when `/proc` or an entry in it cannot be read (not mounted, no descriptor left): an incomplete table would
    /// make a tree look empty.
    pub fn scan() -> Result<Self, Errno> {
        Self::scan_until(None)
    }

    /// The same, but gives up with ETIME at the deadline. A scan takes a second on a host full of processes (32,768 by
    /// default, zombies included), and many seconds in a fork storm: too long for a caller that must send SIGKILL
    /// meanwhile, for which [`super::Stop::glance`] needs no table.
    pub fn scan_until(deadline: Option<BootTime>) -> Result<Self, Errno> {
        let proc = kernel_file::open_directory("/proc")?;
        let mut entries = Vec::with_capacity(256);
        let mut read = 0_usize;
        let mut names = [std::mem::MaybeUninit::uninit(); 8192];
        let mut directory = rustix::fs::RawDir::new(proc, &mut names);
        while let Some(entry) = directory.next() {
            let entry = entry?;
            read += 1;
            if read.is_multiple_of(BETWEEN_CLOCKS) && deadline.is_some_and(|deadline| BootTime::now() >= deadline) {
                return Err(Errno::TIME);
            }
            let Ok(name) = entry.file_name().to_str() else { continue };
            if let Some(pid) = name.parse().ok().and_then(Pid::new) {
                entries.extend(ProcessEntry::read(pid)?);
            }
        }
        Ok(Self::from_entries(Observer::current(), entries))
    }

    /// Reads only the processes from `from` up to its ancestor `to`, or up to the first process when `to` is no
    /// ancestor. Enough to tell whether one descends from the other, at a fraction of a scan's cost.
    ///
    /// Fails as [`ProcessTable::scan`] does.
    pub fn line_of_descent(from: Pid, to: Pid) -> Result<Self, Errno> {
        let mut entries = Vec::new();
        let mut next = Some(from);
        while let Some(pid) = next.filter(|_| entries.len() < LONGEST_LINE) {
            let Some(entry) = ProcessEntry::read(pid)? else { break };
            next = entry.parent.filter(|_| pid != to);
            entries.push(entry);
        }
        Ok(Self::from_entries(Observer::current(), entries))
    }

    /// Makes a table of these entries; of two with the same pid one is kept.
    #[must_use]
    pub fn from_entries(caller: Observer, mut entries: Vec<ProcessEntry>) -> Self {
        entries.sort_by_key(|entry| entry.identity.pid);
        entries.dedup_by_key(|entry| entry.identity.pid);
        let positions = || 0..u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let mut by_parent: Vec<u32> = positions().collect();
        by_parent.sort_by_key(|&at| entries[at as usize].parent);
        let mut by_group: Vec<u32> = positions().collect();
        by_group.sort_by_key(|&at| entries[at as usize].group);
        Self { caller, entries, by_parent, by_group, holders: RefCell::default() }
    }

    /// The process that read the table.
    #[must_use]
    pub const fn caller(&self) -> Observer {
        self.caller
    }

    /// Every process, sorted by number; zombies too.
    #[must_use]
    pub fn entries(&self) -> &[ProcessEntry] {
        &self.entries
    }

    /// The living processes that name this run in their environment, including all that are no older than `since`.
    ///
    /// Fails when no descriptor is available.
    pub(super) fn holders(&self, run: RunId, since: StartTime) -> Result<Vec<ProcessEntry>, Errno> {
        self.holders.borrow_mut().of(run, since, &self.entries).map(<[ProcessEntry]>::to_vec)
    }

    /// The process that now has this number; a zombie too.
    #[must_use]
    pub fn get(&self, pid: Pid) -> Option<&ProcessEntry> {
        self.entries.binary_search_by_key(&pid, |entry| entry.identity.pid).ok().map(|at| &self.entries[at])
    }

    /// This process, not a later one with its number; a zombie too.
    #[must_use]
    pub fn find(&self, identity: Identity) -> Option<&ProcessEntry> {
        self.get(identity.pid).filter(|entry| entry.identity == identity)
    }

    /// Whether this process can still run code.
    #[must_use]
    pub fn is_alive(&self, identity: Identity) -> bool {
        self.find(identity).is_some_and(ProcessEntry::is_alive)
    }

    /// The children of the process with this number; zombies too.
    pub fn children(&self, parent: Pid) -> impl Iterator<Item = &ProcessEntry> {
        let from = self.by_parent.partition_point(|&at| self.entries[at as usize].parent < Some(parent));
        self.by_parent[from..]
            .iter()
            .map(|&at| &self.entries[at as usize])
            .take_while(move |entry| entry.parent == Some(parent))
    }

    /// The processes of a process group; zombies too.
    pub fn group(&self, group: i32) -> impl Iterator<Item = &ProcessEntry> {
        let from = self.by_group.partition_point(|&at| self.entries[at as usize].group < group);
        self.by_group[from..].iter().map(|&at| &self.entries[at as usize]).take_while(move |entry| entry.group == group)
    }

    /// All living descendants of `root`, not `root` itself.
    #[must_use]
    pub fn descendants(&self, root: Pid) -> Vec<&ProcessEntry> {
        let mut found = HashSet::from([root]);
        let mut open = vec![root];
        let mut living = Vec::new();
        while let Some(parent) = open.pop() {
            for child in self.children(parent) {
                // A table pieced together over time may hold a circle.
                if found.insert(child.identity.pid) {
                    open.push(child.identity.pid);
                    if child.is_alive() {
                        living.push(child);
                    }
                }
            }
        }
        living
    }

    /// Whether `pid` descends from `ancestor`; no process descends from itself.
    #[must_use]
    pub fn is_descendant(&self, ancestor: Pid, pid: Pid) -> bool {
        let mut at = pid;
        // A chain longer than the table is a circle.
        for _ in 0..self.entries.len() {
            match self.get(at).and_then(|entry| entry.parent) {
                Some(parent) if parent == ancestor => return true,
                Some(parent) if parent == pid => return false,
                Some(parent) => at = parent,
                None => return false,
            }
        }
        false
    }

    /// Finds the process that `peer` calls `requested` in its own PID namespace, if it is `peer` itself or a living
    /// descendant of it. Anything else is `None`: a client may name no other processes.
    ///
    /// `namespace_pids` returns the numbers of a process in each PID namespace from the caller's down to its own
    /// ([`super::namespace_pids`] reads them). The result holds for the moment of the table: pin the process before
    /// use.
    pub fn resolve(
        &self,
        peer: Pid,
        requested: i32,
        mut namespace_pids: impl FnMut(Pid) -> Option<Vec<i32>>,
    ) -> Option<Identity> {
        Pid::new(requested)?;
        let peer = self.get(peer).filter(|entry| entry.is_alive())?;
        let peer_pids = namespace_pids(peer.identity.pid)?;
        let level = peer_pids.len().checked_sub(1)?;
        if peer_pids.get(level) == Some(&requested) {
            return Some(peer.identity);
        }
        if level == 0 {
            // The peer is in this process's namespace: the number is already the right one.
            let entry = self.get(Pid::new(requested)?)?;
            let own = entry.is_alive() && self.is_descendant(peer.identity.pid, entry.identity.pid);
            return own.then_some(entry.identity);
        }
        self.descendants(peer.identity.pid)
            .into_iter()
            .map(|entry| entry.identity)
            .find(|identity| namespace_pids(identity.pid).is_some_and(|pids| pids.get(level) == Some(&requested)))
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
