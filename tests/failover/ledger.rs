//! What was promised about each device, and every promise that was broken.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::harness::wait::clock;
use crate::member::device;
use crate::plan::Order;

/// What is known about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may run.
    Active,
    /// Its revoke was answered then. No validation that begins later is an ALLOW.
    Revoked { answered: Instant },
    /// An order about it is under way, or was not answered: it may have been carried out or not.
    InDoubt(Order),
}

/// A standing, and how many there were before: two equal ones mean that nothing was ordered in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) standing: Standing,
    version: u64,
}

pub(crate) struct Ledger {
    began: Instant,
    promises: Mutex<Vec<Promise>>,
    /// The reasons of all orders that were answered.
    answered: Mutex<Vec<String>>,
    broken: Mutex<Vec<String>>,
    /// Until then an authority cannot know better: what it validates before is not held against it.
    excused: Mutex<Option<Instant>>,
}

impl Ledger {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            began: clock(),
            promises: Mutex::new(vec![Promise { standing: Standing::Active, version: 0 }; members]),
            answered: Mutex::default(),
            broken: Mutex::default(),
            excused: Mutex::default(),
        }
    }

    pub(crate) fn promise(&self, member: usize) -> Promise {
        self.promises()[member]
    }

    /// The members with an answered revoke.
    pub(crate) fn revoked(&self) -> Vec<usize> {
        let is_revoked = |promise: &Promise| matches!(promise.standing, Standing::Revoked { .. });
        self.promises().iter().enumerate().filter(|(_, promise)| is_revoked(promise)).map(|(at, _)| at).collect()
    }

    /// The members in doubt, with what was ordered.
    pub(crate) fn in_doubt(&self) -> Vec<(usize, Order)> {
        let doubtful = |(at, promise): (usize, &Promise)| match promise.standing {
            Standing::InDoubt(order) => Some((at, order)),
            Standing::Active | Standing::Revoked { .. } => None,
        };
        self.promises().iter().enumerate().filter_map(doubtful).collect()
    }

    /// An order is about to be given.
    pub(crate) fn begins(&self, member: usize, order: Order) {
        self.set(member, Standing::InDoubt(order));
    }

    /// An order was answered.
    pub(crate) fn was_answered(&self, member: usize, order: Order, reason: &str) {
        self.answered.lock().unwrap().push(reason.to_owned());
        self.set(
            member,
            match order {
                Order::Revoke => Standing::Revoked { answered: clock() },
                Order::Restore => Standing::Active,
            },
        );
    }

    /// The reasons of all orders that were answered.
    pub(crate) fn answered(&self) -> Vec<String> {
        self.answered.lock().unwrap().clone()
    }

    /// Validations that begin before then are not looked at.
    pub(crate) fn excuse_until(&self, then: Option<Instant>) {
        *self.excused.lock().unwrap() = then;
    }

    /// Whether a validation that begins now is not looked at.
    pub(crate) fn excuses(&self) -> bool {
        self.excused.lock().unwrap().is_some_and(|then| clock() < then)
    }

    /// A promise was broken.
    pub(crate) fn broken(&self, what: &str) {
        self.say(&format!("BROKEN: {what}"));
        self.broken.lock().unwrap().push(what.to_owned());
    }

    /// The same promise was broken for several devices, of which each says how.
    pub(crate) fn broken_for(&self, what: &str, each: &[(usize, String)]) {
        let Some((_, first)) = each.first() else { return };
        let devices: Vec<String> = each.iter().map(|(member, _)| device(*member)).collect();
        self.broken(&format!("{what}: {} ({}), the first one: {first}", devices.len(), devices.join(" ")));
    }

    /// All broken promises.
    pub(crate) fn all_broken(&self) -> Vec<String> {
        self.broken.lock().unwrap().clone()
    }

    /// Prints a line with its time.
    #[expect(clippy::print_stdout, reason = "a run reports on its standard output")]
    pub(crate) fn say(&self, what: &str) {
        println!("{:8.2} s  {what}", clock().duration_since(self.began).as_secs_f64());
    }

    fn set(&self, member: usize, standing: Standing) {
        let promise = &mut self.promises()[member];
        *promise = Promise { standing, version: promise.version + 1 };
    }

    fn promises(&self) -> MutexGuard<'_, Vec<Promise>> {
        self.promises.lock().unwrap()
    }
}
