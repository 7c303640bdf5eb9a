//! How many connections the process can serve: its limit of open descriptors, less what the rest of it needs. Pure, but for
//! reading the limit.

use rustix::process::{Resource, getrlimit};

use super::ConnectionBounds;

/// The descriptors that are no connections of clients: the database's file, its log and its readers, the admin socket with
/// its connections, the metrics' listener with its own, epoll and timers, the log.
const RESERVED: usize = 256;

/// More connections than this are served only when `--connections` says so.
const USUAL_MOST: usize = 65_536;

/// The descriptors of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessDescriptors {
    limit: usize,
    /// Connections to the database.
    database: usize,
}

impl ProcessDescriptors {
    /// Those of this process, which connects to its database so many times.
    pub(crate) fn of_this_process(database: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        Self { limit: limit.unwrap_or(usize::MAX), database }
    }

    /// How many connections fit.
    pub(crate) fn room(self) -> usize {
        let reserved = RESERVED.saturating_add(self.database);
        // With a limit as small as that, half has to do for each.
        self.limit.saturating_sub(reserved).max(self.limit / 2).max(ConnectionBounds::FEWEST)
    }

    /// The number of connections to serve, where the operator asks for `wanted`.
    pub(crate) fn connections(self, wanted: Option<usize>) -> usize {
        self.room().min(wanted.unwrap_or(USUAL_MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_reserved_and_no_number_is_larger_than_what_fits() {
        let of = |limit| ProcessDescriptors { limit, database: 16 };
        assert_eq!(of(65_536).connections(None), 65_264);
        assert_eq!(of(usize::MAX).connections(None), 65_536);
        assert_eq!(of(1_024).connections(None), 752);
        assert_eq!(of(300).connections(None), 150);
        assert_eq!(of(1).connections(None), 16);
        assert_eq!((of(1_024).connections(Some(100)), of(1_024).connections(Some(5_000))), (100, 752));
    }
}
