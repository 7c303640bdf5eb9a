//! A ring of the newest events, for readers that follow and for readers that reconnect. Pure: nothing waits here.

use std::collections::VecDeque;
use std::sync::Arc;

use machineid_clock::BootTime;
use machineid_protocol::event::Event;
use machineid_tree::PidNamespaces;

/// The number of an event in the order of this daemon's life. The first is 1.
pub(crate) type EventNumber = u64;

/// Whose agent it is: decides which clients may see it.
#[derive(Clone, Debug)]
pub(crate) struct AgentOwner {
    pub(crate) uid: u32,
    pub(crate) namespaces: PidNamespaces,
}

/// An event, and its time on the boot clock.
#[derive(Clone, Debug)]
pub(crate) struct TimedEvent {
    pub(crate) at: BootTime,
    pub(crate) event: Event,
    /// The owner of the agent, when the event is one of an agent.
    pub(crate) owner: Option<AgentOwner>,
}

/// A bounded buffer that each reader reads at its own pace: a slow reader misses the oldest events, and is told so.
#[derive(Debug)]
pub(crate) struct Ring {
    events: VecDeque<Arc<TimedEvent>>,
    /// The number of the oldest event that is kept, or of the next one when there is none.
    oldest: EventNumber,
    most: usize,
}

/// The next item for a reader.
#[derive(Clone, Debug)]
pub(crate) enum RingRead {
    /// This event.
    Event(EventNumber, Arc<TimedEvent>),
    /// The next event is no longer kept; the reader continues with this number.
    Missed(EventNumber),
    /// There is no event yet.
    Nothing,
}

impl Ring {
    pub(crate) fn new(most: usize) -> Self {
        Self { events: VecDeque::new(), oldest: 1, most }
    }

    /// Adds an event, removing the oldest if the buffer is full; returns its number.
    pub(crate) fn push(&mut self, told: TimedEvent) -> EventNumber {
        self.events.push_back(Arc::new(told));
        if self.events.len() > self.most {
            self.events.pop_front();
            self.oldest += 1;
        }
        self.newest()
    }

    /// The number of the newest event; 0 before the first.
    pub(crate) fn newest(&self) -> EventNumber {
        self.oldest + self.events.len() as u64 - 1
    }

    /// The number of the oldest event that is kept.
    pub(crate) fn oldest(&self) -> EventNumber {
        self.oldest
    }

    /// The next item for a reader that has read everything before `next`.
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
        TimedEvent { at: BootTime::from_millis(mark), event: Event { time: String::new(), what }, owner: None }
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
                            prop_assert_eq!((number, read.at, &read.event), (next, event(next).at, &event(next).event));
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
