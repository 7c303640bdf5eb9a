//! Limits how often hints make a device validate. Pure.
//!
//! An operator changes a device a few times in a row. A stream that sends more is broken or malicious, and must not make this
//! host flood the authority with validations. A hint over the budget is not lost: it is acted on once, when the budget
//! permits.
//!
//! Hints about a deny have a separate budget, so that no number of other changes delays a revoke; it refills as fast as a
//! gate validates anyway. The mark is not trusted: a sender that marks every hint as a deny gets [`DENY`]'s rate of
//! validations, and nothing else.

use std::collections::HashMap;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::DeviceId;

use super::hint::HintKind;

/// The rate at which hints are acted on.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// The long-term rate is one hint per period.
    period: Duration,
    /// The number of hints that may come at once.
    burst: u32,
}

/// The rate of hints without a mark.
const CHANGE: Rate = Rate { period: Duration::from_millis(500), burst: 4 };
/// The rate of hints about a deny. The period is the least time between two validations that askers cause.
const DENY: Rate = Rate { period: Duration::from_millis(50), burst: 16 };

/// When a hint is acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HintTiming {
    Now,
    Later,
}

/// The budgets of all devices.
#[derive(Debug, Default)]
pub(super) struct HintBudget {
    devices: HashMap<DeviceId, Budgets>,
}

/// The two budgets of a device.
#[derive(Debug)]
struct Budgets {
    change: Spent,
    deny: Spent,
}

#[derive(Debug)]
struct Spent {
    rate: Rate,
    /// Until then the budget is used up, except for the burst.
    until: BootTime,
    /// A hint that waits.
    waiting: bool,
}

impl Spent {
    fn nothing(rate: Rate, now: BootTime) -> Self {
        Self { rate, until: now, waiting: false }
    }

    fn free_at(&self) -> BootTime {
        self.until - self.rate.period * (self.rate.burst - 1)
    }

    fn spend(&mut self, now: BootTime) {
        self.until = self.until.max(now) + self.rate.period;
    }

    /// When the waiting hint may be acted on.
    fn due(&self) -> Option<BootTime> {
        self.waiting.then(|| self.free_at())
    }
}

impl Budgets {
    /// Notes that the device is validated now, which answers every waiting hint.
    fn settle(&mut self) {
        self.change.waiting = false;
        self.deny.waiting = false;
    }

    fn due(&self) -> Option<BootTime> {
        [self.change.due(), self.deny.due()].into_iter().flatten().min()
    }

    /// Whether both budgets are full again.
    fn is_idle(&self, now: BootTime) -> bool {
        [&self.change, &self.deny].into_iter().all(|spent| !spent.waiting && spent.until <= now)
    }
}

impl HintBudget {
    /// Handles a hint for a device.
    pub(super) fn ask(&mut self, now: BootTime, device: &DeviceId, why: HintKind) -> HintTiming {
        if !self.devices.contains_key(device) {
            // A full budget need not be remembered.
            self.devices.retain(|_, budgets| !budgets.is_idle(now));
        }
        let fresh = || Budgets { change: Spent::nothing(CHANGE, now), deny: Spent::nothing(DENY, now) };
        let budgets = self.devices.entry(device.clone()).or_insert_with(fresh);
        let spent = match why {
            HintKind::Change => &mut budgets.change,
            HintKind::Deny => &mut budgets.deny,
        };
        if spent.free_at() <= now {
            spent.spend(now);
            budgets.settle();
            return HintTiming::Now;
        }
        spent.waiting = true;
        HintTiming::Later
    }

    /// When the next waiting hint may be acted on.
    pub(super) fn next_due(&self) -> Option<BootTime> {
        self.devices.values().filter_map(Budgets::due).min()
    }

    /// The devices whose waiting hints may be acted on now.
    pub(super) fn due(&mut self, now: BootTime) -> Vec<DeviceId> {
        let mut due = Vec::new();
        for (device, budgets) in &mut self.devices {
            let mut goes = false;
            for spent in [&mut budgets.change, &mut budgets.deny] {
                if spent.due().is_some_and(|at| at <= now) {
                    spent.spend(now);
                    goes = true;
                }
            }
            if goes {
                budgets.settle();
                due.push(device.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> DeviceId {
        text.parse().unwrap()
    }

    #[test]
    fn a_few_at_once_and_then_one_each_period_and_none_is_lost() {
        for (why, rate) in [(HintKind::Change, CHANGE), (HintKind::Deny, DENY)] {
            let (mut budget, now) = (HintBudget::default(), BootTime::from_millis(1_000_000));
            for _ in 0..rate.burst {
                assert_eq!(budget.ask(now, &id("a"), why), HintTiming::Now);
            }
            assert_eq!(budget.ask(now, &id("a"), why), HintTiming::Later);
            assert_eq!(budget.ask(now, &id("a"), why), HintTiming::Later);
            assert_eq!(budget.ask(now, &id("b"), why), HintTiming::Now, "each has its own");
            assert_eq!(budget.next_due(), Some(now + rate.period));
            assert!(budget.due(now).is_empty());
            assert_eq!(budget.due(now + rate.period), [id("a")]);
            assert_eq!((budget.next_due(), budget.due(now + rate.period * 9).len()), (None, 0));
        }
    }

    #[test]
    fn no_number_of_other_changes_makes_a_deny_wait() {
        let (mut budget, now) = (HintBudget::default(), BootTime::from_millis(1_000_000));
        for _ in 0..1_000 {
            budget.ask(now, &id("a"), HintKind::Change);
        }
        assert_eq!(budget.ask(now, &id("a"), HintKind::Deny), HintTiming::Now);
        assert_eq!(budget.next_due(), None, "the validation that began answers what waited as well");
    }

    #[test]
    fn an_operator_who_revokes_and_restores_as_fast_as_it_is_answered_never_waits_for_a_revoke() {
        let (mut budget, mut now) = (HintBudget::default(), BootTime::from_millis(1_000_000));
        for _ in 0..200 {
            assert_eq!(budget.ask(now, &id("a"), HintKind::Deny), HintTiming::Now);
            now = now + Duration::from_millis(30);
            budget.ask(now, &id("a"), HintKind::Change);
            now = now + Duration::from_millis(30);
        }
    }

    proptest! {
        #[test]
        fn a_flood_costs_no_more_than_the_budgets_and_its_last_hint_is_acted_on(
            hints in proptest::collection::vec((0_u64..400, any::<bool>()), 1..300),
        ) {
            let (mut budget, device, start) = (HintBudget::default(), id("a"), BootTime::from_millis(5_000_000));
            let (mut now, mut acted, mut last_acted) = (start, 0_u32, start);
            let (mut denies, mut last) = (0_u32, CHANGE);
            for (gap, deny) in hints {
                now = now + Duration::from_millis(gap);
                let due = budget.due(now).len();
                let (why, rate) = if deny { (HintKind::Deny, DENY) } else { (HintKind::Change, CHANGE) };
                (denies, last) = (denies + u32::from(deny), rate);
                let turn = budget.ask(now, &device, why);
                let here = u32::try_from(due).unwrap() + u32::from(turn == HintTiming::Now);
                if here > 0 {
                    (acted, last_acted) = (acted + here, now);
                }
                let passed = now.saturating_since(start).as_millis();
                let within = |rate: Rate| rate.burst + u32::try_from(passed / rate.period.as_millis()).unwrap();
                prop_assert!(acted <= within(CHANGE) + within(DENY).min(denies), "{acted} in {passed} ms");
            }
            let settled = last_acted == now || budget.next_due().is_some_and(|at| at <= now + last.period);
            prop_assert!(settled);
        }
    }
}
