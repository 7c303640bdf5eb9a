//! The events of devices, from the journal: without commands, paths or users.

use machineid_clock::BootTime;
use machineid_protocol::event::{AgentName, AgentStop, Happening};
use machineid_protocol::outside::listed;
use machineid_protocol::report::{EventId, EventKind, MOST_EVENTS, ReportedEvent};

use crate::telemetry::Journal;
use crate::telemetry::ring::{EventNumber, RingRead, TimedEvent};

/// The longest reason in a report, in characters: one reason must not make a report too large.
const LONGEST_REASON: usize = 200;

/// The events from `next` on, at most [`MOST_EVENTS`], and the number with which to continue.
pub(super) fn since(journal: &Journal, mut next: EventNumber, now: BootTime) -> (Vec<ReportedEvent>, EventNumber) {
    let mut events = Vec::new();
    while events.len() < MOST_EVENTS {
        // Locked for one event at a time: recording an event must not wait.
        let read = journal.ring().read(next);
        match read {
            RingRead::Nothing => break,
            // Older events are no longer kept. The authority keeps even fewer.
            RingRead::Missed(oldest) => next = oldest,
            RingRead::Event(number, told) => {
                next = number + 1;
                events.extend(reported(&told, EventId { life: journal.life().number(), number }, now));
            }
        }
    }
    (events, next)
}

/// The event in a report; `None` if it concerns no device.
fn reported(told: &TimedEvent, id: EventId, now: BootTime) -> Option<ReportedEvent> {
    let of = |event, device_id: &machineid_protocol::DeviceId| ReportedEvent {
        id,
        device_id: device_id.clone(),
        ago_ms: u64::try_from(now.saturating_since(told.at).as_millis()).unwrap_or(u64::MAX),
        event,
        standing: None,
        code: None,
        request_id: None,
        reason: None,
        run_id: None,
        name: None,
        took_ms: None,
        killed: None,
        survivors: None,
        outside: None,
    };
    let agent = |event, agent: &AgentName| ReportedEvent {
        run_id: Some(agent.run_id),
        name: agent.name.clone(),
        ..of(event, &agent.device_id)
    };
    let stop = |event, AgentStop { report, .. }: &AgentStop| ReportedEvent {
        run_id: Some(report.run_id),
        name: report.name.clone(),
        code: Some(report.code.clone()),
        request_id: report.request_id.clone(),
        took_ms: Some(report.took_ms),
        killed: Some(report.killed as u64),
        survivors: Some(report.survivors.len() as u64),
        outside: listed(&report.outside).as_deref().map(cut),
        ..of(event, &report.device_id)
    };
    Some(match &told.event.what {
        Happening::Decision(change) => ReportedEvent {
            standing: Some(change.standing),
            code: Some(change.code.clone()),
            request_id: change.request_id.clone(),
            reason: change.reason.as_deref().map(cut),
            ..of(EventKind::Decision, &change.device_id)
        },
        Happening::AgentStarted(start) => ReportedEvent {
            code: Some(start.code.clone()),
            request_id: start.request_id.clone(),
            ..agent(EventKind::AgentStarted, &start.agent)
        },
        Happening::AgentStopping(stop) => ReportedEvent {
            code: Some(stop.code.clone()),
            request_id: stop.request_id.clone(),
            reason: stop.reason.as_deref().map(cut),
            ..agent(EventKind::AgentStopping, &stop.agent)
        },
        Happening::AgentSurvived(survived) => stop(EventKind::AgentSurvived, survived),
        Happening::AgentStopped(stopped) => stop(EventKind::AgentStopped, stopped),
        Happening::AgentEnded(ended) => ReportedEvent {
            reason: (ended.oom_kills > 0).then(|| cut(&machineid_protocol::oom_in_words(ended.oom_kills))),
            ..agent(EventKind::AgentEnded, &ended.agent)
        },
        Happening::DeviceHeld(hold) => of(EventKind::DeviceHeld, &hold.device_id),
        Happening::DeviceReleased(hold) => of(EventKind::DeviceReleased, &hold.device_id),
        // An authority of an earlier version refuses a report with a kind of event that it does not know. Its stop names the helper.
        Happening::OutsideHelper(_)
        | Happening::AuthorityUp(_)
        | Happening::AuthorityDown(_)
        | Happening::ConfigReloaded(_)
        | Happening::FilesRestored(_) => return None,
    })
}

fn cut(reason: &str) -> String {
    reason.chars().take(LONGEST_REASON).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use machineid_protocol::Code;
    use machineid_protocol::event::{AuthorityUp, Hold, StopRequested};

    fn stopping(journal: &Journal, reason: &str) {
        let agent = AgentName {
            run_id: "1".repeat(32).parse().unwrap(),
            device_id: "agent:1".parse().unwrap(),
            name: Some("scraper".to_owned()),
            pid: Some(7),
            uid: 1000,
        };
        let reason = Some(reason.to_owned());
        journal.tell(Happening::AgentStopping(StopRequested {
            agent,
            code: Code::DeviceRevoked,
            request_id: machineid_protocol::RequestId::from_foreign("r-1"),
            reason,
        }));
    }

    #[test]
    fn each_event_of_a_device_is_told_once_with_its_age_and_its_request_id() {
        let journal = Journal::start(None).unwrap();
        journal.tell(Happening::AuthorityUp(AuthorityUp { url: "https://example.com/?secret".to_owned() }));
        stopping(&journal, &"x".repeat(5_000));
        journal.tell(Happening::DeviceHeld(Hold { device_id: "agent:1".parse().unwrap(), by_uid: 0 }));
        let now = BootTime::now() + Duration::from_secs(5);
        let (events, next) = since(&journal, 1, now);
        assert_eq!(
            events.iter().map(|event| event.event).collect::<Vec<_>>(),
            [EventKind::AgentStopping, EventKind::DeviceHeld]
        );
        let stop = &events[0];
        assert!((5_000..15_000).contains(&stop.ago_ms), "{stop:?}");
        assert_eq!(stop.id.to_string(), format!("{}-2", journal.life()), "as in the event stream");
        assert_eq!(stop.request_id.as_ref().map(ToString::to_string).as_deref(), Some("r-1"));
        assert_eq!(stop.reason.as_ref().map(String::len), Some(LONGEST_REASON));
        assert_eq!(since(&journal, next, now), (Vec::new(), next));
        stopping(&journal, "again");
        assert_eq!(since(&journal, next, now).0.len(), 1);
    }

    #[test]
    fn many_are_told_in_parts_and_a_reader_that_comes_too_late_begins_with_the_oldest() {
        let journal = Journal::start(None).unwrap();
        for _ in 0..5_000 {
            stopping(&journal, "why");
        }
        let mut next = 1;
        let mut told = Vec::new();
        loop {
            let (events, behind) = since(&journal, next, BootTime::now());
            if events.is_empty() {
                break;
            }
            assert!(events.len() <= MOST_EVENTS);
            told.extend(events);
            next = behind;
        }
        assert!(told.len() >= 4_000 && told.last().unwrap().id.number == 5_000);
        assert!(told.is_sorted_by_key(|event| event.id.number));
    }
}
