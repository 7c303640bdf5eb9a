//! The agents that a client may see and command.

use machineid_protocol::RunId;
use machineid_protocol::status::AgentsShown;
use machineid_tree::PidNamespaces;

use super::peer::Peer;
use crate::config::Settings;
use crate::registry::Run;
use crate::telemetry::AgentOwner;

/// A set of agents: those that a client may see and stop.
#[derive(Clone, Debug)]
pub(super) enum AgentScope {
    /// The agents of all users: for root, the daemon's own user and the members of `local.admin_group`, in the daemon's own
    /// PID and user namespaces.
    All,
    /// The agents of this uid in the client's PID namespace, or in one below it: the same number is another user's in another
    /// container.
    Own { uid: u32, place: PidNamespaces },
    /// The daemon does not know in which PID namespace the client is: no agents, but for one that the client names by its run
    /// id, which only the run's own tree and those who may see it know, and that the daemon cannot see either.
    Unplaced { uid: u32 },
    /// No agents: for a client in another user namespace, whose uid there is not its uid here.
    Nothing,
}

impl AgentScope {
    /// The agents that this client may see and stop.
    pub(super) fn of(peer: &Peer, settings: &Settings) -> Self {
        if peer.is_unmapped_user() {
            return Self::Nothing;
        }
        let admins = settings.local.admin_group.as_ref();
        let privileged = peer.is_privileged() || admins.is_some_and(|group| peer.is_member(group.gid));
        if privileged && peer.is_in_our_namespaces() {
            return Self::All;
        }
        let (uid, place) = (peer.uid(), peer.namespaces());
        if !place.is_known() {
            Self::Unplaced { uid }
        } else if place.is_callers() && !peer.is_in_our_user_namespace() {
            Self::Nothing
        } else {
            Self::Own { uid, place }
        }
    }

    /// Whether the agents of this owner are in the set.
    pub(super) fn covers(&self, owner: &AgentOwner) -> bool {
        match self {
            Self::All => true,
            Self::Own { uid, place } => *uid == owner.uid && place.contain(&owner.namespaces),
            Self::Unplaced { .. } | Self::Nothing => false,
        }
    }

    /// Whether this run is in the set, when a client lists agents or names several.
    pub(super) fn covers_run(&self, run: &Run) -> bool {
        self.is_all() || self.covers(&run.owner())
    }

    /// Whether this run is in the set for a client that names it by its id.
    pub(super) fn covers_named(&self, run: &Run, id: RunId) -> bool {
        match self {
            Self::Unplaced { uid } => run.id() == id && run.opened.uid == *uid && !run.opened.namespaces.is_known(),
            Self::All | Self::Own { .. } | Self::Nothing => run.id() == id && self.covers_run(run),
        }
    }

    /// Whether these are the agents of all users.
    pub(super) const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// The set, as status reports it.
    pub(super) const fn shown(&self) -> AgentsShown {
        match self {
            Self::All => AgentsShown::All,
            Self::Own { .. } => AgentsShown::Own,
            Self::Unplaced { .. } | Self::Nothing => AgentsShown::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_tree::{Pid, ProcessEntry};

    #[test]
    fn own_are_those_of_the_uid_in_the_clients_place() {
        let here = PidNamespaces::of(ProcessEntry::read(Pid::own()).unwrap().unwrap().identity);
        let agent = |uid, namespaces: &PidNamespaces| AgentOwner { uid, namespaces: namespaces.clone() };
        let unknown = PidNamespaces::unknown();
        let own = AgentScope::Own { uid: 7, place: here.clone() };
        assert!(own.covers(&agent(7, &here)) && !own.covers(&agent(0, &here)));
        assert!(!own.covers(&agent(7, &unknown)), "in another container, or in one that is not known");
        for (scope, all) in
            [(AgentScope::All, true), (AgentScope::Unplaced { uid: 7 }, false), (AgentScope::Nothing, false)]
        {
            assert!([&here, &unknown].iter().all(|place| scope.covers(&agent(7, place)) == all), "{scope:?}");
        }
    }
}
