//! One run's control group.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use machineid_protocol::{HoldsAgainst, RunId};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::super::kernel_file;
use super::super::pid::Pid;
use super::NoCgroup;
use super::listing;
use super::place::{self, Membership};

/// The number by which `statfs` tells cgroup2 from everything else.
const CGROUP2: i64 = 0x6367_7270;

/// A leaf's directory: everybody may look into it, whatever umask its maker has. (Who may change what is said by the
/// owners of the files in it.)
const MODE: Mode = Mode::from_raw_mode(0o755);

/// Who may write a group's `cgroup.procs` besides its owner.
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// The control group of one run, `machineid-<run id>`. Groups that the agent made below it count as part of it.
///
/// Its files are opened in advance, those that may be: from a deny to the last SIGKILL no descriptor is needed, and the
/// path may change its meaning (a container's mounts) without harm. Dropping it removes nothing: a daemon may restart.
#[derive(Debug)]
pub struct Leaf {
    path: PathBuf,
    directory: OwnedFd,
    /// `cgroup.procs`; writable if that may be.
    processes: OwnedFd,
    events: OwnedFd,
    kill: Option<OwnedFd>,
    freeze: Option<OwnedFd>,
}

/// How many groups an agent may make below its leaf: plenty for a container runtime, or for wrappers inside, and few enough
/// that the kernel ends them all in a moment. Who may write to the leaf (an agent whose own user has made it) can raise it,
/// so it stops mistakes; that a stop does not go through all of them is what it relies on.
const MOST_BELOW: &[u8] = b"4096";

/// What the kernel says about a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafState {
    /// A process is inside, zombies not counted.
    pub populated: bool,
    /// It is frozen, with all that is inside.
    pub frozen: bool,
}

impl LeafState {
    /// What can be said of one that was removed.
    const REMOVED: Self = Self { populated: false, frozen: false };
}

impl Leaf {
    /// Makes one below the calling process's own group. Fails where that is not to be had, and when there is one.
    pub fn make_below_own(run: RunId) -> Result<Self, NoCgroup> {
        make(Pid::own(), run)
    }

    /// Makes one below the group of the process with this number. Fails where that is not to be had, and when there is one.
    pub fn make_below(pid: Pid, run: RunId) -> Result<Self, NoCgroup> {
        make(pid, run)
    }

    /// The group that the process with this number is in, when it is the leaf of this run by its name. By its name only:
    /// who else is in it, and who made it, is for the caller to judge.
    pub fn around(pid: Pid, run: RunId) -> Result<Option<Self>, NoCgroup> {
        let group = Group::of(pid)?;
        if !is_named_after(Path::new(OsStr::from_bytes(&group.path)), run) {
            return Ok(None);
        }
        let place = match group.usual_place() {
            Some(place) => Some(place),
            None => group.places()?.into_iter().find(|path| is_named_after(path, run)),
        };
        place.map_or(Ok(None), Self::open)
    }

    /// The leaf recorded at this path. `Ok(None)` when it has been removed. Fails when the path names no leaf of this run.
    pub fn reopen(path: &Path, run: RunId) -> Result<Option<Self>, NoCgroup> {
        if !path.is_absolute() || !is_named_after(path, run) {
            return Err(NoCgroup::Failed(path.to_owned(), Errno::INVAL));
        }
        Self::open(path.to_owned())
    }

    fn open(path: PathBuf) -> Result<Option<Self>, NoCgroup> {
        let opened = open_cgroup(&path).and_then(|directory| Self::hold(path.clone(), directory));
        match opened {
            Ok(leaf) => Ok(Some(leaf)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(NoCgroup::Failed(path, errno)),
        }
    }

    fn hold(path: PathBuf, directory: OwnedFd) -> Result<Self, Errno> {
        let open = |name: &str, flags| rustix::fs::openat(&directory, name, flags | OFlags::CLOEXEC, Mode::empty());
        let if_permitted = |name: &str| match open(name, OFlags::WRONLY) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(None),
            Err(errno) => Err(errno),
        };
        let processes = match open("cgroup.procs", OFlags::RDWR) {
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => open("cgroup.procs", OFlags::RDONLY),
            other => other,
        }?;
        let events = open("cgroup.events", OFlags::RDONLY)?;
        let (kill, freeze) = (if_permitted("cgroup.kill")?, if_permitted("cgroup.freeze")?);
        Ok(Self { path, directory, processes, events, kill, freeze })
    }

    /// Its directory, as this process's mount namespace has it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, for a process to be made in it ([`machineid_sys::ForkOptions::into_cgroup`]).
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Moves a process into it. May take a few milliseconds. Fails with EBADF when the file is not writable here, ESRCH
    /// when the process is gone, EACCES or EPERM when it may not be moved.
    pub fn enter(&self, pid: Pid) -> Result<(), Errno> {
        rustix::io::write(&self.processes, pid.to_string().as_bytes()).map(drop)
    }

