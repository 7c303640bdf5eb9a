//! The agents that a client may see, and those that it may command.

use super::peer::Peer;
use crate::config::Settings;
use crate::registry::Run;

/// A set of agents, by their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AgentScope {
    /// The agents of all users: for root, the daemon's own user and the members of `local.admin_group`, in the daemon's own
    /// PID and user namespaces.
    All,
    /// The agents of this uid.
    Own(u32),
    /// No agents.
    Nothing,
}

impl AgentScope {
    /// The agents that this client may see.
    pub(super) fn sees(peer: &Peer, settings: &Settings) -> Self {
        if peer.is_unmapped_user() {
            return Self::Nothing;
        }
        let admins = settings.local.admin_group.as_ref();
        let privileged = peer.uid() == 0
            || peer.uid() == rustix::process::geteuid().as_raw()
            || admins.is_some_and(|group| peer.is_member(group.gid));
        if privileged && peer.is_in_our_namespaces() { Self::All } else { Self::Own(peer.uid()) }
    }

    /// The agents that this client may stop. A client in another user namespace may stop none: its uid there is not its uid
    /// here.
    pub(super) fn commands(peer: &Peer, settings: &Settings) -> Self {
        if peer.is_in_our_user_namespace() { Self::sees(peer, settings) } else { Self::Nothing }
    }

    /// Whether an agent of this uid is in the set.
    pub(super) fn covers(self, uid: u32) -> bool {
        match self {
            Self::All => true,
            Self::Own(own) => own == uid,
            Self::Nothing => false,
        }
    }

    /// Whether this run is in the set.
    pub(super) fn covers_run(self, run: &Run) -> bool {
        self.covers(run.opened.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_their_own() {
        assert!(AgentScope::All.covers(7) && AgentScope::Own(7).covers(7));
        assert!(!AgentScope::Own(7).covers(0) && !AgentScope::Nothing.covers(7));
    }
}
