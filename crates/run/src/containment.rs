//! Which containment a run gets.
//!
//! | asked | guardian | control group |
//! |---|---|---|
//! | `auto` | a subreaper | one the wrapper can make, else one the daemon can, else none |
//! | `cgroup` | a subreaper | the same, or nothing is started |
//! | `pidns` | the first process of a PID namespace, or nothing is started | none |
//! | `subreaper` | a subreaper | none |

use std::sync::Arc;

use machineid_protocol::{Containment, Wish};
use machineid_sys::SignalFd;
use machineid_tree::{Leaf, NoCgroup};

use super::Run;
use super::child::Pipes;
use super::guard::{GuardianHandle, GuardianKind, GuardianStart, NamespaceUser};

/// What was made before the daemon was asked.
#[derive(Debug)]
pub(super) struct MadeContainment {
    pub(super) guardian: GuardianHandle,
    pub(super) pipes: Pipes,
    pub(super) leaf: Option<Arc<Leaf>>,
    /// Why the wrapper could make no control group, when it should have.
    pub(super) no_leaf: Option<NoCgroup>,
}

/// Forks the guardian, which forks the leader, as the run's containment wants it.
pub(super) fn make(run: &Run, signals: &SignalFd) -> Result<MadeContainment, String> {
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
    let pipes = pipes()?;
    let started = GuardianHandle::start(
        &GuardianStart { run, signals, kind: GuardianKind::Sweeper, leaf: leaf.as_deref() },
        pipes,
    );
    match started {
        Ok((guardian, pipes)) => Ok(MadeContainment { guardian, pipes, leaf, no_leaf }),
        Err(error) => {
            let _ = leaf.map(|leaf| leaf.remove());
            Err(error.to_string())
        }
    }
}

fn pidns(run: &Run, signals: &SignalFd) -> Result<MadeContainment, String> {
    let mapped =
        NamespaceUser::Mapped { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    // Root in a container may lack the right to make namespaces, and be allowed a user namespace all the same.
    let users =
        if rustix::process::geteuid().is_root() { vec![NamespaceUser::Privileged, mapped] } else { vec![mapped] };
    let mut failure = String::new();
    for user in users {
        match GuardianHandle::start(
            &GuardianStart { run, signals, kind: GuardianKind::Init(user), leaf: None },
            pipes()?,
        ) {
            Ok((guardian, pipes)) => return Ok(MadeContainment { guardian, pipes, leaf: None, no_leaf: None }),
            Err(error) => {
                failure = error.to_string();
                if !error.may_be_permitted_otherwise() {
                    break;
                }
            }
        }
    }
    Err(failure)
}

fn pipes() -> Result<Pipes, String> {
    Pipes::open().map_err(|errno| format!("cannot make a pipe: {errno}"))
}
