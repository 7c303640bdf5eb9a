//! The schedule of `revoke --wait`: which query to send next, and when. Pure: news, answers and the time go in, the
//! next query comes out.
//!
//! The authority tells which devices changed, and only those that the wait is about are queried. Correctness does not
//! depend on that: without news (the stream broke, or the authority sends none) the command polls the open devices at a
//! slower pace. A wait ends only after another query about all devices, since a sidecar may have reported for the first
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use machineid_protocol::report::{FleetDevice, StopState};

use super::news::News;
use super::progress::{self, DeviceProgress, Followed, Targets};

/// How long to wait for the stream to open before the first query is sent without it.
const OPENED: Duration = Duration::from_millis(500);

/// A sidecar reports for the first time right after its first validation. Until this long after the revoke such a
/// report may be in transit, and a device whose known sidecars have all stopped is not reported as stopped.
const REPORTED: Duration = Duration::from_secs(1);

/// The minimum time between two queries. The pause is also at least twice the duration of the last query, so that a
/// large fleet is not polled without a pause.
const GAP: Duration = Duration::from_millis(100);

/// The interval of queries about open devices while the authority sends news: the passing of time changes their state,
/// too.
const WATCHED: Duration = Duration::from_secs(5);

/// The interval without news; the pause is also at least four times the duration of the last query.
const UNWATCHED: Duration = Duration::from_secs(1);

/// Leases end slightly later than announced.
const ROUNDED: Duration = Duration::from_millis(50);

/// If more ids than this are wanted, and all devices are waited for, the query asks for all devices.
const MANY: usize = 500;

/// The devices of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AgendaQuery {
    /// Every revoked device.
    All,
    These(BTreeSet<String>),
}

/// The schedule. Times are counted from the revoke.
#[derive(Debug)]
pub(super) struct Agenda {
    targets: Targets,
    known: BTreeMap<String, Known>,
    /// When the last answered query about all devices began.
    everything_at: Option<Duration>,
    /// When a query was last answered or failed, and how long it took.
    looked: Option<(Duration, Duration)>,
    /// Whether the authority sends news; `None` while that is unknown.
    watching: Option<bool>,
    /// The devices to query again.
    stale: BTreeSet<String>,
    all_stale: bool,
}

#[derive(Debug)]
struct Known {
    device: FleetDevice,
    at: Duration,
}

impl Agenda {
    pub(super) fn new(targets: &Targets) -> Self {
        Self {
            targets: targets.clone(),
            known: BTreeMap::new(),
            everything_at: None,
            looked: None,
            watching: None,
            stale: BTreeSet::new(),
            all_stale: false,
        }
    }

    /// The authority sent news, or the stream was lost.
    pub(super) fn heard(&mut self, news: News) {
        match news {
            // Earlier changes were not told.
            News::Watching => (self.watching, self.all_stale) = (Some(true), true),
            News::Everything => self.all_stale = true,
            News::Changed(ids) => self.stale.extend(ids),
            News::Lost => self.watching = Some(false),
        }
    }

    /// The next query and its time.
    pub(super) fn next(&self, waited: Duration) -> (Duration, AgendaQuery) {
        let took = self.looked.map_or(Duration::ZERO, |(_, took)| took);
        let earliest = self.looked.map_or(Duration::ZERO, |(at, took)| at + GAP.max(took * 2));
        if self.everything_at.is_none() {
            let first = if self.watching.is_none() && self.looked.is_none() { OPENED } else { earliest };
            return (first, self.everything());
        }
        if self.all_stale {
            return (earliest, self.everything());
        }
        let followed = self.followed(waited);
        let open: BTreeSet<String> =
            followed.iter().filter(|one| !one.progress.is_settled()).map(|one| one.id.clone()).collect();
        if open.is_empty() {
            return (REPORTED.max(earliest), self.everything());
        }
        let stale: BTreeSet<String> = self.stale.intersection(&open).cloned().collect();
        if !stale.is_empty() {
            return (earliest, AgendaQuery::These(stale));
        }
        let pause = if self.watching == Some(true) { WATCHED } else { UNWATCHED.max(took * 4) };
        let by_itself = followed.iter().filter_map(|one| self.changes_by_itself(one)).filter(|at| *at > waited).min();
        let again = self.looked.map_or(Duration::ZERO, |(at, _)| at) + pause;
        let at = by_itself.map_or(again, |at| again.min(at)).max(earliest);
        (at, if open.len() > MANY { self.everything() } else { AgendaQuery::These(open) })
    }

