//! What is known of the helpers of one run. Pure.

use machineid_protocol::outside::{MOST_HELPERS, OutsideHelper, OutsideKind};
use machineid_tree::Identity;

use super::looker::FoundHelper;

/// A helper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftHelper {
    /// The process; `None` when it cannot be seen, and when only a wrapper has told of it.
    pub process: Option<Identity>,
    /// The process, described.
    pub helper: OutsideHelper,
    /// Whether only the wrapper has told of it. The word of a wrapper, which is the agent's user's, condemns no process.
    pub by_wrapper: bool,
    /// Whether a stop of the run ends it as well.
    pub ends_with_run: bool,
}

impl LeftHelper {
    /// A helper that a look of this process has found.
    #[must_use]
    pub fn seen(found: FoundHelper) -> Self {
        Self { process: found.process, helper: found.helper, by_wrapper: false, ends_with_run: false }
    }
}

/// The helpers of one run.
#[derive(Clone, Debug, Default)]
pub struct Helpers {
    known: Vec<LeftHelper>,
    /// Why there may be more, for people.
    gap: Option<String>,
    /// How many were reported as events.
    reported: u32,
}

/// The most helpers of one run that are reported as events: an agent, or its wrapper, could go on for ever.
const MOST_REPORTED: u32 = 64;

impl Helpers {
    /// Adds a helper. Returns it when it was not known. A process is known once, by the first connection to it; one that cannot
    /// be seen, by its address.
    pub fn learn(&mut self, found: LeftHelper) -> Option<&OutsideHelper> {
        let same = |known: &LeftHelper| match (known.process, found.process) {
            (Some(known), Some(found)) => known == found,
            // What was unseen, or told by a wrapper, may be seen now.
            (None, None | Some(_)) | (Some(_), None) => {
                known.helper.via == found.helper.via && known.helper.uid == found.helper.uid
            }
        };
        if let Some(at) = self.known.iter().position(same) {
            let known = &mut self.known[at];
            // What this process has seen holds against what a wrapper has told: a wrapper's word shields no process.
            let corrected = known.by_wrapper && !found.by_wrapper;
            let is_news = corrected && known.helper.kind != found.helper.kind;
            if corrected || (known.process.is_none() && found.process.is_some()) {
                *known = found;
            }
            return is_news.then_some(&known.helper);
        }
        if self.known.len() >= MOST_HELPERS {
            // The least important makes room for what is more important; first of all what only the wrapper has told of.
            let rank = |known: &LeftHelper| (known.by_wrapper, known.helper.kind);
            let least = (0..self.known.len()).max_by_key(|&at| rank(&self.known[at]))?;
            if rank(&self.known[least]) <= rank(&found) {
                return None;
            }
            self.known.remove(least);
        }
        self.known.push(found);
        self.known.last().map(|known| &known.helper)
    }

    /// Forgets the processes that have ended. Returns whether there were any. What cannot be seen stays.
    pub fn forget_ended(&mut self, is_alive: impl Fn(Identity) -> bool) -> bool {
        let before = self.known.len();
        self.known.retain(|known| known.process.is_none_or(&is_alive));
        self.known.len() < before
    }

    /// Takes what the wrapper tells, which is all that it sees: what it no longer tells of is forgotten. Returns the helpers that
    /// were not known, and whether anything changed.
    pub fn told(&mut self, told: Vec<LeftHelper>) -> (Vec<OutsideHelper>, bool) {
        let before = self.known.len();
        self.known.retain(|known| {
            !known.by_wrapper
                || told.iter().any(|told| told.helper.via == known.helper.via && told.process == known.process)
        });
        let gone = self.known.len() < before;
        let new: Vec<_> = told.into_iter().filter_map(|told| self.learn(told).cloned()).collect();
        let changed = gone || !new.is_empty();
        (new, changed)
    }

    /// Notes which of the processes end with the run; returns whether that is new.
    pub fn note_ends_with_run(&mut self, processes: &[Identity]) -> bool {
        let mut changed = false;
        for known in &mut self.known {
            let ends = known.process.is_some_and(|process| processes.contains(&process));
            changed |= known.ends_with_run != ends;
            known.ends_with_run = ends;
        }
        changed
    }

    /// Notes that this process is being ended.
    pub fn note_ending(&mut self, process: Identity) {
        let ending = self.known.iter_mut().filter(|known| known.process == Some(process));
        ending.for_each(|known| known.helper.ending = true);
    }

    /// Whether one more helper may be reported as an event; counts it.
    pub fn may_report(&mut self) -> bool {
        self.reported += u32::from(self.reported <= MOST_REPORTED);
        self.reported <= MOST_REPORTED
    }

    /// Sets why there may be more; returns whether that is new.
    pub fn set_gap(&mut self, gap: Option<String>) -> bool {
        let changed = self.gap != gap;
        self.gap = gap;
        changed
    }

