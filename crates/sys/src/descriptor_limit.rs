//! How many descriptors a server may hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors we take at most: enough for every connection we serve.
const MOST: u64 = 65_536;

/// Takes as many descriptors as the hard limit gives, and says what the limit was. A soft one of 1,024 is one user with a
/// loop, or one fleet, away from being used up.
#[expect(clippy::must_use_candidate, reason = "called for its effect; only the daemon keeps what the limit was")]
pub fn raise_descriptor_limit() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let wanted = before.maximum.unwrap_or(MOST).min(MOST);
    if before.current.is_some_and(|current| current < wanted) {
        // Refused, it stays as it was, and fewer connections are served.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..before });
    }
    before
}
