//! A budget of registrations: how many devices that are new to the authority each user may make known by starting agents.
//! Without one, a user who may only open the socket could fill the plan's places with names. Pure.
//!
//! Each user may register `per_hour` devices at once, and regains one each `1 h / per_hour`. A device is paid for once, however
//! often its registration is tried within an hour; one that the authority turns out to know is paid back.

use std::collections::HashMap;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::DeviceId;

const HOUR: Duration = Duration::from_hours(1);
/// Users that are counted at once. Further ones wait: made-up users, as in a container, must not fill the memory.
const MOST_USERS: usize = 1024;

/// The budgets of all users.
#[derive(Debug, Default)]
pub(super) struct RegistrationBudget {
    /// When each user's budget is whole again.
    whole_at: HashMap<u32, BootTime>,
    /// Devices that were paid for, with the price, until the authority tells whether they were new.
    paid: HashMap<DeviceId, Paid>,
}

#[derive(Debug)]
struct Paid {
    uid: u32,
    price: Duration,
    at: BootTime,
}

impl RegistrationBudget {
    /// Pays for a device. Fails with the time after which the user can pay. `per_hour` is the budget; 0 means no limit.
    pub(super) fn pay(&mut self, now: BootTime, uid: u32, device: &DeviceId, per_hour: u32) -> Result<(), Duration> {
        self.paid.retain(|_, paid| now < paid.at + HOUR);
        if per_hour == 0 || self.paid.contains_key(device) {
            return Ok(());
        }
        let price = HOUR / per_hour;
        if self.whole_at.len() >= MOST_USERS && !self.whole_at.contains_key(&uid) {
            self.whole_at.retain(|_, at| now < *at);
            if self.whole_at.len() >= MOST_USERS {
                return Err(price);
            }
        }
        let whole_at = self.whole_at.entry(uid).or_insert(now);
        let after = (*whole_at).max(now) + price;
        let owed = after.saturating_since(now);
        if owed > HOUR {
            return Err(owed.saturating_sub(HOUR));
        }
        *whole_at = after;
        self.paid.insert(device.clone(), Paid { uid, price, at: now });
        Ok(())
    }

    /// Notes that the authority has the device now. One that was not new is paid back.
    pub(super) fn registered(&mut self, now: BootTime, device: &DeviceId, was_new: bool) {
        let Some(Paid { uid, price, .. }) = self.paid.remove(device).filter(|_| !was_new) else { return };
        if let Some(whole_at) = self.whole_at.get_mut(&uid) {
            let owed = whole_at.saturating_since(now).saturating_sub(price);
            *whole_at = now + owed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_millis(seconds * 1000)
    }

    fn device(number: u64) -> DeviceId {
        format!("agent:{number}").parse().unwrap()
    }

    #[test]
    fn a_user_registers_so_many_at_once_and_then_one_at_a_time_and_no_other_user_waits() {
        let mut budget = RegistrationBudget::default();
        let mut paid = |now, uid, from: u64| {
            (from..from + 100).filter(|n| budget.pay(at(now), uid, &device(*n), 30).is_ok()).count()
        };
        assert_eq!((paid(10, 1, 0), paid(10, 2, 1000)), (30, 30));
        assert_eq!((paid(129, 1, 100), paid(130, 1, 200)), (0, 1));
        assert_eq!(paid(130 + 3600, 1, 300), 30, "whole again");
        assert_eq!(budget.pay(at(3730), 1, &device(999), 30), Err(Duration::from_mins(2)));
    }

    #[test]
    fn a_device_that_was_known_costs_nothing_and_one_that_is_tried_again_costs_once() {
        let mut budget = RegistrationBudget::default();
        for number in 0..100 {
            assert!(budget.pay(at(10), 1, &device(number), 2).is_ok(), "{number}");
            budget.registered(at(10), &device(number), false);
        }
        for _ in 0..100 {
            assert!(budget.pay(at(10), 1, &device(1), 2).is_ok());
        }
        budget.registered(at(10), &device(1), true);
        assert!(budget.pay(at(10), 1, &device(2), 2).is_ok());
        assert!(budget.pay(at(10), 1, &device(3), 2).is_err());
        assert!(budget.pay(at(10), 1, &device(4), 0).is_ok(), "no limit");
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut budget = RegistrationBudget::default();
        for uid in 0..10_000 {
            let _ = budget.pay(at(10), uid, &device(uid.into()), 30);
        }
        assert_eq!((budget.whole_at.len(), budget.paid.len()), (MOST_USERS, MOST_USERS));
        assert!(budget.pay(at(8000), 20_000, &device(20_000), 30).is_ok());
        assert_eq!((budget.whole_at.len(), budget.paid.len()), (1, 1));
    }

    proptest! {
        #[test]
        fn no_user_registers_more_than_twice_the_budget_within_an_hour(
            per_hour in 1_u32..50,
            steps in proptest::collection::vec((0_u64..600, any::<bool>()), 0..200),
        ) {
            let (mut budget, mut now, mut new) = (RegistrationBudget::default(), 10, Vec::new());
            for (number, (pause, was_new)) in steps.into_iter().enumerate() {
                now += pause;
                let device = device(number as u64);
                if budget.pay(at(now), 1, &device, per_hour).is_ok() {
                    budget.registered(at(now), &device, was_new);
                    if was_new {
                        new.push(now);
                    }
                }
                let within = new.iter().filter(|then| **then + 3600 > now).count();
                prop_assert!(within <= 2 * per_hour as usize, "{} of {}", within, per_hour);
            }
        }
    }
}