    /// The time at which a device's progress changes without an event.
    fn changes_by_itself(&self, one: &Followed) -> Option<Duration> {
        match one.progress {
            DeviceProgress::NotKnownYet => Some(progress::SETTLE),
            DeviceProgress::NotHeardFrom => {
                let known = self.known.get(&one.id)?;
                let pending = known.device.sidecars.iter().filter_map(|sidecar| sidecar.stop.as_ref());
                let ends = pending.filter(|stop| stop.state == StopState::Pending);
                ends.map(|stop| known.at + Duration::from_millis(stop.in_ms) + ROUNDED).min()
            }
            DeviceProgress::Stopped
            | DeviceProgress::Unused
            | DeviceProgress::OutsideLeft
            | DeviceProgress::Lapsed
            | DeviceProgress::Stopping
            | DeviceProgress::Unproven
            | DeviceProgress::Contradictory
            | DeviceProgress::Unreported
            | DeviceProgress::NoLongerRevoked => None,
        }
    }

    /// The answer to a query that began at `began`.
    pub(super) fn answered(&mut self, look: &AgendaQuery, began: Duration, now: Duration, devices: Vec<FleetDevice>) {
        let everything = *look == self.everything();
        if everything {
            self.known.clear();
            self.everything_at = Some(began);
            self.all_stale = false;
            self.stale.clear();
        }
        if let AgendaQuery::These(ids) = look {
            for id in ids {
                self.known.remove(id);
                self.stale.remove(id);
            }
        }
        let wanted = |device: &FleetDevice| match (look, &self.targets) {
            (AgendaQuery::These(ids), _) | (AgendaQuery::All, Targets::These(ids)) => ids.contains(&device.device_id),
            (AgendaQuery::All, Targets::AllRevoked) => true,
        };
        let known =
            devices.into_iter().filter(wanted).map(|device| (device.device_id.clone(), Known { device, at: now }));
        self.known.extend(known);
        self.looked = Some((now, now.saturating_sub(began)));
    }

    /// A query failed.
    pub(super) fn failed(&mut self, began: Duration, now: Duration) {
        // Not repeated at once: a server that cannot answer is not helped by another query.
        self.looked = Some((now, now.saturating_sub(began).max(GAP * 3)));
    }

    /// Whether the state of all devices is known.
    pub(super) fn is_known(&self) -> bool {
        self.everything_at.is_some()
    }

