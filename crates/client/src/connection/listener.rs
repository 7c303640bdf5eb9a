//! Whose process listens where requests are sent on this host. A key must not go to another user's process, which may have
//! taken the place of an authority that is stopped.

use std::error::Error;
use std::fmt;

/// The users whose processes may receive a key on this host: root, the client's own user, and one that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrustedUsers {
    own: u32,
    named: Option<u32>,
}

impl TrustedUsers {
    /// Those of this process.
    pub(crate) fn of_this_process(named: Option<u32>) -> Self {
        Self { own: rustix::process::geteuid().as_raw(), named }
    }

    fn include(self, uid: u32) -> bool {
        !machineid_sockets::is_ambiguous(uid) && (uid == 0 || uid == self.own || self.named == Some(uid))
    }

    /// Fails unless the owner of the listener at `place` is one of them.
    pub(crate) fn check(self, place: impl FnOnce() -> String, owner: ListenerOwner) -> Result<(), ForeignListener> {
        match owner {
            ListenerOwner::User(uid) if self.include(uid) => Ok(()),
            ListenerOwner::User(_) | ListenerOwner::Unknown(_) => Err(ForeignListener { place: place(), owner }),
        }
    }
}

/// The user whose process listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerOwner {
    /// The process of this user.
    User(u32),
    /// The kernel does not tell.
    Unknown(Untold),
}

/// Why it is not known whose process listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untold {
    /// No process in this network namespace has the other end: the kernel forwards the connection elsewhere.
    Elsewhere,
    /// The kernel could not be asked, for this reason.
    Unasked(std::io::ErrorKind),
}

/// The end of what is said about every [`ForeignListener`].
pub const KEY_NOT_SENT: &str = "the key was not sent";

/// The process that listens there may not have the key. Nothing was sent to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignListener {
    /// Where, as in `the socket /run/machineid-authority/api.sock`.
    place: String,
    owner: ListenerOwner,
}

impl fmt::Display for ForeignListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match self.owner {
            ListenerOwner::User(uid) => {
                write!(f, "{place} belongs to uid {uid}, not to root, this user or authority.user: {KEY_NOT_SENT}")
            }
            ListenerOwner::Unknown(why) => {
                write!(f, "the kernel does not tell which user {place} belongs to ({why}): {KEY_NOT_SENT}")
            }
        }
    }
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere => f.write_str("no process of this network namespace has the other end of the connection"),
            Self::Unasked(kind) => write!(f, "neither sock_diag nor /proc/net/tcp answers: {kind}"),
        }
    }
}

impl Error for ForeignListener {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_the_own_user_and_the_named_one_may_have_the_key() {
        let trusted = TrustedUsers { own: 1000, named: Some(900) };
        let check = |owner| trusted.check(|| "the socket /s".to_owned(), owner);
        for uid in [0, 1000, 900] {
            assert_eq!(check(ListenerOwner::User(uid)), Ok(()));
        }
        let said = check(ListenerOwner::User(1001)).unwrap_err().to_string();
        assert_eq!(
            said,
            "the socket /s belongs to uid 1001, not to root, this user or authority.user: the key was not sent"
        );
        assert!(check(ListenerOwner::Unknown(Untold::Elsewhere)).is_err());
        let nobody = TrustedUsers { own: 1000, named: None };
        assert!(nobody.check(String::new, ListenerOwner::User(900)).is_err());
    }
}
