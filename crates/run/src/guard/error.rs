//! Why there is no guardian, or no leader.

use std::path::Path;
use std::{error, fmt};

use machineid_sys::{self as sys, ForkError};
use rustix::io::Errno;

use super::message::GuardianStep;
use super::{isolation, namespace};

/// Why there is no guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardianStartError {
    /// There is no socket between wrapper and guardian.
    Socket(Errno),
    /// The process was not made.
    Process(ForkError),
    /// The first process of a namespace was not made.
    Namespace(ForkError),
}

impl GuardianStartError {
    /// Whether what was refused may be permitted in a user namespace.
    pub(crate) const fn may_be_permitted_otherwise(self) -> bool {
        matches!(self, Self::Namespace(ForkError::Kernel(Errno::PERM)))
    }
}

impl fmt::Display for GuardianStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(errno) => {
                let refused = || format!("cannot make a socket: {}", sys::in_words(*errno));
                f.write_str(&sys::why_unreachable(Path::new("/")).unwrap_or_else(refused))
            }
            Self::Process(error) | Self::Namespace(error @ (ForkError::Threads | ForkError::NoProc)) => {
                write!(f, "{error}")
            }
            Self::Namespace(ForkError::Kernel(errno)) => f.write_str(&namespace::explain_fork(*errno)),
        }
    }
}

impl error::Error for GuardianStartError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Socket(errno) => Some(errno),
            Self::Process(error) | Self::Namespace(error) => Some(error),
        }
    }
}

/// Why the guardian has made no leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaderError {
    /// The guardian ended first.
    GuardianGone,
    /// The guardian has said nothing for too long.
    GuardianSilent,
    /// The guardian cannot be read from.
    Read(Errno),
    /// This step of the guardian's failed.
    Failed(GuardianStep, Errno),
}

impl fmt::Display for LeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuardianGone => f.write_str("the guardian ended before the command's process was there"),
            Self::GuardianSilent => f.write_str("the guardian does not answer"),
            Self::Read(errno) => write!(f, "cannot read from the guardian: {errno}"),
            Self::Failed(GuardianStep::Fork, errno) => {
                write!(f, "the command's process: {}", ForkError::Kernel(*errno))
            }
            Self::Failed(GuardianStep::Prepare, errno) => {
                write!(f, "the guardian cannot be set up: {}", sys::in_words(*errno))
            }
            Self::Failed(step @ (GuardianStep::MapUser | GuardianStep::MountProc | GuardianStep::Tie), errno) => {
                f.write_str(&namespace::explain(*step, *errno))
            }
            Self::Failed(
                step
                @ (GuardianStep::Isolate | GuardianStep::IsolateUser | GuardianStep::Cover | GuardianStep::Restore),
                errno,
            ) => f.write_str(&isolation::explain(*step, *errno)),
        }
    }
}

impl error::Error for LeaderError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::GuardianGone | Self::GuardianSilent => None,
            Self::Read(errno) | Self::Failed(_, errno) => Some(errno),
        }
    }
}