    /// Its processes and those of the groups below it, in the order of their numbers, zombies left out. Those of other PID
    /// namespaces than the caller's and the ones below are not to be seen.
    ///
    /// Fails when a group below cannot be looked into, for want of a descriptor above all.
    pub fn processes(&self) -> Result<Vec<Pid>, Errno> {
        self.processes_of(usize::MAX)
    }

    /// The same, but no more groups below are looked into than this, whichever come first: an agent may have made any
    /// number. [`Leaf::state`] knows of the processes in all of them, and [`Leaf::kill`] ends those.
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

    /// What the kernel says about it; nobody is in one that was removed.
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

    /// Ends every process in it with SIGKILL, those that are being forked too. Frozen ones die as well.
    ///
    /// Fails with EACCES when this user may not, and with EDEADLK when the calling process is inside, moved there by an
    /// agent: then the processes are to be killed one by one.
    pub fn kill(&self) -> Result<(), Errno> {
        self.is_not_ours()?;
        set(self.kill.as_ref(), b"1")
    }

    /// Whether [`Leaf::kill`] is permitted.
    #[must_use]
    pub fn can_kill(&self) -> bool {
        self.kill.is_some()
    }

    /// Stops the time of every process in it; the kernel says by [`Leaf::events`] when all stand. Fails with EACCES when
    /// this user may not, and with EDEADLK when the calling process is inside.
    pub fn freeze(&self) -> Result<(), Errno> {
        self.is_not_ours()?;
        set(self.freeze.as_ref(), b"1")
    }

    /// Fails when the calling process is in it or in a group below. What cannot be found out, for want of a descriptor, is
    /// no reason to spare an agent.
    fn is_not_ours(&self) -> Result<(), Errno> {
        let Ok(text) = kernel_file::read("/proc/self/cgroup") else { return Ok(()) };
        let Some(Membership::In(own)) = place::membership(&text) else { return Ok(()) };
        let name = self.path.file_name().map(OsStr::as_bytes);
        let inside = own.split(|&byte| byte == b'/').any(|part| Some(part) == name);
        if inside { Err(Errno::DEADLK) } else { Ok(()) }
    }

    /// Undoes [`Leaf::freeze`]. Fails with EACCES when this user may not.
    pub fn thaw(&self) -> Result<(), Errno> {
        set(self.freeze.as_ref(), b"0")
    }

    /// Whether [`Leaf::freeze`] and [`Leaf::thaw`] are permitted.
    #[must_use]
    pub fn can_freeze(&self) -> bool {
        self.freeze.is_some()
    }

    /// Has POLLPRI when the state has changed since [`Leaf::state`] was last called, whoever called it.
    #[must_use]
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Removes it with the groups below it. One that is gone already is as good. Fails with EBUSY while a process is in it,
    /// EACCES or EPERM when this user may not.
    pub fn remove(&self) -> Result<(), Errno> {
        match self.remove_alone() {
            // So the kernel says of groups below as well as of processes.
            Err(Errno::BUSY) => {}
            other => return other,
        }
        listing::remove_below(self.directory())?;
        listing::remove_group(CWD, &self.path)
    }

    /// The same where there are no groups below it, which takes one call. Fails with EBUSY where there are.
    pub fn remove_alone(&self) -> Result<(), Errno> {
        listing::remove_group(CWD, &self.path)
    }

    /// Against whom it holds a tree together. A process can leave only to where its user may write the `cgroup.procs` of
    /// the nearest group above both places; so no group from here to the root may be the agent's. What cannot be looked at
    /// counts as the agent's, and nothing holds root.
    #[must_use]
    pub fn holds_against(&self, agent_uid: u32) -> HoldsAgainst {
        if agent_uid == 0 {
            return HoldsAgainst::Bugs;
        }
        for directory in self.path.ancestors() {
            match rustix::fs::statfs(directory) {
                Ok(found) if is_cgroup2(&found) => {}
                Ok(_) if directory != self.path => return HoldsAgainst::Hostile,
                Ok(_) | Err(_) => return HoldsAgainst::Bugs,
            }
            let Ok(file) = rustix::fs::stat(directory.join("cgroup.procs")) else { return HoldsAgainst::Bugs };
            if file.st_uid == agent_uid || file.st_mode & GROUP_OR_OTHERS_WRITE != 0 {
                return HoldsAgainst::Bugs;
            }
        }
        HoldsAgainst::Hostile
    }
}

