//! The newest events, for those who listen and for those who come back. Pure: nothing waits here.

use std::collections::VecDeque;
use std::sync::Arc;

use machineid_clock::BootTime;
use machineid_protocol::event::Event;

/// Where an event stands in the order of this daemon's life. The first is 1.
pub(crate) type EventNumber = u64;

/// An event, and its time on the monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimedEvent {
    pub(crate) at: BootTime,
    pub(crate) event: Event,
}

/// A bounded buffer that each reader reads at its own pace: a slow reader misses the oldest events, and is told so.
#[derive(Debug)]
pub(crate) struct Ring {
    events: VecDeque<Arc<TimedEvent>>,
    /// The number of the oldest that is kept, or of the next when there is none.
    oldest: EventNumber,
    most: usize,
}

/// What is next for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RingRead {
    /// This event.
    Event(EventNumber, Arc<TimedEvent>),
    /// What it should have read next is no longer kept: it goes on with this number.
    Missed(EventNumber),
    /// Nothing yet.
    Nothing,
}

impl Ring {
    pub(crate) fn new(most: usize) -> Self {
        Self { events: VecDeque::new(), oldest: 1, most }
    }

    /// Keeps an event; the oldest makes room. Gives its number.
    pub(crate) fn push(&mut self, told: TimedEvent) -> EventNumber {
        self.events.push_back(Arc::new(told));
        if self.events.len() > self.most {
            self.events.pop_front();
            self.oldest += 1;
        }
        self.newest()
    }

    /// The number of the newest; 0 before the first.
    pub(crate) fn newest(&self) -> EventNumber {
        self.oldest + self.events.len() as u64 - 1
    }

    /// The number of the oldest that is kept.
    pub(crate) fn oldest(&self) -> EventNumber {
        self.oldest
    }

    /// What comes for a reader who has read everything before `next`.
    pub(crate) fn read(&self, next: EventNumber) -> RingRead {
        let Some(at) = next.checked_sub(self.oldest) else { return RingRead::Missed(self.oldest) };
        match usize::try_from(at).ok().and_then(|at| self.events.get(at)) {
            Some(event) => RingRead::Event(next, Arc::clone(event)),
            None => RingRead::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_protocol::event::{AuthorityUp, Happening};
    use proptest::prelude::*;

    fn event(mark: u64) -> TimedEvent {
        let what = Happening::AuthorityUp(AuthorityUp { url: mark.to_string() });
        TimedEvent { at: BootTime::from_millis(mark), event: Event { time: String::new(), what } }
    }

    proptest! {
        #[test]
        fn a_reader_gets_every_event_in_order_or_is_told_what_it_missed(
            steps in proptest::collection::vec((0_u64..6, 0_usize..6), 0..60),
            most in 1_usize..8,
        ) {
            let mut ring = Ring::new(most);
            let (mut told, mut next) = (0, 1);
            for (pushed, read) in steps {
                for _ in 0..pushed {
                    told += 1;
                    prop_assert_eq!(ring.push(event(told)), told);
                }
                for _ in 0..read {
                    match ring.read(next) {
                        RingRead::Event(number, read) => {
                            prop_assert_eq!((number, &*read), (next, &event(next)));
                            next += 1;
                        }
                        RingRead::Missed(oldest) => {
                            prop_assert!(oldest > next && told - oldest < most as u64);
                            next = oldest;
                        }
                        RingRead::Nothing => prop_assert_eq!(next, told + 1),
                    }
                }
                prop_assert!(ring.events.len() <= most);
                prop_assert_eq!(ring.newest(), told);
            }
        }
    }
}
