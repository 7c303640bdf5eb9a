//! The living children of the process that inherits a tree's orphans, from the kernel's list of children.
//!
//! A process that forks and exits at once, again and again, is hardly ever in a process table: it has ended before its
//! entry is read. (*Measured*: with eight of them, two scans in a row found none in four of five cases.) But it is
//! always a child: while it lives, or is not reaped, it is a child of the subreaper above, or descends from a living
//! child of it, since the kernel hands a child over in the moment in which its parent ends. So the list of children
//! answers what a table cannot: whether no process is left, and which to kill before it is gone.

use std::collections::HashSet;

use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use rustix::io::Errno;

use super::kernel_file;
use super::pid::{Identity, Pid};
use super::pidfd::Process;
use super::stat::ProcessEntry;

/// How often the list is read before the caller can do something else. Reading a list takes some microseconds.
const ROUNDS: usize = 32;

/// How many children are looked at in one visit, which takes some milliseconds. A fork storm leaves zombies faster than
/// they can be looked at.
const MOST: usize = 512;

/// The result of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visited {
    /// Every child in the last list had been visited before, or had ended.
    All,
    /// Each list had a child that had not been visited.
    NeverAll,
    /// The kernel does not list children, or the parent has ended and its children have another one.
    NoList,
}

/// Visits every living child of `parent` once. The processes in `ended` are known to be zombies.
///
/// Fails when no descriptor is available.
pub(super) fn visit(
    parent: Identity,
    ended: impl IntoIterator<Item = Pid>,
    mut meet: impl FnMut(ProcessEntry, &Process),
) -> Result<Visited, Errno> {
    let mut visited: HashSet<Pid> = ended.into_iter().collect();
    let mut left = MOST;
    for _ in 0..ROUNDS {
        let Some(children) = children(parent.pid)? else { return Ok(Visited::NoList) };
        let before = visited.len();
        // The latest child first: in a fork storm the others are zombies.
        for child in children.into_iter().rev() {
            if !visited.insert(child) {
                continue;
            }
            left -= 1;
            if left == 0 {
                return Ok(Visited::NeverAll);
            }
            // The process is pinned before its entry is read: if the entry then shows this parent, the number was this
            // child's all along.
            let Some((process, entry)) = Process::pin_entry(child)? else { continue };
            if entry.parent == Some(parent.pid) && entry.is_alive() {
                meet(entry, &process);
            }
        }
        if visited.len() == before {
            // A parent that has ended has no children; another process has inherited them.
            return Ok(if is_alive(parent) { Visited::All } else { Visited::NoList });
        }
    }
    Ok(Visited::NeverAll)
}

/// Whether this process lives now. `false` when that cannot be found out.
pub(super) fn is_alive(identity: Identity) -> bool {
    ProcessEntry::read(identity.pid)
        .is_ok_and(|entry| entry.is_some_and(|entry| entry.identity == identity && entry.is_alive()))
}

/// The children of a process that has one thread, including zombies. `None` when they cannot be listed.
pub(super) fn children_of_single(parent: Pid) -> Result<Option<Vec<Pid>>, Errno> {
    let list = format!("/proc/{parent}/task/{parent}/children");
    match kernel_file::open(list.as_str()) {
        Ok(list) => Ok(read_list(&list).ok().map(|text| numbers(&text).collect())),
        Err(errno) => missing(errno),
    }
}

fn missing<T>(errno: Errno) -> Result<Option<T>, Errno> {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Err(errno),
        _ => Ok(None),
    }
}

/// How often the threads are listed again because a listing may have left out some.
const LISTINGS: usize = 16;

/// The children of all threads of a process, including zombies. `None` when they cannot be listed.
///
/// The kernel may leave out living threads of a listing while others end. Then a thread of the listing has ended, or the
/// listing is shorter than the directory's link count says, and the threads are listed again.
pub(super) fn children(parent: Pid) -> Result<Option<Vec<Pid>>, Errno> {
    let mut found = Vec::new();
    let mut any = false;
    for _ in 0..LISTINGS {
        let Some(listing) = list_once(parent, &mut found)? else { return Ok(None) };
        any |= listing.read;
        if listing.complete {
            break;
        }
    }
    // In the kernel's order, each once.
    let mut known = HashSet::new();
    found.retain(|child| known.insert(*child));
    // No list was read: the process has ended, or the kernel has no such lists.
    Ok(any.then_some(found))
}

/// What one listing of threads came to.
struct ThreadListing {
    /// The children of some thread were read.
    read: bool,
    /// No thread can have been left out.
    complete: bool,
}

fn list_once(parent: Pid, found: &mut Vec<Pid>) -> Result<Option<ThreadListing>, Errno> {
    let tasks = format!("/proc/{parent}/task");
    let tasks = match kernel_file::open_directory(tasks.as_str()) {
        Ok(tasks) => tasks,
        Err(errno) => return missing(errno),
    };
    let mut listing = ThreadListing { read: false, complete: true };
    let mut listed = 0_u64;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut threads = rustix::fs::RawDir::new(&tasks, &mut buffer);
    while let Some(thread) = threads.next() {
        let Ok(thread) = thread else { return Ok(None) };
        let Some(number) = thread.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()) else { continue };
        listed += 1;
        let list = kernel_file::open_at(&tasks, format!("{number}/children").as_str(), OFlag::O_RDONLY);
        let text = match list {
            Ok(list) => read_list(&list),
            Err(Errno::NOENT | Errno::SRCH) => Err(Errno::SRCH),
            Err(errno) => return missing(errno),
        };
        match text {
            Ok(text) => {
                found.extend(numbers(&text));
                listing.read = true;
            }
            Err(Errno::SRCH) => listing.complete = false,
            Err(_) => return Ok(None),
        }
    }
    // Two links are the directory's own. The count cannot be read only when the process has ended.
    let threads = fstat(&tasks).map_or(0, |directory| directory.st_nlink.saturating_sub(2));
    listing.complete &= threads <= listed;
    Ok(Some(listing))
}

fn read_list(list: &std::os::fd::OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match kernel_file::read_on(list, &mut buffer)? {
            0 => return Ok(text),
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
}

fn numbers(text: &[u8]) -> impl Iterator<Item = Pid> {
    let words = text.split(u8::is_ascii_whitespace).filter_map(|word| std::str::from_utf8(word).ok());
    words.filter_map(|word| word.parse().ok().and_then(Pid::new))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn threads_that_end_meanwhile_hide_no_children_of_the_others() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let number = Pid::new(i32::try_from(child.id()).unwrap()).unwrap();
        let over = AtomicBool::new(false);
        let mut complete = true;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let few: Vec<_> = (0..4).map(|_| std::thread::spawn(|| ())).collect();
                    for thread in few {
                        thread.join().unwrap();
                    }
                }
            });
            for _ in 0..3000 {
                // On a kernel without such lists there is nothing to test.
                let lists = children_of_single(Pid::own()).unwrap().is_some();
                complete &= !lists || children(Pid::own()).unwrap().is_some_and(|found| found.contains(&number));
            }
            over.store(true, Ordering::Relaxed);
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(complete);
    }
}
