//! Processor time. What work costs the host is measured by it: time that passes also counts what other processes take.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A point on the clock of the processor time that the calling thread has used.
#[derive(Clone, Copy, Debug)]
pub struct ThreadTime {
    used: Duration,
}

impl ThreadTime {
    /// Reads the clock.
    #[must_use]
    pub fn now() -> Self {
        let used = clock_gettime(ClockId::ThreadCPUTime);
        Self { used: Duration::try_from(used).unwrap_or_default() }
    }

    /// The processor time that the calling thread, which must be the one that made this point, has used since.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().used.saturating_sub(self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_passes_without_work_does_not_count() {
        let (began, passed) = (ThreadTime::now(), crate::BootTime::now());
        std::thread::sleep(Duration::from_millis(50));
        let used = began.elapsed();
        assert!(used < crate::BootTime::now().saturating_since(passed) / 2, "{used:?}");
        let began = ThreadTime::now();
        while began.elapsed() < Duration::from_millis(1) {}
    }
}