    /// Why there may be more, for people.
    #[must_use]
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }

    /// All, the most important kind first.
    #[must_use]
    pub fn all(&self) -> Vec<OutsideHelper> {
        let mut all: Vec<_> = self.known.iter().map(|known| known.helper.clone()).collect();
        all.sort_by_key(|helper| helper.kind);
        all
    }

    /// Those that can go on with the agent's work, the most important first.
    #[must_use]
    pub fn left(&self) -> Vec<LeftHelper> {
        let mut left: Vec<_> = self.known.iter().filter(|known| known.helper.kind.is_helper()).cloned().collect();
        left.sort_by_key(|known| known.helper.kind);
        left
    }

    /// The agents' daemons of this user that may be ended with the run.
    #[must_use]
    pub fn to_end(&self, uid: u32) -> Vec<Identity> {
        let may = |known: &&LeftHelper| {
            known.helper.kind == OutsideKind::AgentDaemon
                && known.helper.uid == Some(uid)
                && !known.helper.ending
                && !known.by_wrapper
        };
        self.known.iter().filter(may).filter_map(|known| known.process).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machineid_tree::{Pid, StartTime};

    fn process(number: i32) -> Identity {
        Identity { pid: Pid::new(number).unwrap(), start: StartTime(1) }
    }

    fn found(number: i32, kind: OutsideKind) -> LeftHelper {
        let helper = OutsideHelper {
            pid: u32::try_from(number).ok(),
            exe: None,
            uid: Some(7),
            via: format!("unix:/{number}"),
            kind,
            name: "x".to_owned(),
            ending: false,
        };
        LeftHelper { process: Some(process(number)), helper, by_wrapper: false, ends_with_run: false }
    }

    #[test]
    fn a_process_is_known_once_until_it_ends_and_services_come_last() {
        let mut helpers = Helpers::default();
        assert!(helpers.learn(found(3, OutsideKind::Service)).is_some());
        assert!(helpers.learn(found(4, OutsideKind::AgentDaemon)).is_some());
        let again = LeftHelper {
            helper: OutsideHelper { via: "unix:/y".to_owned(), ..found(4, OutsideKind::AgentDaemon).helper },
            ..found(4, OutsideKind::AgentDaemon)
        };
        assert!(helpers.learn(again).is_none());
        assert_eq!(helpers.all().iter().map(|helper| helper.pid).collect::<Vec<_>>(), [Some(4), Some(3)]);
        assert_eq!(helpers.left().len(), 1);
        assert!(helpers.forget_ended(|process| process.pid.as_raw() != 4));
        assert!(!helpers.forget_ended(|_| true) && helpers.left().is_empty());
    }

    #[test]
    fn only_an_agents_daemon_of_the_same_user_that_was_seen_here_is_ended() {
        let mut helpers = Helpers::default();
        helpers.learn(found(4, OutsideKind::AgentDaemon));
        helpers.learn(found(5, OutsideKind::ContainerEngine));
        helpers.learn(LeftHelper { by_wrapper: true, process: None, ..found(6, OutsideKind::AgentDaemon) });
        assert_eq!(helpers.to_end(7), [process(4)]);
        assert_eq!(helpers.to_end(8), []);
        helpers.note_ending(process(4));
        assert_eq!(helpers.to_end(7), []);
    }

    #[test]
    fn what_a_wrapper_told_is_replaced_by_what_is_seen() {
        let mut helpers = Helpers::default();
        helpers.learn(LeftHelper { by_wrapper: true, process: None, ..found(4, OutsideKind::AgentDaemon) });
        assert!(helpers.learn(found(4, OutsideKind::AgentDaemon)).is_none());
        assert_eq!(helpers.to_end(7), [process(4)]);
    }

    #[test]
    fn a_wrapper_that_calls_a_daemon_a_service_or_fills_the_list_shields_nothing() {
        let mut helpers = Helpers::default();
        helpers.learn(LeftHelper { by_wrapper: true, ..found(4, OutsideKind::Service) });
        assert_eq!(helpers.learn(found(4, OutsideKind::AgentDaemon)).unwrap().kind, OutsideKind::AgentDaemon);
        assert_eq!(helpers.to_end(7), [process(4)]);
        for number in 10..=60 {
            helpers.learn(LeftHelper { by_wrapper: true, ..found(number, OutsideKind::AgentDaemon) });
        }
        assert!(helpers.learn(found(70, OutsideKind::Other)).is_some(), "what is seen has a place");
        for number in 80..=120 {
            helpers.learn(found(number, OutsideKind::Other));
        }
        assert!(helpers.learn(found(130, OutsideKind::AgentDaemon)).is_some(), "a daemon has one before other helpers");
        assert_eq!(helpers.to_end(7), [process(4), process(130)]);
        assert_eq!(helpers.all().len(), MOST_HELPERS);
    }

    #[test]
    fn what_a_wrapper_no_longer_tells_of_is_forgotten_and_what_was_seen_stays() {
        let mut helpers = Helpers::default();
        helpers.learn(found(3, OutsideKind::Other));
        let told = |number| LeftHelper { by_wrapper: true, ..found(number, OutsideKind::Other) };
        assert_eq!(helpers.told(vec![told(4), told(5)]).0.len(), 2);
        assert_eq!(helpers.told(vec![told(5)]), (Vec::new(), true));
        assert_eq!(helpers.told(vec![told(5)]), (Vec::new(), false));
        assert_eq!(helpers.all().iter().map(|helper| helper.pid).collect::<Vec<_>>(), [Some(3), Some(5)]);
        assert!(helpers.note_ends_with_run(&[process(3)]) && !helpers.note_ends_with_run(&[process(3)]));
    }

    #[test]
    fn an_agent_that_uses_ever_new_processes_is_an_event_only_so_often() {
        let mut helpers = Helpers::default();
        assert_eq!((0..1000).filter(|_| helpers.may_report()).count(), 64);
    }

    #[test]
    fn services_make_room_for_helpers() {
        let mut helpers = Helpers::default();
        for number in 1..=40 {
            helpers.learn(found(number, OutsideKind::Service));
        }
        assert!(helpers.learn(found(41, OutsideKind::Other)).is_some());
        assert_eq!(helpers.all().len(), MOST_HELPERS);
        for number in 50..=90 {
            helpers.learn(found(number, OutsideKind::Other));
        }
        assert_eq!((helpers.all().len(), helpers.left().len()), (MOST_HELPERS, MOST_HELPERS));
    }
}