    /// The progress of all devices.
    pub(super) fn followed(&self, waited: Duration) -> Vec<Followed> {
        let devices = self.known.values().map(|known| known.device.clone()).collect();
        progress::judge(&self.targets, devices, waited)
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_over(&self, followed: &[Followed]) -> bool {
        let looked = self.everything_at.is_some_and(|at| at >= REPORTED);
        looked && !self.all_stale && followed.iter().all(|one| one.progress.is_settled())
    }

    fn everything(&self) -> AgendaQuery {
        match &self.targets {
            Targets::AllRevoked => AgendaQuery::All,
            Targets::These(ids) => AgendaQuery::These(ids.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::tests::device;
    use super::*;
    use StopState::{Confirmed, Pending, Stopping};

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn these(some: &[&str]) -> AgendaQuery {
        AgendaQuery::These(ids(some))
    }

    /// A schedule that waits for `a`, `b` and `c`, whose first query (at 200 ms) found these states.
    fn agenda(states: [StopState; 3]) -> Agenda {
        let mut agenda = Agenda::new(&Targets::These(ids(&["a", "b", "c"])));
        assert_eq!(agenda.next(at(0)), (OPENED, these(&["a", "b", "c"])), "the stream first, if it comes soon");
        agenda.heard(News::Watching);
        assert_eq!(agenda.next(at(150)).0, at(0));
        let found = ["a", "b", "c"].iter().zip(states).map(|(id, state)| device(id, Some(1), &[state])).collect();
        agenda.answered(&these(&["a", "b", "c"]), at(200), at(210), found);
        agenda
    }

    #[test]
    fn only_what_changed_and_is_open_is_asked_about() {
        let mut agenda = agenda([Confirmed, Stopping, Stopping]);
        assert_eq!(agenda.next(at(300)), (at(210) + WATCHED, these(&["b", "c"])));
        agenda.heard(News::Changed(ids(&["x", "a"])));
        assert_eq!(agenda.next(at(300)).0, at(210) + WATCHED, "the wait is not about these");
        agenda.heard(News::Changed(ids(&["b", "x"])));
        assert_eq!(agenda.next(at(300)), (at(310), these(&["b"])));
        agenda.answered(&these(&["b"]), at(310), at(320), vec![device("b", Some(1), &[Confirmed])]);
        assert_eq!(agenda.next(at(400)), (at(320) + WATCHED, these(&["c"])));
    }

    #[test]
    fn a_wait_ends_after_one_more_look_at_everything() {
        let mut agenda = agenda([Confirmed; 3]);
        let followed = agenda.followed(at(300));
        assert!(!agenda.is_over(&followed), "a first report may be under way");
        let (when, look) = agenda.next(at(300));
        assert_eq!((when, &look), (REPORTED, &these(&["a", "b", "c"])));
        let mut found: Vec<_> = ["a", "b"].iter().map(|id| device(id, Some(1), &[Confirmed])).collect();
        // Another sidecar uses it as well, which had not reported before.
        found.push(device("c", Some(1), &[Confirmed, Pending]));
        agenda.answered(&look, at(1_000), at(1_010), found);
        let followed = agenda.followed(at(1_010));
        assert!(!agenda.is_over(&followed), "{followed:?}");
        agenda.heard(News::Changed(ids(&["c"])));
        agenda.answered(&these(&["c"]), at(1_200), at(1_210), vec![device("c", Some(1), &[Confirmed, Confirmed])]);
        assert!(agenda.is_over(&agenda.followed(at(1_210))));
    }

    #[test]
    fn what_the_stream_missed_is_asked_for() {
        let mut agenda = agenda([Stopping; 3]);
        agenda.heard(News::Lost);
        assert_eq!(agenda.next(at(300)), (at(210) + UNWATCHED, these(&["a", "b", "c"])), "slower than events, and all");
        agenda.heard(News::Watching);
        assert_eq!(agenda.next(at(300)), (at(310), these(&["a", "b", "c"])));
        agenda.answered(&these(&["a", "b", "c"]), at(310), at(2_310), Vec::new());
        agenda.heard(News::Everything);
        assert_eq!(agenda.next(at(2_400)).0, at(6_310), "a look that takes long is not taken all the time");
    }

    #[test]
    fn the_end_of_a_lease_and_late_notes_are_looked_for_when_they_are_due() {
        let mut agenda = Agenda::new(&Targets::These(ids(&["a"])));
        agenda.heard(News::Watching);
        let mut silent = device("a", Some(1), &[Pending]);
        silent.sidecars[0].stop.as_mut().unwrap().in_ms = 2_000;
        agenda.answered(&these(&["a"]), at(0), at(10), vec![silent]);
        assert_eq!(agenda.next(at(20)), (at(2_060), these(&["a"])));
        agenda.answered(&these(&["a"]), at(30), at(40), vec![device("a", Some(1), &[])]);
        assert_eq!(agenda.next(at(50)), (progress::SETTLE, these(&["a"])));
    }

    #[test]
    fn of_a_whole_fleet_those_that_are_no_longer_revoked_are_not_waited_for() {
        let mut agenda = Agenda::new(&Targets::AllRevoked);
        agenda.heard(News::Lost);
        assert_eq!(agenda.next(at(0)), (at(0), AgendaQuery::All));
        let found = ["a", "b"].iter().map(|id| device(id, Some(1), &[Stopping])).collect();
        agenda.answered(&AgendaQuery::All, at(1_000), at(1_000), found);
        agenda.answered(&these(&["a", "b"]), at(2_000), at(2_000), vec![device("b", Some(1), &[Confirmed])]);
        let followed = agenda.followed(at(2_000));
        assert_eq!((followed.len(), agenda.is_over(&followed)), (1, true), "{followed:?}");
    }

    #[test]
    fn an_authority_that_cannot_answer_is_asked_again_a_little_later() {
        let mut agenda = Agenda::new(&Targets::AllRevoked);
        agenda.heard(News::Lost);
        agenda.failed(at(10), at(20));
        assert_eq!(agenda.next(at(20)), (at(620), AgendaQuery::All));
    }
}
