//! Makes a leaf and a PID namespace with the wrapper's functions, and removes them.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use machineid_protocol::RunId;
use machineid_sys::{self as sys, Fork, ForkOptions, Namespaces};
use machineid_tree::{self as tree, NoCgroup};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, getegid, geteuid, waitpid};

use super::super::facts::{Cgroup, CgroupMount, Leaf, NoPidns, PidnsStep};

/// How often to try the removal: a group that has just become empty may be reported as busy for a moment.
const REMOVALS: usize = 50;

pub(super) fn cgroup() -> Cgroup {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let uid = geteuid().as_raw();
    let leaf = RunId::random()
        .map_err(|errno| NoCgroup::Failed("/dev/urandom".into(), errno))
        .and_then(tree::Leaf::make_below_own)
        .map(|leaf| try_leaf(&leaf, uid));
    let (own_above, owner) = match &leaf {
        Err(NoCgroup::NotPermitted(own)) => (writable_from(own), fs_owner(own)),
        Ok(_) | Err(_) => (None, None),
    };
    Cgroup { mount: mount(&mounts), leaf, own_above, owner }
}

fn try_leaf(leaf: &tree::Leaf, uid: u32) -> Leaf {
    let holds_against = leaf.holds_against(uid);
    let (entered, killed) = match captive(leaf) {
        Ok(captive) => (Ok(()), captive.end_by(|| leaf.kill())),
        Err(why) => (Err(why), leaf.kill().map_err(|errno| errno.to_string())),
    };
    Leaf {
        below: leaf.path().parent().unwrap_or(Path::new("/")).to_owned(),
        holds_against,
        entered,
        killed,
        can_freeze: leaf.can_freeze(),
        removed: remove(leaf),
    }
}

fn remove(leaf: &tree::Leaf) -> Result<(), Errno> {
    for _ in 0..REMOVALS {
        match leaf.remove() {
            Err(Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => return other,
        }
    }
    leaf.remove()
}

/// A child process that waits to be killed. It ends by itself when this program does.
struct Captive {
    pid: Pid,
    _tether: rustix::fd::OwnedFd,
}

fn captive(leaf: &tree::Leaf) -> Result<Captive, String> {
    let (wait, tether) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| errno.to_string())?;
    let options = ForkOptions { into_cgroup: Some(leaf.directory()), ..ForkOptions::default() };
    match sys::fork_with(options).map_err(|error| error.to_string())? {
        Fork::Child => {
            drop(tether);
            let _ = fs::File::from(wait).read(&mut [0]);
            sys::exit_now(0)
        }
        Fork::Parent(pid) => Ok(Captive { pid, _tether: tether }),
    }
}

impl Captive {
    /// Ends the process in this way, and reports whether SIGKILL ended it. The process has ended afterwards in any
    /// case.
    fn end_by(self, end: impl FnOnce() -> Result<(), Errno>) -> Result<(), String> {
        let ended = end();
        let pid = self.pid;
        // Without its tether the process ends by itself, if it has not been killed yet.
        drop(self);
        let status = waitpid(Some(pid), WaitOptions::empty()).map_err(|errno| errno.to_string())?;
        ended.map_err(|errno| errno.to_string())?;
        let signal = status.and_then(|(_, status)| status.terminating_signal());
        if signal == Some(Signal::KILL.as_raw()) { Ok(()) } else { Err("the process in it was not killed".to_owned()) }
    }
}

/// The first group, from this one upwards, that this user may put processes into.
fn writable_from(own: &Path) -> Option<PathBuf> {
    own.ancestors().map(|group| group.join("cgroup.procs")).take_while(|file| file.exists()).find(|file| {
        let flags = rustix::fs::AtFlags::EACCESS;
        rustix::fs::accessat(rustix::fs::CWD, file, rustix::fs::Access::WRITE_OK, flags).is_ok()
    })
}

