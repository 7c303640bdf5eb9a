//! What the helper does for one request. The caller is believed in nothing: it may be a daemon that another program controls.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use machineid_protocol::RunId;
use machineid_tree::{Leaf, NoCgroup, Pid, Process, group_path};
use rustix::io::Errno;

use crate::message::LeafRefusal;

/// A process in the control group of its run.
pub(crate) struct Contained {
    pub(crate) pid: Pid,
    pub(crate) leaf: PathBuf,
}

/// Puts the process of this pidfd into a leaf below its own control group, or finds it in one, and lets members of the group
/// `gid` kill and freeze the leaf.
///
/// The process stays below its own group, whose limits then still apply. Not the first process, nor one in the root group,
/// where a kernel's and a host's own processes are.
pub(crate) fn contain(pidfd: OwnedFd, run: RunId, gid: u32) -> Result<Contained, LeafRefusal> {
    let pid = process_of(&pidfd)?;
    if pid.as_raw() == 1 || pid == Pid::own() {
        return Err(LeafRefusal::new(Errno::PERM, format!("process {pid} is not an agent's")));
    }
    // From here on the number is this process's for as long as the process has not exited.
    let process = Process::from_pidfd(pid, pidfd).map_err(|errno| failed("look at the process", errno))?;
    let process = process.ok_or_else(gone)?;
    if group_path(pid).map_err(|why| no_group(&why))? == b"/" {
        return Err(LeafRefusal::new(Errno::PERM, format!("process {pid} is in the root control group")));
    }
    let leaf = match Leaf::around(pid, run).map_err(|why| no_group(&why))? {
        Some(leaf) => {
            leaf.share_with(gid).map_err(|errno| failed("share the control group", errno))?;
            leaf
        }
        None => make(&process, run, gid)?,
    };
    Ok(Contained { pid, leaf: leaf.path().to_owned() })
}

fn make(process: &Process, run: RunId, gid: u32) -> Result<Leaf, LeafRefusal> {
    let pid = process.identity().pid;
    let leaf = Leaf::make_below(pid, run).map_err(|why| no_group(&why))?;
    let entered = leaf
        .share_with(gid)
        .and_then(|()| if process.has_exited()? { Err(Errno::SRCH) } else { leaf.enter(pid) })
        .and_then(|()| if process.has_exited()? { Err(Errno::SRCH) } else { Ok(()) });
    match entered {
        Ok(()) => Ok(leaf),
        Err(errno) => {
            // Only an empty leaf can be removed.
            let _ = leaf.remove();
            Err(if errno == Errno::SRCH { gone() } else { failed("move the process into its control group", errno) })
        }
    }
}

/// Removes the leaf of this run, given its directory, with the groups below it.
pub(crate) fn remove(directory: &OwnedFd, run: RunId) -> Result<(), LeafRefusal> {
    Leaf::remove_held(directory, run).map_err(|errno| match errno {
        Errno::INVAL => LeafRefusal::new(errno, "that descriptor is not the control group of this run"),
        errno => failed("remove the control group", errno),
    })
}

/// The number of the process behind a pidfd, as the kernel tells it.
fn process_of(pidfd: &OwnedFd) -> Result<Pid, LeafRefusal> {
    let no_pidfd = || LeafRefusal::new(Errno::INVAL, "that descriptor is no pidfd");
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))
        .map_err(|error| failed("look at the descriptor", Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let number = about.lines().find_map(|line| line.strip_prefix("Pid:")).ok_or_else(no_pidfd)?;
    let number: i32 = number.trim().parse().map_err(|_| no_pidfd())?;
    // -1 after the end of the process; 0 for a process of a PID namespace that is not below this one.
    Pid::new(number).ok_or_else(gone)
}

fn gone() -> LeafRefusal {
    LeafRefusal::new(Errno::SRCH, "the process has ended")
}

fn no_group(why: &NoCgroup) -> LeafRefusal {
    let errno = match why {
        NoCgroup::Gone => Errno::SRCH,
        NoCgroup::NotMounted | NoCgroup::Outside => Errno::NODEV,
        NoCgroup::ReadOnly(_) => Errno::ROFS,
        NoCgroup::NotPermitted(_) => Errno::ACCESS,
        NoCgroup::Exists(_) => Errno::EXIST,
        NoCgroup::Threaded(_) => Errno::OPNOTSUPP,
        NoCgroup::Failed(_, errno) => *errno,
    };
    LeafRefusal::new(errno, why.to_string())
}

fn failed(what: &str, errno: Errno) -> LeafRefusal {
    LeafRefusal::new(errno, format!("cannot {what}: {errno}"))
}
