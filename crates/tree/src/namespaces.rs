//! The PID namespaces that a process is in: its own, and those around it. A container has one.
//!
//! A user number says nothing across containers: the same number is a different user's in each of them. So a client's agents
//! are those in its own PID namespace, or in one below it.
//!
//! The caller knows a namespace by its file, `/proc/PID/ns/pid`, which needs rights over the process, or by its first process,
//! for which none are needed: a process can enter only namespaces below its own, so one that descends from the first process
//! of a namespace, and has as many numbers, is in that namespace. A process that entered from outside (`docker exec`) descends
//! from no process of its namespace. Without its file, its namespace is then unknown.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use machineid_sys as sys;

use super::ancestors::ancestry;
use super::pid::Identity;
use super::stat::{ProcessEntry, namespace_pids};

/// More namespaces than the kernel nests.
const DEEPEST: usize = 64;

/// A name of a PID namespace. A namespace may have two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// The caller's own.
    Own,
    /// The device and inode of its file.
    File(u64, u64),
    /// Its first process.
    First(Identity),
}

/// The PID namespaces that a process is in, as far as the caller can tell. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PidNamespaces {
    /// The names of the process's own namespace; none when it is unknown.
    own: Arc<[Name]>,
    /// The names of those around it, up to the caller's.
    around: Arc<[Name]>,
}

impl PidNamespaces {
    /// Those of a process that the caller cannot see.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Reads them from `/proc`. They are unknown when the process has ended, and when the caller may not read enough.
    #[must_use]
    pub fn of(process: Identity) -> Self {
        let found = Self::read(process);
        // What was read by the number is of this process only if it still has the number.
        let is_alive = || ProcessEntry::read(process.pid).ok().flatten().is_some_and(|entry| entry.identity == process);
        found.filter(|_| is_alive()).unwrap_or_default()
    }

    fn read(process: Identity) -> Option<Self> {
        let depth = namespace_pids(process.pid)?.len();
        if depth == 1 {
            return Some(Self { own: Arc::new([Name::Own]), around: Arc::default() });
        }
        let (mut own, mut around) = (Vec::new(), vec![Name::Own]);
        for ancestor in ancestry(process, ProcessEntry::read).unwrap_or_default() {
            match first_at(ancestor) {
                Some(at) if at == depth => own.push(Name::First(ancestor)),
                Some(at) if at < depth => around.push(Name::First(ancestor)),
                Some(_) | None => {}
            }
        }
        // Without the right to read it, the first processes alone tell.
        if let Ok(files) = files(process) {
            own.extend(files.first());
            around.extend(files.iter().skip(1));
        }
        Some(Self { own: own.into(), around: around.into() })
    }

    /// Whether the namespace of this process is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.own.is_empty()
    }

    /// Whether the process is in the caller's own namespace.
    #[must_use]
    pub fn is_callers(&self) -> bool {
        self.own.contains(&Name::Own)
    }

    /// Whether another process is in the namespace of this one, or below it; `false` when unknown.
    #[must_use]
    pub fn contain(&self, other: &Self) -> bool {
        self.own.iter().any(|name| other.own.contains(name) || other.around.contains(name))
    }
}

/// The depth of the namespace whose first process this is; `None` when it is none's, or in the caller's own namespace.
fn first_at(process: Identity) -> Option<usize> {
    let numbers = namespace_pids(process.pid)?;
    let is_first = numbers.len() > 1 && numbers.last() == Some(&1);
    let is_same = || ProcessEntry::read(process.pid).ok().flatten().is_some_and(|entry| entry.identity == process);
    (is_first && is_same()).then_some(numbers.len())
}

/// The files of the namespace of a process and of those around it, below the caller's own.
fn files(process: Identity) -> io::Result<Vec<Name>> {
    let own = name(&File::open("/proc/self/ns/pid")?)?;
    let mut namespace = OwnedFd::from(File::open(format!("/proc/{}/ns/pid", process.pid))?);
    let mut found = Vec::new();
    for _ in 0..DEEPEST {
        let this = name(&namespace)?;
        if this == own {
            break;
        }
        found.push(this);
        match sys::parent_namespace(&namespace)? {
            Some(parent) => namespace = parent,
            None => break,
        }
    }
    Ok(found)
}

fn name(namespace: impl AsFd) -> io::Result<Name> {
    let about = rustix::fs::fstat(namespace)?;
    Ok(Name::File(about.st_dev, about.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pid, StartTime};

    fn first(number: i32) -> Name {
        Name::First(Identity { pid: Pid::new(number).unwrap(), start: StartTime(1) })
    }

    fn at(own: &[Name], around: &[Name]) -> PidNamespaces {
        PidNamespaces { own: own.into(), around: around.into() }
    }

    #[test]
    fn the_own_namespace_contains_every_process_that_is_seen() {
        let here = PidNamespaces::of(ProcessEntry::read(Pid::own()).unwrap().unwrap().identity);
        assert!(here.is_known() && here.contain(&here));
        let container = at(&[first(10), Name::File(1, 2)], &[Name::Own]);
        assert!(here.contain(&container) && !container.contain(&here));
    }

    #[test]
    fn a_container_contains_itself_and_what_is_below_and_no_other() {
        let [one, other] = [at(&[first(10)], &[Name::Own]), at(&[first(20), Name::File(1, 2)], &[Name::Own])];
        assert!(!one.contain(&other) && !other.contain(&one));
        let below = at(&[first(11)], &[Name::Own, first(10)]);
        assert!(one.contain(&below) && !below.contain(&one) && !other.contain(&below));
        // It entered from outside, and its file tells.
        let entered = at(&[Name::File(1, 2)], &[Name::Own]);
        assert!(entered.contain(&other) && other.contain(&entered) && !entered.contain(&one));
    }

    #[test]
    fn an_unknown_namespace_contains_nothing_and_is_in_none() {
        let unknown = PidNamespaces::unknown();
        let here = at(&[Name::Own], &[]);
        assert!(!unknown.contain(&unknown) && !unknown.contain(&here) && !here.contain(&unknown));
        // One that is seen and not known by name is below the caller's.
        assert!(here.contain(&at(&[], &[Name::Own])));
    }
}