fn fs_owner(path: &Path) -> Option<u32> {
    rustix::fs::stat(path).ok().map(|found| found.st_uid)
}

/// Where version 2 is mounted, and whether version 1 has controllers beside it.
fn mount(mountinfo: &str) -> CgroupMount {
    let mounts = |kind: &str| {
        mountinfo.lines().rev().find_map(|line| {
            let (place, source) = line.split_once(" - ")?;
            (source.split(' ').next()? == kind).then(|| PathBuf::from(place.split(' ').nth(4).unwrap_or_default()))
        })
    };
    match (mounts("cgroup2"), mounts("cgroup")) {
        (None, _) => CgroupMount::None,
        (Some(point), None) => CgroupMount::Unified(point),
        (Some(point), Some(_)) => CgroupMount::Hybrid(point),
    }
}

/// Makes a PID namespace as the wrapper would, mounts its `/proc` there, and lets it end.
pub(super) fn pidns(uid: u32) -> Result<(), NoPidns> {
    probe(uid).map_err(|(step, why)| NoPidns {
        step,
        why,
        most_user_namespaces: setting("user/max_user_namespaces"),
        unprivileged_clone: setting("kernel/unprivileged_userns_clone"),
        apparmor_restricts: setting("kernel/apparmor_restrict_unprivileged_userns"),
    })
}

fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

fn probe(uid: u32) -> Result<(), (PidnsStep, String)> {
    let made = |why: String| (PidnsStep::Make, why);
    let gid = getegid().as_raw();
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| made(errno.to_string()))?;
    let namespaces = Namespaces { pid: true, mount: true, user: uid != 0 };
    let options = ForkOptions { namespaces, ..ForkOptions::default() };
    match sys::fork_with(options).map_err(|error| made(error.to_string()))? {
        Fork::Child => {
            let _ = fs::File::from(tell).write_all(settle(namespaces, uid, gid).as_bytes());
            sys::exit_now(0)
        }
        Fork::Parent(child) => {
            drop(tell);
            let mut said = String::new();
            let read = fs::File::from(told).read_to_string(&mut said);
            waitpid(Some(child), WaitOptions::empty()).map_err(|errno| made(errno.to_string()))?;
            read.map_err(|error| made(error.to_string()))?;
            answer(&said)
        }
    }
}

/// Runs in the new namespace: does what the wrapper's init does, and returns the result as a word and a reason.
fn settle(namespaces: Namespaces, uid: u32, gid: u32) -> String {
    if namespaces.user
        && let Err(errno) = sys::map_own_ids(uid, gid)
    {
        return format!("ids {errno}");
    }
    if let Err(errno) = sys::mount_own_proc() {
        return format!("proc {errno}");
    }
    match sys::check_proc() {
        Ok(()) => "done".to_owned(),
        Err(why) => format!("proc {why}"),
    }
}

fn answer(said: &str) -> Result<(), (PidnsStep, String)> {
    match said.split_once(' ') {
        Some(("ids", why)) => Err((PidnsStep::MapIds, why.to_owned())),
        Some(("proc", why)) => Err((PidnsStep::MountProc, why.to_owned())),
        None if said == "done" => Ok(()),
        Some(_) | None => Err((PidnsStep::Make, "its first process ended without a report".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_told_from_version_1_and_from_both() {
        let two = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let one = "38 31 0:35 / /sys/fs/cgroup/blkio rw shared:3 - cgroup cgroup rw,blkio\n";
        assert_eq!(mount(one), CgroupMount::None);
        assert_eq!(mount(two), CgroupMount::Unified("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount(&[one, two].concat()), CgroupMount::Hybrid("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn a_probe_that_dies_without_a_word_is_no_success() {
        assert!(answer("").is_err());
        assert!(answer("don").is_err());
        assert_eq!(answer("ids no").unwrap_err().0, PidnsStep::MapIds);
        assert_eq!(answer("done"), Ok(()));
    }
}
