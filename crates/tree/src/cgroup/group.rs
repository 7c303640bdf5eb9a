//! The control group that a process is in, and its directories.

use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use rustix::io::Errno;

use super::super::kernel_file;
use super::super::pid::Pid;
use super::NoCgroup;
use super::leaf::open_cgroup;
use super::listing;
use super::place::{self, Membership};

/// The path of the control group of the process with this number, as seen from the caller's cgroup namespace: `/` is its root.
pub fn group_path(pid: Pid) -> Result<Vec<u8>, NoCgroup> {
    Group::of(pid).map(|group| group.path)
}

/// The directories that the control group of the process with this number has where cgroup2 is usually mounted; empty
/// when that cannot be told. Reads one file and no directory.
#[must_use]
pub fn usual_groups(pid: Pid) -> Vec<PathBuf> {
    let group = Group::of(pid);
    group
        .map_or_else(|_| Vec::new(), |group| place::usual().iter().filter_map(|at| at.directory(&group.path)).collect())
}

/// The group that a process is in.
pub(super) struct Group {
    process: Pid,
    /// The path as seen from the caller's cgroup namespace.
    pub(super) path: Vec<u8>,
}

impl Group {
    pub(super) fn of(process: Pid) -> Result<Self, NoCgroup> {
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

    /// The group's directory at a usual place, if it is there: a directory with the group's path that lists the
    /// process. The list of mounts is not read: the kernel writes it anew for each reader, which takes milliseconds
    /// where containers have made a thousand.
    pub(super) fn usual_place(&self) -> Option<PathBuf> {
        let own = |place: &PathBuf| {
            let procs = open_cgroup(place)
                .and_then(|directory| kernel_file::open_at(&directory, "cgroup.procs", OFlag::O_RDONLY));
            procs.and_then(|procs| listing::is_among_the_first(procs.as_fd(), self.process)).unwrap_or(false)
        };
        place::usual().iter().filter_map(|mount| mount.directory(&self.path)).find(own)
    }

    /// The group's possible directories by the list of mounts, the likeliest first. Never empty.
    pub(super) fn places(&self) -> Result<Vec<PathBuf>, NoCgroup> {
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
