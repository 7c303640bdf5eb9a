//! What a look may cost, and the sockets that it begins with.

use std::io;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_sockets as sockets;

use super::budget::Budget;
use super::links::Sockets;

/// How long one look may take.
pub const LOOK: Duration = Duration::from_millis(200);
/// How many entries of directories it may read.
const ENTRIES: usize = 100_000;
/// The most sockets of one kind that are listed.
const MOST_SOCKETS: usize = 200_000;

/// The budget of a look that begins now.
#[must_use]
pub fn budget(now: BootTime) -> Budget {
    Budget::new(now + LOOK, ENTRIES, BootTime::now)
}

/// All sockets of the host, as far as they can be listed until then. Fails when the kernel lists none.
pub fn list(until: BootTime) -> io::Result<Sockets> {
    let mut go_on = || BootTime::now() < until;
    Ok(Sockets { unix: sockets::unix(MOST_SOCKETS, &mut go_on)?, tcp: sockets::loopback(MOST_SOCKETS, &mut go_on)? })
}
