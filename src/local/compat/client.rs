//! The process at the other end of a connection to `compat.listen`, and whether it may use a run's token.
//!
//! A token alone is a bearer token: every process that reads it could use it. The kernel tells in which control group a socket
//! was made, and which user holds it. So the token of a run with a control group is good for sockets made inside that group;
//! another run's, for sockets of the run's user. A socket that does not fit is still good when a process of the run's tree
//! holds it, which the daemon can tell when it may look at the processes' descriptors.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machineid_blocking::CallOwner;
use machineid_protocol::RunId;
use machineid_sockets::{SocketOrigin, origin_of_connection};
use tokio::net::TcpStream;

use crate::local::Context;
use crate::registry::Run;

/// The user number that stands for clients whose user is unknown: they share one part of the places.
const UNKNOWN: u32 = u32::MAX;

/// The client of one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct TcpClient {
    origin: Known,
    /// Whether the client may use the tokens of these runs, as found out so far.
    known: Arc<Mutex<Vec<(RunId, bool)>>>,
}

/// What the kernel says about the client's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Origin(SocketOrigin),
    /// The client has closed it, or is on no process of this host's network namespace.
    Gone,
    /// The kernel could not be asked.
    Unknown,
}

/// Whether a token is good for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Good,
    Bad,
    /// Only if a process of the run's tree holds the socket.
    IfHeld {
        inode: u64,
    },
}

/// `in_group`: whether the socket was made in the run's control group; `None` when the run has none, or the kernel does not
/// tell.
fn claim(run_uid: u32, known: Known, in_group: impl FnOnce(u64) -> Option<bool>) -> Claim {
    match known {
        // A daemon that cannot ask has no more than the token.
        Known::Unknown => Claim::Good,
        Known::Gone => Claim::Bad,
        Known::Origin(SocketOrigin { owner, control_group }) => match control_group.and_then(in_group) {
            Some(true) => Claim::Good,
            None if owner.uid == run_uid => Claim::Good,
            Some(false) | None => Claim::IfHeld { inode: owner.inode },
        },
    }
}

impl TcpClient {
    /// Asks the kernel. Takes microseconds.
    pub(super) fn of(stream: &TcpStream) -> Self {
        let asked =
            || -> io::Result<Option<SocketOrigin>> { origin_of_connection(stream.peer_addr()?, stream.local_addr()?) };
        let origin = match asked() {
            Ok(Some(origin)) => Known::Origin(origin),
            Ok(None) => Known::Gone,
            Err(_) => Known::Unknown,
        };
        Self { origin, known: Arc::default() }
    }

    /// The client's user, to share the places by.
    pub(super) fn uid(&self) -> u32 {
        match self.origin {
            Known::Origin(origin) => origin.owner.uid,
            Known::Gone | Known::Unknown => UNKNOWN,
        }
    }

    /// Whether the client may use the token of this run; found out once for each connection.
    pub(super) async fn may_use_token_of(&self, run: &Arc<Run>, context: &Context) -> bool {
        let known = self.known().iter().find(|(known, _)| *known == run.id()).map(|(_, may)| *may);
        if let Some(known) = known {
            return known;
        }
        let leaf = run.admission().and_then(|admission| admission.containment.leaf.clone());
        let may = match claim(run.opened.uid, self.origin, |id| leaf.map(|leaf| leaf.has_group(id))) {
            Claim::Good => true,
            Claim::Bad => false,
            Claim::IfHeld { inode } => {
                let (runs, run) = (Arc::clone(&context.runs), Arc::clone(run));
                let turn = CallOwner::user(self.uid(), false);
                context.looks.call(turn, move || runs.holds_socket(&run, inode)).await.unwrap_or(false)
            }
        };
        self.known().push((run.id(), may));
        may
    }

    fn known(&self) -> MutexGuard<'_, Vec<(RunId, bool)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_sockets::SocketOwner;

    #[test]
    fn a_token_is_good_in_the_runs_group_or_else_for_its_user_or_else_for_who_is_in_its_tree() {
        let socket =
            |uid, control_group| Known::Origin(SocketOrigin { owner: SocketOwner { uid, inode: 5 }, control_group });
        let if_held = Claim::IfHeld { inode: 5 };
        let with_group = |known| claim(7, known, |id| Some(id == 3));
        assert_eq!(with_group(socket(7, Some(3))), Claim::Good);
        assert_eq!(with_group(socket(0, Some(3))), Claim::Good, "a child of the agent's that became another user");
        assert_eq!(with_group(socket(7, Some(4))), if_held, "the same user, elsewhere");
        assert_eq!(with_group(socket(7, None)), Claim::Good, "an old kernel");
        let without = |known| claim(7, known, |_| None);
        assert_eq!(without(socket(7, Some(4))), Claim::Good);
        assert_eq!(without(socket(8, Some(4))), if_held);
        assert_eq!(without(socket(8, None)), if_held);
        assert_eq!((without(Known::Gone), without(Known::Unknown)), (Claim::Bad, Claim::Good));
    }
}
