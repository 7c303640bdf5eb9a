//! Whose agents a client may see, and whose it may command.

use super::peer::Peer;
use crate::config::Settings;
use crate::registry::Run;

/// Whose agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AgentScope {
    /// Everybody's: for root, the daemon's own user and the members of `local.admin_group`, in the daemon's own PID and user namespace.
    All,
    /// Those of this uid.
    Own(u32),
    /// Nobody's.
    Nothing,
}

impl AgentScope {
    /// Whose agents this client may see.
    pub(super) fn sees(peer: &Peer, settings: &Settings) -> Self {
        if peer.is_nobody() {
            return Self::Nothing;
        }
        let admins = settings.local.admin_group.as_ref();
        let privileged = peer.uid() == 0
            || peer.uid() == rustix::process::geteuid().as_raw()
            || admins.is_some_and(|group| peer.is_member(group.gid));
        if privileged && peer.is_in_our_namespaces() { Self::All } else { Self::Own(peer.uid()) }
    }

    /// Whose agents it may stop. A client of another user namespace none: who it is there is not who it is here.
    pub(super) fn commands(peer: &Peer, settings: &Settings) -> Self {
        if peer.is_in_our_user_namespace() { Self::sees(peer, settings) } else { Self::Nothing }
    }

    /// Whether an agent of this uid is among them.
    pub(super) fn covers(self, uid: u32) -> bool {
        match self {
            Self::All => true,
            Self::Own(own) => own == uid,
            Self::Nothing => false,
        }
    }

    /// Whether this run is among them.
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
