//! Warnings that may occur thousands of times, such as those of a failing database: logged at most once a minute, with
//! the number of suppressed ones. Frequent events are counted by the metrics; the log is for people.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use machineid_clock::BootTime;

/// The minimum time between two lines.
const MINUTE: Duration = Duration::from_mins(1);

/// The state of one such warning.
#[derive(Debug)]
pub(super) struct Repeated(Mutex<Said>);

#[derive(Debug)]
struct Said {
    at: Option<BootTime>,
    unsaid: u64,
}

impl Repeated {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Said { at: None, unsaid: 0 }))
    }

    /// Whether to log now; if so, the number of suppressed warnings since the last line.
    pub(super) fn turn(&self, now: BootTime) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.at.is_some_and(|at| now.saturating_since(at) < MINUTE) {
            said.unsaid += 1;
            return None;
        }
        said.at = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

/// Logs like [`tracing::warn`] and [`tracing::error`], at most once a minute for each call site; `repeated` is the
/// number of suppressed lines in between.
macro_rules! rarely {
    ($level:ident, $($event:tt)*) => {{
        static REPEATED: $crate::repeated::Repeated = $crate::repeated::Repeated::new();
        if let Some(repeated) = REPEATED.turn(machineid_clock::BootTime::now()) {
            // The first line has no suppressed ones.
            let repeated = (repeated > 0).then_some(repeated);
            tracing::$level!(repeated, $($event)*);
        }
    }};
}

pub(crate) use rarely;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_said_once_a_minute_with_how_often_it_was_not() {
        let (warning, start) = (Repeated::new(), BootTime::from_millis(1_000_000));
        let turn = |seconds| warning.turn(start + Duration::from_secs(seconds));
        assert_eq!(
            [turn(0), turn(0), turn(59), turn(60), turn(61), turn(500)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