fn set(file: Option<&OwnedFd>, value: &[u8]) -> Result<(), Errno> {
    match rustix::io::write(file.ok_or(Errno::ACCESS)?, value) {
        // There is nobody in one that was removed.
        Ok(_) | Err(Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn leaf_name(run: RunId) -> String {
    format!("machineid-{run}")
}

fn is_named_after(path: &Path, run: RunId) -> bool {
    path.file_name().is_some_and(|name| name == leaf_name(run).as_str())
}

fn is_cgroup2(found: &rustix::fs::StatFs) -> bool {
    // Its type differs between platforms.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
    let kind = found.f_type as i64;
    kind == CGROUP2
}

/// Fails with ENOENT when something else is there by now: a mount may be covered by a later one.
fn open_cgroup(path: &Path) -> Result<OwnedFd, Errno> {
    let directory = listing::open_directory(CWD, path)?;
    if is_cgroup2(&rustix::fs::fstatfs(&directory)?) { Ok(directory) } else { Err(Errno::NOENT) }
}

/// The directories that the control group of the process with this number has where cgroup2 is mounted on most machines;
/// none when that cannot be told. One file is read, and no directory is looked at.
#[must_use]
pub fn usual_groups(pid: Pid) -> Vec<PathBuf> {
    let group = Group::of(pid);
    group
        .map_or_else(|_| Vec::new(), |group| place::usual().iter().filter_map(|at| at.directory(&group.path)).collect())
}

/// The group that a process is in.
struct Group {
    process: Pid,
    /// As seen from the caller's cgroup namespace.
    path: Vec<u8>,
}

impl Group {
    fn of(process: Pid) -> Result<Self, NoCgroup> {
        let file = format!("/proc/{process}/cgroup");
        let text = kernel_file::read(&file).map_err(|errno| match errno {
            Errno::NOENT | Errno::SRCH => NoCgroup::Gone,
            errno => NoCgroup::Failed(file.into(), errno),
        })?;
        match place::membership(&text) {
            Some(Membership::In(path)) => Ok(Self { process, path: path.to_vec() }),
            Some(Membership::Removed) => Err(NoCgroup::Gone),
            None => Err(NoCgroup::NotMounted),
        }
    }

    /// Where it is on most machines, if it is there: a group that has its path and in which the process is. Nothing else
    /// is asked: the kernel writes the list of all mounts anew for each reader, which takes milliseconds where containers
    /// have made a thousand.
    fn usual_place(&self) -> Option<PathBuf> {
        let own = |place: &PathBuf| {
            let procs = open_cgroup(place).and_then(|directory| {
                rustix::fs::openat(&directory, "cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            });
            procs.and_then(|procs| listing::is_among_the_first(procs.as_fd(), self.process)).unwrap_or(false)
        };
        place::usual().iter().filter_map(|mount| mount.directory(&self.path)).find(own)
    }

    /// Where it may be found by the list of mounts, the likeliest place first. Never empty.
    fn places(&self) -> Result<Vec<PathBuf>, NoCgroup> {
        let file = "/proc/self/mountinfo";
        let text = kernel_file::read(file).map_err(|errno| NoCgroup::Failed(file.into(), errno))?;
        let mounts = place::mounts(&text);
        if mounts.is_empty() {
            return Err(NoCgroup::NotMounted);
        }
        let places: Vec<PathBuf> = mounts.iter().filter_map(|mount| mount.directory(&self.path)).collect();
        if places.is_empty() { Err(NoCgroup::Outside) } else { Ok(places) }
    }
}

fn make(process: Pid, run: RunId) -> Result<Leaf, NoCgroup> {
    let group = Group::of(process)?;
    let mut first_failure = None;
    let usual = group.usual_place();
    let mut make_in = |above: &PathBuf| match make_in(above, run) {
        Ok(leaf) => Some(leaf),
        // Of several mounts one may be writable.
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
    rustix::fs::mkdirat(&outer, name.as_str(), MODE).map_err(|errno| match errno {
        Errno::EXIST => NoCgroup::Exists(above.join(&name)),
        _ => failed(errno),
    })?;
    let made = listing::open_directory(outer.as_fd(), name.as_str()).map_err(failed).and_then(|directory| {
        rustix::fs::fchmod(&directory, MODE).map_err(failed)?;
        let kind = rustix::fs::openat(&directory, "cgroup.type", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| kernel_file::read_from_start(file.as_fd()))
            .map_err(failed)?;
        if kind != b"domain\n" {
            return Err(NoCgroup::Threaded(above.to_owned()));
        }
        // A bound that cannot be set is one less; nothing relies on it alone.
        let _ =
            rustix::fs::openat(&directory, "cgroup.max.descendants", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .and_then(|file| rustix::io::write(&file, MOST_BELOW));
        Leaf::hold(above.join(&name), directory).map_err(failed)
    });
    if made.is_err() {
        let _ = listing::remove_group(outer.as_fd(), name.as_str());
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_place_is_one_where_the_list_of_mounts_has_it_too() {
        let Ok(group) = Group::of(Pid::own()) else { return };
        if let Some(place) = group.usual_place() {
            assert!(group.places().unwrap().contains(&place), "{place:?}");
        }
    }

    #[test]
    fn a_group_of_that_path_in_which_the_process_is_not_is_not_taken() {
        let Ok(own) = Group::of(Pid::own()) else { return };
        let stranger = Group { process: Pid::new(i32::MAX).unwrap(), ..own };
        assert_eq!(stranger.usual_place(), None);
        let outside = Group { process: Pid::own(), path: b"/../x".to_vec() };
        assert_eq!(outside.usual_place(), None);
    }
}
