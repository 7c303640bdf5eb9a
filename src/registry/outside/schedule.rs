//! When to look. Pure.
//!
//! Looks follow a start, and then each other at the interval. The processor time of a look decides how long the next one waits: so
//! the looks have at most a thousandth of a core, whatever the host has of processes and sockets. Between them, whether the helpers
//! that are known still live is refreshed: that costs one small file a helper.

use std::time::Duration;

use machineid_clock::BootTime;

/// How long after a start the looks come. Most agents connect to what they use within a second.
const AFTER_START: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// After a look, the next one at the interval waits this many times as long as the look took.
const SHARE: u32 = 1000;
/// The same for looks that follow a start: they are few.
const SHARE_AFTER_START: u32 = 20;
/// The longest such waits.
const LONGEST: Duration = Duration::from_mins(5);
const LONGEST_AFTER_START: Duration = Duration::from_secs(5);

/// The shortest time between two looks at the interval.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest time until a helper that has ended is no longer named.
const REFRESH: Duration = Duration::from_secs(5);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// A look at what the trees are connected to.
    Look,
    /// Forgetting the helpers that have ended.
    Refresh,
}

/// When the next looks are due.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    /// Looks that follow starts, in order.
    soon: Vec<BootTime>,
    /// The next look at the interval; `None` while there is nothing to look at.
    regular: Option<BootTime>,
    /// The next refresh; `None` while there is nothing to refresh.
    refresh: Option<BootTime>,
    /// No look that follows a start comes before.
    not_before: BootTime,
}

impl Schedule {
    /// Notes the start of an agent.
    pub(super) fn started(&mut self, now: BootTime) {
        // Starts that come together share their looks.
        self.soon.extend(AFTER_START.map(|after| now + after));
        self.soon.sort_unstable();
        self.soon.dedup_by_key(|at| at.as_millis() / 100);
        self.regular = self.regular.or(Some(now + SHORTEST));
    }

    /// What is due next, and when. A look refreshes too.
    pub(super) fn due(&self) -> Option<(BootTime, Task)> {
        let soon = self.soon.first().map(|at| (*at).max(self.not_before));
        let look = soon.into_iter().chain(self.regular).min();
        match (look, self.refresh) {
            (Some(look), Some(refresh)) if refresh < look => Some((refresh, Task::Refresh)),
            (Some(look), _) => Some((look, Task::Look)),
            (None, refresh) => refresh.map(|refresh| (refresh, Task::Refresh)),
        }
    }

    /// Notes that a look at everything ended now, and the processor time that it used. `goes_on`: there is something to look at.
    pub(super) fn looked(&mut self, now: BootTime, used: Duration, interval: Duration, goes_on: bool) {
        self.soon.retain(|at| *at > now);
        self.not_before = now + (used * SHARE_AFTER_START).min(LONGEST_AFTER_START);
        self.regular = Some(now + interval.max(SHORTEST).max((used * SHARE).min(LONGEST)));
        self.refreshed(now, interval, goes_on);
    }

    /// The same of a refresh.
    pub(super) fn refreshed(&mut self, now: BootTime, interval: Duration, goes_on: bool) {
        self.refresh = goes_on.then(|| now + interval.clamp(SHORTEST, REFRESH));
        if !goes_on {
            self.regular = None;
            self.soon.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    const QUICK: Duration = Duration::from_millis(1);
    const INTERVAL: Duration = Duration::from_secs(4);

    #[test]
    fn looks_follow_a_start_and_then_the_interval() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.due(), None);
        schedule.started(at(0));
        for (due, next) in [(300, 1000), (1000, 3000), (3000, 7000), (7000, 11_000)] {
            assert_eq!(schedule.due(), Some((at(due), Task::Look)));
            schedule.looked(at(due), QUICK, INTERVAL, true);
            assert_eq!(schedule.due(), Some((at(next), Task::Look)));
        }
        schedule.looked(at(11_000), QUICK, INTERVAL, false);
        assert_eq!(schedule.due(), None, "nothing is left to look at");
    }

    #[test]
    fn looks_that_take_long_come_seldom() {
        let mut schedule = Schedule::default();
        schedule.started(at(0));
        schedule.looked(at(300), Duration::from_millis(100), INTERVAL, true);
        assert_eq!(schedule.due(), Some((at(300 + 2000), Task::Look)), "a start has a share of its own");
        let next_look = |mut schedule: Schedule| loop {
            match schedule.due().unwrap() {
                (due, Task::Look) => break due,
                (due, Task::Refresh) => schedule.refreshed(due, INTERVAL, true),
            }
        };
        schedule.looked(at(3000), Duration::from_millis(100), INTERVAL, true);
        assert_eq!(next_look(schedule.clone()), at(3000 + 100_000));
        schedule.looked(at(3000), Duration::from_secs(9), INTERVAL, true);
        assert_eq!(next_look(schedule), at(3000) + LONGEST);
    }

    #[test]
    fn however_seldom_the_looks_a_helper_that_ended_is_soon_forgotten() {
        let mut schedule = Schedule::default();
        schedule.started(at(0));
        schedule.looked(at(3000), Duration::from_secs(9), Duration::from_hours(1), true);
        assert_eq!(schedule.due(), Some((at(3000) + REFRESH, Task::Refresh)));
        schedule.refreshed(at(8000), Duration::from_secs(2), true);
        assert_eq!(schedule.due(), Some((at(10_000), Task::Refresh)), "no later than the interval");
        schedule.refreshed(at(10_000), INTERVAL, false);
        assert_eq!(schedule.due(), None, "nothing is left to look at");
    }

    #[test]
    fn a_thousand_starts_at_once_are_few_looks() {
        let mut schedule = Schedule::default();
        (0..1000).for_each(|millis| schedule.started(at(millis)));
        assert!(schedule.soon.len() <= 40, "{}", schedule.soon.len());
    }
}
