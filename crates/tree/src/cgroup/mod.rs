//! A control group of a run's own: the kernel keeps the list of its processes, and ends them all at once.
//!
//! Only version 2 is used, wherever it is mounted (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1). Nothing
//! of version 1 is used: on a host whose freezer is version 1's, a leaf could not be frozen.
//!
//! | file | concept |
//! |---|---|
//! | `place` | pure: where a process's control group is in the file system |
//! | `group` | the control group that a process is in, and its directories |
//! | `leaf` | one run's control group and what can be done with it |
//! | `listing` | the processes and groups inside one |

mod group;
mod leaf;
mod listing;
mod place;

use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;

pub use group::{group_path, usual_groups};
pub use leaf::{Leaf, LeafState};
pub use place::fuzz as fuzz_cgroup;

/// Why there is no control group for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoCgroup {
    /// The process whose control group was asked for has ended.
    Gone,
    /// No cgroup2 file system is mounted here, or the kernel has none.
    NotMounted,
    /// The process's control group is in no mount that can be seen from here.
    Outside,
    /// The file system is mounted read-only at this path.
    ReadOnly(PathBuf),
    /// This user may make no group at this path.
    NotPermitted(PathBuf),
    /// A group of that name exists already, and was not made by this run.
    Exists(PathBuf),
    /// The group at this path holds threads, not processes, and can have no other group below it.
    Threaded(PathBuf),
    /// Any other error of the kernel about this path.
    Failed(PathBuf, Errno),
}

impl fmt::Display for NoCgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the process has ended"),
            Self::NotMounted => f.write_str("no cgroup2 file system is mounted; mount one at /sys/fs/cgroup"),
            Self::Outside => f.write_str(
                "the process's control group cannot be seen from here (another cgroup namespace); share that namespace",
            ),
            Self::ReadOnly(path) => write!(f, "{} is mounted read-only; mount it writable", path.display()),
            Self::NotPermitted(path) => write!(
                f,
                "no permission to make a control group in {}; start it in a delegated one (systemd: Delegate=yes, or \
                 systemd-run --user --scope -p Delegate=yes), or let a daemon that runs as root make it",
                path.display()
            ),
            Self::Exists(path) => {
                write!(f, "{} exists already; remove it (rmdir) if no run of that id is left", path.display())
            }
            Self::Threaded(path) => {
                write!(f, "{} holds threads and can have no other group below it; start it elsewhere", path.display())
            }
            Self::Failed(path, Errno::AGAIN) => write!(
                f,
                "no more control groups may be made in {}; raise its cgroup.max.descendants or cgroup.max.depth",
                path.display()
            ),
            Self::Failed(path, errno) => write!(f, "{}: {errno}", path.display()),
        }
    }
}

impl std::error::Error for NoCgroup {}
