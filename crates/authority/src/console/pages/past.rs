//! The history of a device: its audit entries and its sidecars' events, in one order. Pure.

use jiff::Timestamp;
use machineid_protocol::report::{EventKind, ReportedEvent};

use super::told::standing;
use crate::audit;
use crate::console::words::{When, grouped};
use crate::reports::KnownEvent;

/// One entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HistoryEntry {
    order: Timestamp,
    pub(super) at: When,
    pub(super) shape: &'static str,
    pub(super) text: String,
    /// The reason or message of the entry.
    pub(super) why: Option<String>,
    pub(super) request_id: Option<String>,
}

/// Merges both, the newest first.
pub(super) fn together(done: Vec<audit::AuditEntry>, told: Vec<KnownEvent>, now: Timestamp) -> Vec<HistoryEntry> {
    let done = done.into_iter().map(|entry| HistoryEntry {
        order: entry.at,
        at: When::new(entry.at, now),
        shape: "▸",
        text: format!("{} by {}: {}", entry.verb, entry.actor, entry.outcome),
        why: entry.reason,
        request_id: Some(entry.request_id),
    });
    let told = told.into_iter().map(|known| HistoryEntry {
        order: known.at,
        at: When::new(known.at, now),
        shape: shape(known.event.event),
        text: text(&known.event),
        why: known.event.reason,
        request_id: known.event.request_id.map(|id| id.to_string()),
    });
    let mut all: Vec<HistoryEntry> = done.chain(told).collect();
    // A stable sort: entries of the same time keep their order.
    all.sort_by_key(|moment| std::cmp::Reverse(moment.order));
    all
}

fn shape(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Decision => "◆",
        EventKind::AgentStarted => "●",
        EventKind::AgentStopping => "◐",
        EventKind::AgentSurvived => "✕",
        EventKind::AgentStopped => "■",
        EventKind::AgentEnded => "○",
        EventKind::DeviceHeld | EventKind::DeviceReleased => "▲",
    }
}

fn text(event: &ReportedEvent) -> String {
    let agent = event.name.as_ref().map_or_else(|| "An agent".to_owned(), |name| format!("Agent {name}"));
    let code = event.code.as_ref().map_or_else(String::new, |code| format!(" ({})", code.as_str()));
    match event.event {
        EventKind::Decision => {
            format!("The sidecar's decision is now: {}{code}", event.standing.map_or("unknown", standing))
        }
        EventKind::AgentStarted => format!("{agent} was allowed to start"),
        EventKind::AgentStopping => format!("{agent} is being stopped{code}"),
        EventKind::AgentSurvived => {
            format!("{agent}: {} outlived SIGKILL{code}", processes(event.survivors.unwrap_or(0)))
        }
        EventKind::AgentStopped => {
            let took = event.took_ms.map_or_else(String::new, |took| format!(" after {}", took_text(took)));
            let killed = event.killed.filter(|killed| *killed > 0);
            let killed = killed.map_or_else(String::new, |killed| format!(", {} by SIGKILL", processes(killed)));
            let outside =
                event.outside.as_ref().map_or_else(String::new, |left| format!("; still running outside: {left}"));
            format!("{agent} is gone, confirmed{took}{killed}{code}{outside}")
        }
        EventKind::AgentEnded => format!("{agent} ended by itself"),
        EventKind::DeviceHeld => format!("Held on its host until released there{code}"),
        EventKind::DeviceReleased => "Released on its host".to_owned(),
    }
}

fn processes(count: u64) -> String {
    format!("{} {}", grouped(count), if count == 1 { "process" } else { "processes" })
}

/// The duration of a stop, to the millisecond if it is short.
pub(super) fn took_text(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        _ => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::org::OrgId;
    use machineid_protocol::Code;
    use machineid_protocol::report::{EventId, SidecarId};

    #[test]
    fn what_was_done_and_what_was_told_are_one_story() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let done = audit::AuditEntry {
            id: 1,
            at: at(10),
            org_id: OrgId::random(),
            request_id: "r1".to_owned(),
            actor: "uid:0".to_owned(),
            verb: "devices/revoke".to_owned(),
            device_id: Some("a".to_owned()),
            outcome: "revoked".to_owned(),
            reason: Some("<b>gone mad</b>".to_owned()),
            details: serde_json::Map::new(),
        };
        let told = |number: u64, second: i64, event: EventKind| KnownEvent {
            at: at(second),
            sidecar: SidecarId::random(1),
            event: ReportedEvent {
                id: EventId { life: 1, number },
                device_id: "a".parse().unwrap(),
                ago_ms: 0,
                event,
                standing: None,
                code: Some(Code::DeviceRevoked),
                request_id: None,
                reason: None,
                run_id: None,
                name: Some("crawler".to_owned()),
                took_ms: Some(1_234),
                killed: Some(1),
                survivors: None,
                outside: None,
            },
        };
        let events = vec![told(3, 12, EventKind::AgentStopped), told(2, 11, EventKind::AgentStopping)];
        let story: Vec<String> = together(vec![done], events, at(20)).into_iter().map(|moment| moment.text).collect();
        assert_eq!(
            story,
            [
                "Agent crawler is gone, confirmed after 1.2 s, 1 process by SIGKILL (DEVICE_REVOKED)",
                "Agent crawler is being stopped (DEVICE_REVOKED)",
                "devices/revoke by uid:0: revoked",
            ]
        );
    }
}
