//! One run's control group.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use machineid_protocol::{HoldsAgainst, RunId};
use machineid_sys as sys;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs, statfs};
use nix::unistd::{Gid, fchown};
use rustix::io::Errno;

use super::super::kernel_file;
use super::super::pid::Pid;
use super::NoCgroup;
use super::group::Group;
use super::listing;
use super::place::{self, Membership};

/// The mode of a leaf's directory: every user may list it, whatever the umask of its maker. (The owners of the files in
/// it decide about changes.)
const MODE: Mode = Mode::from_bits_truncate(0o755);

/// Write permission on a group's `cgroup.procs` for its group or for others.
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// The control group of one run, `machineid-<run id>`. Groups that the agent made below it count as part of it.
///
/// Its files are opened in advance, as far as permitted: from a deny to the last SIGKILL no descriptor is needed, and a
/// path that comes to name something else (a container's mounts) does no harm. Dropping a leaf removes nothing: a
/// daemon may restart.
#[derive(Debug)]
pub struct Leaf {
    run: RunId,
    path: PathBuf,
    directory: OwnedFd,
    /// `cgroup.procs`; writable if that is permitted.
    processes: OwnedFd,
    events: OwnedFd,
    kill: Option<OwnedFd>,
    freeze: Option<OwnedFd>,
}

/// How many groups an agent may make below its leaf: enough for a container runtime, or for wrappers inside, and few
/// enough for the kernel to end them all in a moment. An agent whose own user has made the leaf can raise the limit. So
/// it only stops mistakes, and a stop does not rely on it: it does not go through all the groups.
const MOST_BELOW: &[u8] = b"4096";

/// How many groups below a leaf are looked at for an id.
const MOST_LOOKED_AT: usize = 256;

/// What the kernel says about a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafState {
    /// Whether a process is inside; zombies do not count.
    pub populated: bool,
    /// Whether the group is frozen, with all processes inside.
    pub frozen: bool,
}

impl LeafState {
    /// The state of a leaf that was removed.
    const REMOVED: Self = Self { populated: false, frozen: false };
}

impl Leaf {
    /// Makes a leaf below the calling process's own group. Fails where that is not possible, and when the leaf exists.
    pub fn make_below_own(run: RunId) -> Result<Self, NoCgroup> {
        make(Pid::own(), run)
    }

    /// Makes a leaf below the group of the process with this number. Fails where that is not possible, and when the
    /// leaf exists.
    pub fn make_below(pid: Pid, run: RunId) -> Result<Self, NoCgroup> {
        make(pid, run)
    }

    /// Returns the group that the process with this number is in, if its name is that of this run's leaf. Only the name
    /// is checked: the caller must judge which other processes are inside, and which user has made it.
    pub fn around(pid: Pid, run: RunId) -> Result<Option<Self>, NoCgroup> {
        let group = Group::of(pid)?;
        if !is_named_after(Path::new(OsStr::from_bytes(&group.path)), run) {
            return Ok(None);
        }
        let place = match group.usual_place() {
            Some(place) => Some(place),
            None => group.places()?.into_iter().find(|path| is_named_after(path, run)),
        };
        place.map_or(Ok(None), |place| Self::open(place, run))
    }

    /// Opens the leaf recorded at this path. `Ok(None)` when it has been removed. Fails when the path names no leaf of
    /// this run.
    pub fn reopen(path: &Path, run: RunId) -> Result<Option<Self>, NoCgroup> {
        if !path.is_absolute() || !is_named_after(path, run) {
            return Err(NoCgroup::Failed(path.to_owned(), Errno::INVAL));
        }
        Self::open(path.to_owned(), run)
    }

    fn open(path: PathBuf, run: RunId) -> Result<Option<Self>, NoCgroup> {
        let opened = open_cgroup(&path).and_then(|directory| Self::with_directory(path.clone(), directory, run));
        match opened {
            Ok(leaf) => Ok(Some(leaf)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(NoCgroup::Failed(path, errno)),
        }
    }

    fn with_directory(path: PathBuf, directory: OwnedFd, run: RunId) -> Result<Self, Errno> {
        let open = |name: &str, flags| kernel_file::open_at(&directory, name, flags);
        let if_permitted = |name: &str| match open(name, OFlag::O_WRONLY) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(None),
            Err(errno) => Err(errno),
        };
        let processes = match open("cgroup.procs", OFlag::O_RDWR) {
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => open("cgroup.procs", OFlag::O_RDONLY),
            other => other,
        }?;
        let events = open("cgroup.events", OFlag::O_RDONLY)?;
        let (kill, freeze) = (if_permitted("cgroup.kill")?, if_permitted("cgroup.freeze")?);
        Ok(Self { run, path, directory, processes, events, kill, freeze })
    }

