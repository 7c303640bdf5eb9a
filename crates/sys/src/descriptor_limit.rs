//! The limit of open descriptors of a server.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The highest limit that is set: enough for every connection that a server accepts.
const MOST: u64 = 65_536;

/// Raises the limit of open descriptors to the hard limit, and returns the limit from before. The usual soft limit of
/// 1,024 can be used up by one user with a loop, or by one fleet.
#[expect(clippy::must_use_candidate, reason = "called for its effect; only the daemon keeps what the limit was")]
pub fn raise_descriptor_limit() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let wanted = before.maximum.unwrap_or(MOST).min(MOST);
    if before.current.is_some_and(|current| current < wanted) {
        // If that is refused, the limit stays as it was, and fewer connections are served.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..before });
    }
    before
}
