//! Index of the processes whose environment names a run, for one process table.

use std::collections::HashMap;

use machineid_protocol::RunId;
use rustix::io::Errno;

use super::environ;
use super::pid::StartTime;
use super::stat::ProcessEntry;

/// Which processes of one table name which runs. The index is built when a tree first asks, and serves all trees: where
/// a thousand trees are stopped at a time, reading every environment of the host for each of them would take minutes.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    /// The start time of the oldest process that was read; `None` before the first question.
    since: Option<StartTime>,
    by_run: HashMap<RunId, Vec<ProcessEntry>>,
}

impl Holders {
    /// Returns the living processes among `entries` that name the run, including all that are no older than `since`.
    ///
    /// Fails when no descriptor is available; that must not be taken for an empty list.
    pub(super) fn of(
        &mut self,
        run: RunId,
        since: StartTime,
        entries: &[ProcessEntry],
    ) -> Result<&[ProcessEntry], Errno> {
        if self.since.is_none_or(|read| since < read) {
            let young = entries.iter().filter(|entry| entry.is_alive() && entry.identity.start >= since);
            let young: Vec<ProcessEntry> = young.copied().collect();
            let mut by_run: HashMap<RunId, Vec<ProcessEntry>> = HashMap::new();
            for (run, entry) in environ::named_by(&young)? {
                by_run.entry(run).or_default().push(entry);
            }
            self.by_run = by_run;
            self.since = Some(since);
        }
        Ok(self.by_run.get(&run).map_or(&[], Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pid::Pid;

    const RUN: &str = "00000000000000000000000000000007";

    #[test]
    fn an_environment_is_read_once_whichever_tree_asks_first() {
        let own = ProcessEntry::read(Pid::own()).unwrap().unwrap();
        let run: RunId = RUN.parse().unwrap();
        let mut holders = Holders::default();
        let later = StartTime(own.identity.start.0 + 1);
        assert!(holders.of(run, later, &[own]).unwrap().is_empty());
        assert_eq!(holders.since, Some(later));
        holders.of(run, own.identity.start, &[own]).unwrap();
        assert_eq!(holders.since, Some(own.identity.start), "an older tree looks further back");
        holders.by_run.insert(run, vec![own]);
        assert_eq!(holders.of(run, later, &[own]).unwrap(), [own], "what was read is kept");
    }
}
