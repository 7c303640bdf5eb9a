//! The processes and groups inside a control group, and removing groups.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use machineid_sys::from_nix;
use nix::NixPath;
use nix::errno::Errno as NixErrno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::{UnlinkatFlags, unlinkat};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::super::kernel_file;
use super::super::pid::Pid;

/// How deep groups that an agent made below its leaf are read. The kernel still ends deeper ones, since all count as
/// inside. A limit is needed because each level costs a descriptor.
const DEEPEST: usize = 32;

/// The most groups that one call removes: an agent may have made any number.
const MOST_REMOVED: usize = 100_000;

/// Opens a directory below another one. Fails when it is a link.
pub(super) fn open_directory<P: ?Sized + NixPath>(at: BorrowedFd<'_>, name: &P) -> Result<OwnedFd, Errno> {
    kernel_file::open_at(at, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)
}

/// Whether there are groups below this one. The directory's link count tells, so this needs no descriptor.
pub(super) fn has_groups(directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(fstat(directory).map_err(from_nix)?.st_nlink > 2)
}

/// Adds the processes that `cgroup.procs` lists. A process outside of the reader's PID namespace is listed as 0, and
/// left out.
pub(super) fn listed(cgroup_procs: BorrowedFd<'_>, found: &mut Vec<Pid>) -> Result<(), Errno> {
    let text = kernel_file::read_from_start(cgroup_procs)?;
    let numbers = text.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    found.extend(numbers.filter_map(|line| line.parse().ok().and_then(Pid::new)));
    Ok(())
}

/// Whether `cgroup.procs` lists this process within the first bytes that the kernel returns.
pub(super) fn is_among_the_first(cgroup_procs: BorrowedFd<'_>, process: Pid) -> Result<bool, Errno> {
    let mut buffer = [0; 4096];
    let count = kernel_file::read_on(cgroup_procs, &mut buffer)?;
    let line = format!("{process}\n");
    Ok(buffer[..count].split_inclusive(|&byte| byte == b'\n').any(|found| found == line.as_bytes()))
}

/// Adds the processes of the groups below `directory`, of at most `left` groups. A group that is removed meanwhile had
/// none. The processes of a threaded group are listed by the nearest group above that holds processes.
pub(super) fn listed_below(directory: BorrowedFd<'_>, found: &mut Vec<Pid>, left: &mut usize) -> Result<(), Errno> {
    below(directory, found, DEEPEST, left)
}

fn below(directory: BorrowedFd<'_>, found: &mut Vec<Pid>, deeper: usize, left: &mut usize) -> Result<(), Errno> {
    for name in groups(directory, *left)? {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let inner = match open_directory(directory, name.as_c_str()) {
            Ok(inner) => inner,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let procs = kernel_file::open_at(&inner, "cgroup.procs", OFlag::O_RDONLY);
        match procs.and_then(|procs| listed(procs.as_fd(), found)) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
        if deeper > 0 && has_groups(inner.as_fd())? {
            below(inner.as_fd(), found, deeper - 1, left)?;
        }
    }
    Ok(())
}

/// The names of at most `most` groups directly below.
fn groups(directory: BorrowedFd<'_>, most: usize) -> Result<Vec<CString>, Errno> {
    // A new descriptor: the offset of a shared directory descriptor must not be moved.
    let own = open_directory(directory, ".")?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut entries = rustix::fs::RawDir::new(own, &mut buffer);
    let mut names = Vec::new();
    if most == 0 {
        return Ok(names);
    }
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // The directory was removed during the read.
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name();
        let real = !matches!(name.to_bytes(), b"." | b"..");
        if real && entry.file_type() == FileType::Directory {
            names.push(name.to_owned());
            if names.len() >= most {
                break;
            }
        }
    }
    Ok(names)
}

/// Removes every group below `directory`, innermost first. Fails with EBUSY when one still holds a process.
///
/// Each removal begins at the top again, so that depth costs time and no descriptors.
pub(super) fn remove_below(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    for _ in 0..MOST_REMOVED {
        let Some(mut name) = groups(directory, 1)?.pop() else { return Ok(()) };
        let mut above = open_directory(directory, ".")?;
        loop {
            let inner = match open_directory(above.as_fd(), name.as_c_str()) {
                Ok(inner) => inner,
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(errno),
            };
            let Some(deeper) = groups(inner.as_fd(), 1)?.pop() else {
                remove_group(above.as_fd(), name.as_c_str())?;
                break;
            };
            above = inner;
            name = deeper;
        }
    }
    Err(Errno::BUSY)
}

/// Removes one empty group. Succeeds when it is gone already.
pub(super) fn remove_group<P: ?Sized + NixPath>(above: BorrowedFd<'_>, name: &P) -> Result<(), Errno> {
    match unlinkat(above, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(NixErrno::ENOENT | NixErrno::ENODEV) => Ok(()),
        Err(errno) => Err(from_nix(errno)),
    }
}
