//! What a look may cost: time, and entries of directories. A process may have a million descriptors.

use machineid_clock::BootTime;

/// How many entries are read between two looks at the clock.
const BETWEEN_CLOCKS: usize = 64;

/// The rest of what a look may cost.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    until: BootTime,
    entries: usize,
    of_one: usize,
    clock: fn() -> BootTime,
    to_clock: usize,
}

impl Budget {
    /// A budget until this time, of this many entries, on this clock. At most an eighth of the entries is for one process: one
    /// that holds more must not keep the looks from the others for ever.
    #[must_use]
    pub const fn new(until: BootTime, entries: usize, clock: fn() -> BootTime) -> Self {
        Self { until, entries, of_one: entries / 8, clock, to_clock: 0 }
    }

    /// Reads one process with its part of the budget.
    pub(super) fn for_one<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.entries;
        self.entries = before.min(self.of_one);
        let part = self.entries;
        let done = work(self);
        self.entries = if (self.clock)() >= self.until { 0 } else { before - (part - self.entries) };
        done
    }

    /// Takes one entry; `false` when nothing is left.
    pub fn take(&mut self) -> bool {
        if self.to_clock == 0 && (self.clock)() >= self.until {
            self.entries = 0;
        }
        self.to_clock = (self.to_clock + 1) % BETWEEN_CLOCKS;
        match self.entries.checked_sub(1) {
            Some(left) => {
                self.entries = left;
                true
            }
            None => false,
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.entries == 0 || (self.clock)() >= self.until
    }
}
