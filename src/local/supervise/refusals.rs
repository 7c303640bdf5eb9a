//! Limits the refusals in the log: a refused client may ask again a thousand times a second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use machineid_clock::BootTime;

/// The most refusals of one user that are logged within a period.
const TOLD: u64 = 10;
const PERIOD: Duration = Duration::from_secs(10);
/// Users that are counted separately. Refusals of further users are not logged until a place is free: made-up users, as in a
/// container, must not fill the memory.
const MOST_USERS: usize = 256;

/// Recent refusals, counted separately for each user, so that one user's refusals do not hide another's.
#[derive(Debug, Default)]
pub(in crate::local) struct Refusals(Mutex<HashMap<u32, Period>>);

#[derive(Debug)]
struct Period {
    began: BootTime,
    refused: u64,
}

impl Refusals {
    /// Counts a refusal of this user. If it is to be logged, returns the number of the user's refusals that were left out
    /// since the last period.
    pub(super) fn count(&self, now: BootTime, uid: u32) -> Option<u64> {
        let mut periods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if periods.len() >= MOST_USERS && !periods.contains_key(&uid) {
            periods.retain(|_, period| now < period.began + PERIOD);
            if periods.len() >= MOST_USERS {
                return None;
            }
        }
        let period = periods.entry(uid).or_insert(Period { began: now, refused: 0 });
        let mut left_out = 0;
        if now >= period.began + PERIOD {
            left_out = period.refused.saturating_sub(TOLD);
            *period = Period { began: now, refused: 0 };
        }
        period.refused += 1;
        (period.refused <= TOLD).then_some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    #[test]
    fn a_flood_is_ten_lines_in_ten_seconds_and_says_how_much_was_left_out() {
        let refusals = Refusals::default();
        let told = |from: u64| (from..from + 1000).filter_map(|now| refusals.count(at(now), 1000)).collect::<Vec<_>>();
        assert_eq!(told(5_000), [0; 10]);
        assert_eq!(refusals.count(at(6_000), 1001), Some(0), "another user's");
        let mut expected = [0; 10];
        expected[0] = 990;
        assert_eq!(told(15_000), expected);
        assert_eq!(refusals.count(at(60_000), 1000), Some(990));
        assert_eq!(refusals.count(at(80_000), 1000), Some(0));
    }

    #[test]
    fn however_many_users_there_are_the_memory_is_bounded() {
        let refusals = Refusals::default();
        let told = (0..10_000).filter(|uid| refusals.count(at(1), *uid).is_some()).count();
        assert_eq!((told, refusals.0.lock().unwrap().len()), (MOST_USERS, MOST_USERS));
        assert_eq!(refusals.count(at(20_000), 10_000), Some(0), "the places are free again");
    }
}
