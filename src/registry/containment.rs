//! What holds a run's tree together, and against whom.

use std::sync::Arc;

use machineid_protocol::{Containment, HoldsAgainst};
use machineid_tree::Leaf;

/// How a tree is held together, as it was found or made; never just a client's word where the daemon can look.
#[derive(Debug)]
pub(crate) struct RunContainment {
    pub(crate) kind: Containment,
    pub(crate) holds_against: HoldsAgainst,
    /// In a line, for people: what holds it, or why nothing stronger does.
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

    /// Nothing but its supervisors; `why` says why nothing stronger.
    pub(crate) fn subreaper(why: String) -> Self {
        Self { kind: Containment::Subreaper, holds_against: HoldsAgainst::Bugs, reason: why, leaf: None }
    }

    /// The wrapper's own word, where the daemon cannot look.
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
