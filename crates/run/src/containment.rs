//! Which containment a run gets.
//!
//! | asked | guardian | control group |
//! |---|---|---|
//! | `auto` | a subreaper | one the wrapper can make, else one the daemon can, else none |
//! | `cgroup` | a subreaper | the same, or nothing is started |
//! | `pidns` | the first process of a PID namespace, or nothing is started | none |
//! | `subreaper` | a subreaper | none |

use std::sync::Arc;
use std::{error, fmt};

use machineid_protocol::{Containment, Wish};
use machineid_sys::SignalFd;
use machineid_tree::{Leaf, NoCgroup};
use nix::unistd::{getegid, geteuid};
use rustix::io::Errno;

use super::Run;
use super::child::Pipes;
use super::guard::{GuardianHandle, GuardianKind, GuardianStart, GuardianStartError, NamespaceUser};

/// The processes and the control group of a run, made before the daemon is asked.
#[derive(Debug)]
pub(super) struct MadeContainment {
    pub(super) guardian: GuardianHandle,
    pub(super) pipes: Pipes,
    pub(super) leaf: Option<Arc<Leaf>>,
    /// Why the wrapper could make no control group, if it tried.
    pub(super) no_leaf: Option<NoCgroup>,
}

/// Why a run's processes could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainmentError {
    /// There is no pipe between wrapper and leader.
    Pipe(Errno),
    /// There is no guardian.
    Guardian(GuardianStartError),
}

impl fmt::Display for ContainmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipe(errno) => write!(f, "cannot make a pipe: {}", machineid_sys::in_words(*errno)),
            Self::Guardian(error) => write!(f, "{error}"),
        }
    }
}

impl error::Error for ContainmentError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Pipe(errno) => Some(errno),
            Self::Guardian(error) => Some(error),
        }
    }
}

/// Forks the guardian, which forks the leader, with the containment that the run asks for.
pub(super) fn make(run: &Run, signals: &SignalFd) -> Result<MadeContainment, ContainmentError> {
    let wants_leaf = match run.settings.containment {
        Wish::Named(Containment::Pidns) => return pidns(run, signals),
        Wish::Named(Containment::Subreaper) => false,
        Wish::Auto | Wish::Named(Containment::Cgroup) => true,
    };
    let (leaf, no_leaf) = if wants_leaf {
        match Leaf::make_below_own(run.settings.run_id) {
            Ok(leaf) => (Some(Arc::new(leaf)), None),
            Err(why) => (None, Some(why)),
        }
    } else {
        (None, None)
    };
    match start(&GuardianStart { run, signals, kind: GuardianKind::Sweeper, leaf: leaf.as_deref() }) {
        Ok((guardian, pipes)) => Ok(MadeContainment { guardian, pipes, leaf, no_leaf }),
        Err(error) => {
            let _ = leaf.map(|leaf| leaf.remove());
            Err(error)
        }
    }
}

fn pidns(run: &Run, signals: &SignalFd) -> Result<MadeContainment, ContainmentError> {
    let begin = |user| {
        start(&GuardianStart { run, signals, kind: GuardianKind::Init(user), leaf: None })
            .map(|(guardian, pipes)| MadeContainment { guardian, pipes, leaf: None, no_leaf: None })
    };
    let (uid, gid) = (geteuid(), getegid());
    let mapped = NamespaceUser::Mapped { uid: uid.as_raw(), gid: gid.as_raw() };
    if !uid.is_root() {
        return begin(mapped);
    }
    match begin(NamespaceUser::Privileged) {
        // Root in a container may lack the right to make namespaces, and still be allowed a user namespace.
        Err(ContainmentError::Guardian(error)) if error.may_be_permitted_otherwise() => begin(mapped),
        made => made,
    }
}

fn start(start: &GuardianStart<'_>) -> Result<(GuardianHandle, Pipes), ContainmentError> {
    let pipes = Pipes::open().map_err(ContainmentError::Pipe)?;
    GuardianHandle::start(start, pipes).map_err(ContainmentError::Guardian)
}
