//! How often a device may be hinted. Pure.
//!
//! An operator changes a device's mind a few times in a row; a stream that says more is broken or lies, and must not turn
//! this host into a flood of validations. A hint over the budget is not lost: it comes when there is budget again, once.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::BootTime;
use crate::protocol::DeviceId;

/// One hint in this time, in the long run.
const PERIOD: Duration = Duration::from_millis(500);
/// Hints at once, before that.
const BURST: u32 = 4;

/// When a hint is acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    Later,
}

/// The budgets of all devices.
#[derive(Debug, Default)]
pub(super) struct Budget {
    devices: HashMap<DeviceId, Spent>,
}

#[derive(Debug)]
struct Spent {
    /// Until then everything allowed has been used, but for the burst.
    until: BootTime,
    /// A hint that waits.
    waiting: bool,
}

impl Spent {
    fn free_at(&self) -> BootTime {
        self.until - PERIOD * (BURST - 1)
    }

    fn spend(&mut self, now: BootTime) {
        self.until = self.until.max(now) + PERIOD;
        self.waiting = false;
    }
}

impl Budget {
    /// A hint for a device came.
    pub(super) fn ask(&mut self, now: BootTime, device: &DeviceId) -> Turn {
        if !self.devices.contains_key(device) {
            // Whoever has its whole budget again need not be remembered.
            self.devices.retain(|_, spent| spent.waiting || spent.until > now);
        }
        let spent = self.devices.entry(device.clone()).or_insert(Spent { until: now, waiting: false });
        if spent.free_at() <= now {
            spent.spend(now);
            return Turn::Now;
        }
        spent.waiting = true;
        Turn::Later
    }

    /// When the next waiting hint may go.
    pub(super) fn next_due(&self) -> Option<BootTime> {
        self.devices.values().filter(|spent| spent.waiting).map(Spent::free_at).min()
    }

    /// The devices whose waiting hints may go now.
    pub(super) fn due(&mut self, now: BootTime) -> Vec<DeviceId> {
        let mut due = Vec::new();
        for (device, spent) in &mut self.devices {
            if spent.waiting && spent.free_at() <= now {
                spent.spend(now);
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
        let (mut budget, now) = (Budget::default(), BootTime::from_millis(1_000_000));
        for _ in 0..BURST {
            assert_eq!(budget.ask(now, &id("a")), Turn::Now);
        }
        assert_eq!(budget.ask(now, &id("a")), Turn::Later);
        assert_eq!(budget.ask(now, &id("a")), Turn::Later);
        assert_eq!(budget.ask(now, &id("b")), Turn::Now, "each has its own");
        assert_eq!(budget.next_due(), Some(now + PERIOD));
        assert!(budget.due(now).is_empty());
        assert_eq!(budget.due(now + PERIOD), [id("a")]);
        assert_eq!((budget.next_due(), budget.due(now + PERIOD * 9).len()), (None, 0));
    }

    proptest! {
        #[test]
        fn a_flood_costs_no_more_than_the_budget_and_its_last_hint_is_acted_on(
            gaps in proptest::collection::vec(0_u64..400, 1..300),
        ) {
            let (mut budget, device, start) = (Budget::default(), id("a"), BootTime::from_millis(5_000_000));
            let (mut now, mut acted, mut last_acted) = (start, 0_u32, start);
            for gap in gaps {
                now = now + Duration::from_millis(gap);
                let due = budget.due(now).len();
                let turn = budget.ask(now, &device);
                let here = u32::try_from(due).unwrap() + u32::from(turn == Turn::Now);
                if here > 0 {
                    (acted, last_acted) = (acted + here, now);
                }
                let most = BURST + u32::try_from(now.saturating_since(start).as_millis() / PERIOD.as_millis()).unwrap();
                prop_assert!(acted <= most, "{acted} in {:?}", now.saturating_since(start));
            }
            let settled = last_acted == now || budget.next_due().is_some_and(|at| at <= now + PERIOD);
            prop_assert!(settled);
        }
    }
}
