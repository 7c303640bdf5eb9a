//! One tree, read by descent from the kernel's lists of children.
//!
//! A process table costs as much as the host has processes. Where a thousand trees are stopped at once, each of them
//! looked at by daemon, wrapper and guardian, that is a thousand times a thousand. Descent costs as much as the tree
//! has processes. It shows the whole tree while the tree's supervisors live: each orphan of it is then a child of one
//! of them. When a supervisor is missing, orphans may be anywhere, and only a table and the environments tell.
//!
//! As with a table, a process that is forked during the read may be missing, and a stop looks again. A list of children
//! may also leave out a child when another one ends while it is read; so when a listed process is gone, the list is
//! read once more.

use std::collections::HashSet;

use rustix::io::Errno;

use super::members::{Guardian, Member, Sighting, Tree};
use super::orphans;
use super::pid::{Identity, Pid};
use super::stat::ProcessEntry;
use super::table::{Observer, ProcessTable};

/// A tree with more processes than this is looked for in a process table, which is cheaper than three files for each
/// process.
const MOST: usize = 4096;

impl Tree {
    /// The living members, at a cost that depends on the tree alone. `None` when descent is not enough; a process table then
    /// tells.
    ///
    /// Fails when no descriptor is available.
    pub fn members_by_descent(&mut self) -> Result<Option<Vec<Member>>, Errno> {
        Ok(self.family(&[])?.map(|table| self.join(&Sighting::of(&table))))
    }

    /// Returns a table of this tree's processes and its supervisors only. `None` when descent is not enough: a
    /// supervisor is missing, the kernel lists no children, there are too many processes, or a process that is known to
    /// belong to the tree (by an earlier look, or since it is `inside` the control group) is not a descendant. `None`
    /// too when no process is known to inherit orphans; see [`Tree::has_heir`].
    ///
    /// Fails when no descriptor is available.
    pub(super) fn family(&self, inside: &[Pid]) -> Result<Option<ProcessTable>, Errno> {
        if !self.has_heir(Pid::own()) {
            return Ok(None);
        }
        let guardian = self.guardian().map(Guardian::identity);
        let Some(reaper) = guardian.or(self.supervisor()) else { return Ok(None) };
        let mut reading = Reading::default();
        let mut from = Vec::new();
        for holder in [guardian, self.supervisor()].into_iter().flatten() {
            match reading.takes_holder(holder)? {
                // Children that the supervisor had before the tree must be seen as well, or they would be forgotten as
                // bystanders.
                Some(threads) if holder == reaper || self.has_bystanders() => from.push((holder.pid, threads)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
        for (holder, threads) in from {
            if !reading.descends(holder, threads)? {
                return Ok(None);
            }
        }
        for known in self.known() {
            if reading.lacks(known.pid, |entry| entry.identity == known)? {
                return Ok(None);
            }
        }
        for &pid in inside {
            if reading.lacks(pid, |_| true)? {
                return Ok(None);
            }
        }
        // The children of a supervisor that has ended meanwhile have another parent now.
        if !orphans::is_alive(reaper) {
            return Ok(None);
        }
        Ok(Some(ProcessTable::from_entries(Observer::current(), reading.entries)))
    }
}

#[derive(Default)]
struct Reading {
    entries: Vec<ProcessEntry>,
    seen: HashSet<Pid>,
}

impl Reading {
    /// Adds a supervisor and returns the number of its threads. `None` when it does not live.
    fn takes_holder(&mut self, holder: Identity) -> Result<Option<u32>, Errno> {
        let read = ProcessEntry::read_with_threads(holder.pid)?;
        let Some((entry, threads)) = read.filter(|(entry, _)| entry.identity == holder && entry.is_alive()) else {
            return Ok(None);
        };
        if self.seen.insert(holder.pid) {
            self.entries.push(entry);
        }
        Ok(Some(threads))
    }

    /// Adds all descendants of this process. `false` when they cannot be listed.
    fn descends(&mut self, from: Pid, threads: u32) -> Result<bool, Errno> {
        let mut open = vec![(from, threads)];
        while let Some((parent, threads)) = open.pop() {
            // The list is read again when a child was gone before it was looked at: its end may have hidden a sibling.
            for _ in 0..2 {
                let listed =
                    if threads == 1 { orphans::children_of_single(parent)? } else { orphans::children(parent)? };
                let Some(children) = listed else {
                    // The parent has ended. Its children now belong to the subreaper, where the next look finds them.
                    if parent == from {
                        return Ok(false);
                    }
                    break;
                };
                let mut gone = false;
                for child in children {
                    if !self.seen.insert(child) {
                        continue;
                    }
                    let Some((entry, threads)) = ProcessEntry::read_with_threads(child)? else {
                        gone = true;
                        continue;
                    };
                    if self.entries.len() >= MOST {
                        return Ok(false);
                    }
                    self.entries.push(entry);
                    if entry.is_alive() {
                        open.push((child, threads));
                    }
                }
                if !gone {
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Whether a process with this number lives, is the expected one, and is missing among the descendants. A process
    /// that was forked after its parent was looked at seems missing too; the caller then reads a table, which shows its
    /// parent.
    fn lacks(&mut self, pid: Pid, is_it: impl Fn(&ProcessEntry) -> bool) -> Result<bool, Errno> {
        if self.seen.contains(&pid) {
            return Ok(false);
        }
        let entry = ProcessEntry::read(pid)?.filter(|entry| is_it(entry));
        let lives = entry.is_some_and(|entry| entry.is_alive());
        // A zombie is added all the same: a leader that is not reaped keeps the number of its process group.
        if let Some(entry) = entry.filter(|_| !lives)
            && self.seen.insert(pid)
        {
            self.entries.push(entry);
        }
        Ok(lives)
    }
}
