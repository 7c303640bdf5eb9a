//! The containment of a run: what holds its process tree together, and against which kind of agent.

use std::sync::Arc;

use machineid_protocol::{Containment, HoldsAgainst};
use machineid_tree::Leaf;

/// The containment of one tree, as the daemon found or made it; a client's claim is accepted only where the daemon cannot
/// look.
#[derive(Debug)]
pub(crate) struct RunContainment {
    pub(crate) kind: Containment,
    pub(crate) holds_against: HoldsAgainst,
    /// A line for people: what holds the tree, or why nothing stronger does.
    pub(crate) reason: String,
    pub(crate) leaf: Option<Arc<Leaf>>,
}

impl RunContainment {
    /// A PID namespace of the run's own.
    pub(crate) fn namespace() -> Self {
        Self {
            kind: Containment::Pidns,
            holds_against: HoldsAgainst::Hostile,
            reason: "a PID namespace of its own, which the kernel ends together with its first process".to_owned(),
            leaf: None,
        }
    }

    /// A control group of the run's own, for an agent of this user.
    pub(crate) fn leaf(leaf: Arc<Leaf>, agent_uid: u32) -> Self {
        let holds_against = leaf.holds_against(agent_uid);
        let reason = match (holds_against, owner(&leaf)) {
            (HoldsAgainst::Hostile, Some(0)) => "a control group that root made".to_owned(),
            (HoldsAgainst::Hostile, Some(uid)) => format!("a control group that uid {uid} made"),
            (HoldsAgainst::Hostile, None) => "a control group that another user made".to_owned(),
            (HoldsAgainst::Bugs, _) if agent_uid == 0 => {
                "a control group, which root may leave; an agent of another user could not".to_owned()
            }
            (HoldsAgainst::Bugs, _) => {
                "a control group that its own user may leave; one that a daemon run by root makes could not be left"
                    .to_owned()
            }
        };
        Self { kind: Containment::Cgroup, holds_against, reason, leaf: Some(leaf) }
    }

    /// A control group into which the processes of an adopted tree were moved.
    pub(crate) fn gathered(leaf: Arc<Leaf>) -> Self {
        Self {
            kind: Containment::Cgroup,
            holds_against: HoldsAgainst::Bugs,
            reason:
                "a control group that its processes were moved into when it was adopted; what had left the tree before \
                     is not in it"
                    .to_owned(),
            leaf: Some(leaf),
        }
    }

    /// No containment but the supervisors; `why` says why nothing stronger is available.
    pub(crate) fn subreaper(why: String) -> Self {
        Self { kind: Containment::Subreaper, holds_against: HoldsAgainst::Bugs, reason: why, leaf: None }
    }

    /// The containment that the wrapper claims, where the daemon cannot look.
    pub(crate) fn unseen(kind: Containment) -> Self {
        Self {
            kind,
            holds_against: HoldsAgainst::Bugs,
            reason: "as the wrapper reports: the daemon cannot see this agent".to_owned(),
            leaf: None,
        }
    }
}

fn owner(leaf: &Leaf) -> Option<u32> {
    rustix::fs::stat(leaf.path()).ok().map(|about| about.st_uid)
}
