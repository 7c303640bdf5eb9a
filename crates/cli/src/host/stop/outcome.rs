//! The result of a stop, from the daemon's status. A requested stop is not a confirmed one.

use machineid_protocol::RunId;
use machineid_protocol::outside::{OutsideHelper, OutsideKind, still_running};
use machineid_protocol::status::{AgentReport, Status, StopReport};

/// One run that is being stopped.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) run: RunId,
    /// The agent as it was before the stop.
    pub(super) agent: Option<AgentReport>,
    pub(super) outcome: StopOutcome,
}

/// The known progress of a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) enum StopOutcome {
    /// The daemon has accepted the request.
    Requested,
    /// No process of the tree is left. The daemon keeps only the newest reports, so with many stops one may be missing.
    Gone(Option<StopReport>),
    /// A process has survived SIGKILL so far, or the result is unknown.
    NotOver(StopReport),
}

impl StopOutcome {
    pub(in crate::host) const fn is_over(&self) -> bool {
        matches!(self, Self::Gone(_))
    }

    /// What the stop left outside the tree, in words.
    pub(in crate::host) fn left_outside(&self) -> Option<String> {
        match self {
            Self::Gone(Some(report)) => still_running(&report.outside),
            Self::Gone(None) | Self::Requested | Self::NotOver(_) => None,
        }
    }

    /// Whether the stop is over and left no agent's daemon that nothing ends.
    pub(in crate::host) fn is_complete(&self) -> bool {
        let defies = |helper: &OutsideHelper| helper.kind == OutsideKind::AgentDaemon && !helper.ending;
        match self {
            Self::Gone(report) => report.as_ref().is_none_or(|report| !report.outside.iter().any(defies)),
            Self::Requested | Self::NotOver(_) => false,
        }
    }

    /// The outcome by this status, for a run whose stop was requested before the status was queried.
    pub(in crate::host) fn of(run: RunId, status: &Status) -> Self {
        let report = status.recent_stops.iter().find(|stop| stop.run_id == run);
        let listed = status.agents.iter().any(|agent| agent.run_id == run);
        match report {
            Some(report) if report.confirmed => Self::Gone(Some(report.clone())),
            Some(report) => Self::NotOver(report.clone()),
            None if listed => Self::Requested,
            None => Self::Gone(None),
        }
    }
}

impl Stopped {
    /// Updates the outcome from the newest status. A finished stop stays finished.
    pub(super) fn look(&mut self, status: &Status) {
        if !self.outcome.is_over() {
            self.outcome = StopOutcome::of(self.run, status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const RUN: &str = "000102030405060708090a0b0c0d0e0f";

    fn status(agents: &[Value], stops: &[Value]) -> Status {
        serde_json::from_value(json!({
            "version": "0.1.0", "pid": 1, "started_at": "", "socket": "/s",
            "authority": {"url": "u", "reachable": null, "last_answer_at": null, "last_error": null},
            "stop_bound": {"connected_ms": 1, "cut_off_ms": 1},
            "configuration": {"file": null, "key_source": "k", "key_protection": "p"},
            "devices": [], "agents": agents, "recent_stops": stops
        }))
        .unwrap()
    }

    fn agent() -> Value {
        json!({"run_id": RUN, "pid": 2, "name": null, "command": [], "device_id": "d", "uid": 0, "started_at": "",
            "uptime_ms": 1, "lease_left_ms": 1, "state": "stopping", "stop_code": "LOCAL_STOP", "containment": "cgroup",
            "holds_against": "bugs", "containment_reason": null, "frozen": false, "killer": "daemon"})
    }

    fn stop(confirmed: bool) -> Value {
        json!({"run_id": RUN, "name": null, "device_id": "d", "code": "LOCAL_STOP", "request_id": null, "began_at": "",
            "mechanism": "cgroup", "holds_against": "bugs", "signalled": 1, "killed": 1, "took_ms": 5,
            "confirmed": confirmed, "survivors": []})
    }

    #[test]
    fn only_a_confirmed_report_or_its_absence_from_everywhere_is_an_end() {
        let run = RUN.parse().unwrap();
        assert_eq!(StopOutcome::of(run, &status(&[agent()], &[])), StopOutcome::Requested);
        assert!(matches!(StopOutcome::of(run, &status(&[agent()], &[stop(false)])), StopOutcome::NotOver(_)));
        assert!(matches!(StopOutcome::of(run, &status(&[], &[stop(false)])), StopOutcome::NotOver(_)));
        assert!(matches!(StopOutcome::of(run, &status(&[agent()], &[stop(true)])), StopOutcome::Gone(Some(_))));
        assert_eq!(StopOutcome::of(run, &status(&[], &[])), StopOutcome::Gone(None));
    }

    #[test]
    fn what_is_over_stays_over_when_its_report_is_forgotten() {
        let mut stopped = Stopped { run: RUN.parse().unwrap(), agent: None, outcome: StopOutcome::Requested };
        stopped.look(&status(&[], &[stop(true)]));
        let over = stopped.outcome.clone();
        stopped.look(&status(&[], &[]));
        assert_eq!(stopped.outcome, over);
    }
}