    /// The run whose leaf this is.
    #[must_use]
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// The leaf's directory, as this process's mount namespace shows it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the id of the leaf's group, or of one below it. At most 256 of those are looked at.
    #[must_use]
    pub fn has_group(&self, id: u64) -> bool {
        let Ok(about) = rustix::fs::fstat(&self.directory) else { return false };
        if about.st_ino == id {
            return true;
        }
        let (mut left, mut looked_at) = (vec![self.path.clone()], 0);
        while let Some(directory) = left.pop().filter(|_| looked_at < MOST_LOOKED_AT) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let Some(about) = entry.metadata().ok().filter(std::fs::Metadata::is_dir) else { continue };
                looked_at += 1;
                if about.ino() == id {
                    return true;
                }
                left.push(entry.path());
            }
        }
        false
    }

    /// The leaf's directory, to create a process in it ([`machineid_sys::ForkOptions::into_cgroup`]).
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Moves a process into the leaf. May take a few milliseconds. Fails with EBADF when the file is not writable here,
    /// ESRCH when the process is gone, EACCES or EPERM when it may not be moved.
    pub fn enter(&self, pid: Pid) -> Result<(), Errno> {
        kernel_file::write(&self.processes, pid.to_string().as_bytes())
    }

    /// Moves the leaf's processes back to the group above it, for a run that does not start after all.
    pub fn release(&self) -> Result<(), Errno> {
        self.processes()?.into_iter().try_for_each(|pid| self.release_one(pid))
    }

    /// Moves one process to the group above the leaf; one that has ended is left out.
    pub fn release_one(&self, pid: Pid) -> Result<(), Errno> {
        let above = kernel_file::open_at(&self.directory, "../cgroup.procs", OFlag::O_WRONLY)?;
        match kernel_file::write(&above, pid.to_string().as_bytes()) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The processes in the leaf and in the groups below it, sorted by number, without zombies. Processes in PID
    /// namespaces that the caller's does not contain cannot be seen.
    ///
    /// Fails when a group below cannot be read, most likely because no descriptor is available.
    pub fn processes(&self) -> Result<Vec<Pid>, Errno> {
        self.processes_of(usize::MAX)
    }

    /// The same, but reads at most this many groups below, in any order: an agent may have made any number.
    /// [`Leaf::state`] counts the processes in all of them, and [`Leaf::kill`] ends them.
    pub(crate) fn processes_of(&self, mut groups: usize) -> Result<Vec<Pid>, Errno> {
        let mut found = Vec::new();
        match self.list(&mut found, &mut groups) {
            Ok(()) => {}
            Err(Errno::NODEV | Errno::NOENT) => found.clear(),
            Err(errno) => return Err(errno),
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn list(&self, found: &mut Vec<Pid>, groups: &mut usize) -> Result<(), Errno> {
        listing::listed(self.processes.as_fd(), found)?;
        if listing::has_groups(self.directory.as_fd())? {
            listing::listed_below(self.directory(), found, groups)
        } else {
            Ok(())
        }
    }

    /// The state that the kernel reports. A leaf that was removed is empty.
    pub fn state(&self) -> Result<LeafState, Errno> {
        match kernel_file::read_from_start(self.events.as_fd()) {
            Ok(text) => {
                let (populated, frozen) = place::events(&text).ok_or(Errno::ILSEQ)?;
                Ok(LeafState { populated, frozen })
            }
            Err(Errno::NODEV) => Ok(LeafState::REMOVED),
            Err(errno) => Err(errno),
        }
    }

    /// Ends every process inside with SIGKILL, including those being forked and frozen ones.
    ///
    /// Fails with EACCES when this user may not do that, and with EDEADLK when the calling process is inside, moved
    /// there by an agent: then the processes must be killed one by one.
    pub fn kill(&self) -> Result<(), Errno> {
        self.is_not_ours()?;
        set(self.kill.as_ref(), b"1")
    }

    /// Whether [`Leaf::kill`] is permitted.
    #[must_use]
    pub fn can_kill(&self) -> bool {
        self.kill.is_some()
    }

    /// Freezes every process inside; the kernel reports by [`Leaf::events`] when all are frozen. Fails with EACCES when
    /// this user may not do that, and with EDEADLK when the calling process is inside.
    pub fn freeze(&self) -> Result<(), Errno> {
        self.is_not_ours()?;
        set(self.freeze.as_ref(), b"1")
    }

    /// Fails when the calling process is in the leaf or in a group below. When that cannot be found out, because no
    /// descriptor is available, it succeeds: that is no reason to spare an agent.
    fn is_not_ours(&self) -> Result<(), Errno> {
        let Ok(text) = kernel_file::read("/proc/self/cgroup") else { return Ok(()) };
        let Some(Membership::In(own)) = place::membership(&text) else { return Ok(()) };
        let name = self.path.file_name().map(OsStr::as_bytes);
        let inside = own.split(|&byte| byte == b'/').any(|part| Some(part) == name);
        if inside { Err(Errno::DEADLK) } else { Ok(()) }
    }

    /// Undoes [`Leaf::freeze`]. Fails with EACCES when this user may not do that.
    pub fn thaw(&self) -> Result<(), Errno> {
        set(self.freeze.as_ref(), b"0")
    }

    /// Whether [`Leaf::freeze`] and [`Leaf::thaw`] are permitted.
    #[must_use]
    pub fn can_freeze(&self) -> bool {
        self.freeze.is_some()
    }

    /// Has POLLPRI when the state has changed since any caller last called [`Leaf::state`].
    #[must_use]
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Removes the leaf with the groups below it. Succeeds when it is gone already. Fails with EBUSY while a process is
    /// inside, EACCES or EPERM when this user may not do that.
    pub fn remove(&self) -> Result<(), Errno> {
        match self.remove_alone() {
            // The kernel returns this for groups below as well as for processes.
            Err(Errno::BUSY) => {}
            other => return other,
        }
        listing::remove_below(self.directory())?;
        listing::remove_group(AT_FDCWD, &self.path)
    }

    /// Removes the leaf if there are no groups below it, which takes one call. Fails with EBUSY if there are.
    pub fn remove_alone(&self) -> Result<(), Errno> {
        listing::remove_group(AT_FDCWD, &self.path)
    }

    /// Removes the leaf of this run, given its directory, with the groups below it: for a process that was handed the
    /// descriptor and need not see the same mounts. Succeeds when the leaf is gone already. Fails with EINVAL when the
    /// descriptor is not that of a leaf of this run, EBUSY while a process is inside.
    pub fn remove_held(directory: &OwnedFd, run: RunId) -> Result<(), Errno> {
        let unless_gone = |result| match result {
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            other => other.map(Some),
        };
        check_cgroup(directory)?;
        let name = leaf_name(run);
        let Some(above) = unless_gone(listing::open_directory(directory.as_fd(), ".."))? else { return Ok(()) };
        // Above the mounted group is another file system.
        check_cgroup(&above)?;
        let Some(found) = unless_gone(listing::open_directory(above.as_fd(), name.as_str()))? else {
            return is_removed(directory);
        };
        let same = |fd: &OwnedFd| fstat(fd).map(|about| (about.st_dev, about.st_ino)).map_err(sys::from_nix);
        if same(&found)? != same(directory)? {
            return Err(Errno::INVAL);
        }
        listing::remove_below(found.as_fd())?;
        listing::remove_group(above.as_fd(), name.as_str())
    }

    /// Lets the members of this group kill and freeze the leaf, now and when they open it later. The owner keeps that right.
    /// Fails with EPERM when this process may not change the files.
    pub fn share_with(&self, gid: u32) -> Result<(), Errno> {
        for name in ["cgroup.kill", "cgroup.freeze"] {
            let file = match kernel_file::open_at(&self.directory, name, OFlag::O_WRONLY | OFlag::O_NOFOLLOW) {
                Ok(file) => file,
                // Kernels before 5.14 have no cgroup.kill.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            fchown(&file, None, Some(Gid::from_raw(gid))).map_err(sys::from_nix)?;
            let mode = Mode::from_bits_truncate(fstat(&file).map_err(sys::from_nix)?.st_mode);
            fchmod(&file, mode | Mode::S_IWGRP).map_err(sys::from_nix)?;
        }
        Ok(())
    }

    /// Which agents the leaf contains. A process can leave it only to a group where its user may write the
    /// `cgroup.procs` of the nearest group above both places; so no group from here to the root may be writable by the
    /// agent's user. A group that cannot be looked at counts as writable, and nothing contains root.
    #[must_use]
    pub fn holds_against(&self, agent_uid: u32) -> HoldsAgainst {
        if agent_uid == 0 {
            return HoldsAgainst::Bugs;
        }
        for directory in self.path.ancestors() {
            match statfs(directory) {
                Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => {}
                Ok(_) if directory != self.path => return HoldsAgainst::Hostile,
                Ok(_) | Err(_) => return HoldsAgainst::Bugs,
            }
            let Ok(file) = directory.join("cgroup.procs").metadata() else { return HoldsAgainst::Bugs };
            if file.uid() == agent_uid || file.mode() & GROUP_OR_OTHERS_WRITE != 0 {
                return HoldsAgainst::Bugs;
            }
        }
        HoldsAgainst::Hostile
    }
}

fn set(file: Option<&OwnedFd>, value: &[u8]) -> Result<(), Errno> {
    match kernel_file::write(file.ok_or(Errno::ACCESS)?, value) {
        // A leaf that was removed has no processes.
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn leaf_name(run: RunId) -> String {
    format!("machineid-{run}")
}

fn is_named_after(path: &Path, run: RunId) -> bool {
    path.file_name().is_some_and(|name| name == leaf_name(run).as_str())
}

/// Opens a directory of cgroup2. Fails with ENOENT when the path shows another file system: a later mount may cover it.
pub(super) fn open_cgroup(path: &Path) -> Result<OwnedFd, Errno> {
    let directory = listing::open_directory(AT_FDCWD, path)?;
    check_cgroup(&directory).map_err(|errno| if errno == Errno::INVAL { Errno::NOENT } else { errno })?;
    Ok(directory)
}

/// Fails with EINVAL when the descriptor is not one of cgroup2.
fn check_cgroup(descriptor: &OwnedFd) -> Result<(), Errno> {
    let found = fstatfs(descriptor).map_err(sys::from_nix)?;
    if found.filesystem_type() == CGROUP2_SUPER_MAGIC { Ok(()) } else { Err(Errno::INVAL) }
}

/// Succeeds for the directory of a group that was removed: it has no entry. Fails with EINVAL for one that exists, whose name is
/// then another than the leaf's.
fn is_removed(directory: &OwnedFd) -> Result<(), Errno> {
    match kernel_file::open_at(directory, "cgroup.procs", OFlag::O_RDONLY) {
        Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno),
        Ok(_) => Err(Errno::INVAL),
    }
}

fn make(process: Pid, run: RunId) -> Result<Leaf, NoCgroup> {
    let group = Group::of(process)?;
    let mut first_failure = None;
    let usual = group.usual_place();
    let mut make_in = |above: &PathBuf| match make_in(above, run) {
        Ok(leaf) => Some(leaf),
        // If there are several mounts, another one may be writable.
        Err(failure) => {
            first_failure.get_or_insert(failure);
            None
        }
    };
    let made = match usual.as_ref().and_then(&mut make_in) {
        Some(leaf) => Some(leaf),
        None => group.places()?.iter().filter(|&place| usual.as_ref() != Some(place)).find_map(make_in),
    };
    made.ok_or_else(|| first_failure.unwrap_or(NoCgroup::Outside))
}

fn make_in(above: &Path, run: RunId) -> Result<Leaf, NoCgroup> {
    let failed = |errno| match errno {
        Errno::ACCESS | Errno::PERM => NoCgroup::NotPermitted(above.to_owned()),
        Errno::ROFS => NoCgroup::ReadOnly(above.to_owned()),
        _ => NoCgroup::Failed(above.to_owned(), errno),
    };
    let name = leaf_name(run);
    let outer = open_cgroup(above).map_err(failed)?;
    mkdirat(&outer, name.as_str(), MODE).map_err(sys::from_nix).map_err(|errno| match errno {
        Errno::EXIST => NoCgroup::Exists(above.join(&name)),
        _ => failed(errno),
    })?;
    let made = listing::open_directory(outer.as_fd(), name.as_str()).map_err(failed).and_then(|directory| {
        fchmod(&directory, MODE).map_err(sys::from_nix).map_err(failed)?;
        let kind = kernel_file::open_at(&directory, "cgroup.type", OFlag::O_RDONLY)
            .and_then(|file| kernel_file::read_from_start(file.as_fd()))
            .map_err(failed)?;
        if kind != b"domain\n" {
            return Err(NoCgroup::Threaded(above.to_owned()));
        }
        // A limit that cannot be set is missing; nothing relies on it alone.
        let _ = kernel_file::open_at(&directory, "cgroup.max.descendants", OFlag::O_WRONLY)
            .and_then(|file| kernel_file::write(&file, MOST_BELOW));
        Leaf::with_directory(above.join(&name), directory, run).map_err(failed)
    });
    if made.is_err() {
        let _ = listing::remove_group(outer.as_fd(), name.as_str());
    }
    made
}
