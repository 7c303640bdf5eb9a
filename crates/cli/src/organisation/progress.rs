//! Judges from reports whether a stop is done. Pure: pages of the fleet and the time go in, a verdict comes out.

use std::collections::BTreeSet;
use std::time::Duration;

use machineid_protocol::report::{Doubt, FleetDevice, FleetSidecar, ReportedHelper, StopState};
use serde::Serialize;

/// A device without reports, or without a recorded validation, may be one whose first report is in transit or whose
/// validation is not recorded yet: the authority records validations up to three seconds late.
pub(super) const SETTLE: Duration = Duration::from_secs(4);

/// A device that was validated within this time may be in use. A sidecar validates far more often; a program with an
/// official client validates at irregular times.
const RECENT: Duration = Duration::from_mins(10);

/// The time for reports, in addition to the bound of a stop; longer than [`SETTLE`], for devices without reports.
const SLACK: Duration = Duration::from_secs(5);

/// The devices that a wait is about.
#[derive(Clone, Debug)]
pub(super) enum Targets {
    /// All revoked devices.
    AllRevoked,
    These(BTreeSet<String>),
}

/// The progress of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DeviceProgress {
    /// Nothing runs on it: every sidecar that uses it confirmed that, or ran nothing at its last report and its lease
    /// has ended.
    Stopped,
    /// No sidecar uses it.
    Unused,
    /// Nothing runs on it, but a stopped agent used the daemon of an agent program outside its tree, and that runs on.
    OutsideLeft,
    /// A sidecar had agents at its last report. By now its lease has stopped them, if its host has run since; there is
    /// no confirmation.
    Lapsed,
    /// A sidecar is stopping agents.
    Stopping,
    /// No sidecar has reported about it yet; a first report may be in transit.
    NotKnownYet,
    /// A sidecar has not confirmed that it knows of the revoke.
    NotHeardFrom,
    /// A confirmation came without proof that its sidecar validated the device since the revoke.
    Unproven,
    /// One sidecar confirms the stop, and another one says that agents run.
    Contradictory,
    /// It is validated, but no sidecar reports about it: an SDK uses it, or a sidecar that cannot report.
    Unreported,
    /// It is no longer revoked, or was removed.
    NoLongerRevoked,
}

impl DeviceProgress {
    pub(super) const fn is_done(self) -> bool {
        matches!(self, Self::Stopped | Self::Unused)
    }

    /// Whether waiting will change nothing.
    pub(super) const fn is_settled(self) -> bool {
        match self {
            Self::Stopped
            | Self::Unused
            | Self::OutsideLeft
            | Self::Lapsed
            | Self::Unreported
            | Self::NoLongerRevoked => true,
            Self::Stopping | Self::NotKnownYet | Self::NotHeardFrom | Self::Unproven | Self::Contradictory => false,
        }
    }
}

/// One device of a wait.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) id: String,
    pub(super) progress: DeviceProgress,
    pub(super) device: Option<FleetDevice>,
}

/// The progress of all devices, `waited` after the answer to the revoke.
pub(super) fn judge(targets: &Targets, fleet: Vec<FleetDevice>, waited: Duration) -> Vec<Followed> {
    let mut missing = match targets {
        Targets::AllRevoked => BTreeSet::new(),
        Targets::These(ids) => ids.clone(),
    };
    let concerned = |device: &FleetDevice| match targets {
        Targets::AllRevoked => device.revoked_at.is_some(),
        Targets::These(ids) => ids.contains(&device.device_id) && device.revoked_at.is_some(),
    };
    let mut followed: Vec<Followed> = Vec::new();
    for device in fleet.into_iter().filter(concerned) {
        missing.remove(&device.device_id);
        let progress = of_one(&device, waited);
        followed.push(Followed { id: device.device_id.clone(), progress, device: Some(device) });
    }
    followed.extend(missing.into_iter().map(|id| Followed {
        id,
        progress: DeviceProgress::NoLongerRevoked,
        device: None,
    }));
    followed
}

fn of_one(device: &FleetDevice, waited: Duration) -> DeviceProgress {
    let worst = device.sidecars.iter().map(|sidecar| of_sidecar(device, sidecar)).max();
    worst.unwrap_or_else(|| match device.last_seen_ago_ms {
        _ if waited < SETTLE => DeviceProgress::NotKnownYet,
        None => DeviceProgress::Unused,
        Some(ago) if Duration::from_millis(ago) > RECENT + waited => DeviceProgress::Unused,
        Some(_) => DeviceProgress::Unreported,
    })
}

/// The progress of one sidecar with one device.
pub(super) fn of_sidecar(device: &FleetDevice, sidecar: &FleetSidecar) -> DeviceProgress {
    match sidecar.stop.as_ref().and_then(|stop| stop.doubt) {
        Some(Doubt::Unproven) => return DeviceProgress::Unproven,
        Some(Doubt::Contradictory) => return DeviceProgress::Contradictory,
        None => {}
    }
    match sidecar.stop.as_ref().map(|stop| stop.state) {
        // The sidecar is ending it.
        Some(StopState::Confirmed) if sidecar.outside.iter().any(|helper| helper.ending) => DeviceProgress::Stopping,
        Some(StopState::Confirmed) if sidecar.outside.iter().any(ReportedHelper::defies_the_stop) => {
            DeviceProgress::OutsideLeft
        }
        Some(StopState::Confirmed) => DeviceProgress::Stopped,
        Some(StopState::Lapsed) if ran_nothing(device, sidecar) => DeviceProgress::Stopped,
        Some(StopState::Lapsed) => DeviceProgress::Lapsed,
        Some(StopState::Stopping) => DeviceProgress::Stopping,
        Some(StopState::Pending) | None => DeviceProgress::NotHeardFrom,
    }
}

/// Whether the sidecar had no agents at its last report, and none was allowed since.
fn ran_nothing(device: &FleetDevice, sidecar: &FleetSidecar) -> bool {
    let asked_since = device.last_seen_ago_ms.is_some_and(|ago| ago < sidecar.heard_ago_ms);
    sidecar.agents == 0 && sidecar.stopping == 0 && !asked_since
}

/// How long a wait may take, from the revoke: as long as a sidecar that reaches its authority may take.
pub(super) fn patience(followed: &[Followed]) -> Duration {
    let open = followed.iter().filter(|one| !one.progress.is_done());
    let sidecars = open.filter_map(|one| one.device.as_ref()).flat_map(|device| &device.sidecars);
    let longest = sidecars.map(|sidecar| Duration::from_millis(sidecar.stop_bound.connected_ms)).max();
    longest.unwrap_or_default().min(Duration::from_mins(10)) + SLACK
}

impl Followed {
    /// Whether a sidecar reports processes that outlived SIGKILL.
    pub(super) fn has_survivors(&self) -> bool {
        let stop = self.device.as_ref().and_then(|device| device.last_stop.as_ref());
        self.progress == DeviceProgress::Stopping
            && stop.is_some_and(|last| !last.stop.confirmed && !last.stop.survivors.is_empty())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use machineid_protocol::api::DeviceStatus;
    use machineid_protocol::report::{Bound, SidecarId, StopProgress};
    use machineid_protocol::status::StandingKind;

    fn is_over(followed: &[Followed]) -> bool {
        followed.iter().all(|one| one.progress.is_settled())
    }

    fn sidecar(state: StopState) -> FleetSidecar {
        FleetSidecar {
            sidecar_id: SidecarId::random(1),
            host_device_id: "host:1".to_owned(),
            version: "1".to_owned(),
            push: true,
            heard_at: String::new(),
            heard_ago_ms: 0,
            standing: StandingKind::Denied,
            code: None,
            lease_left_ms: None,
            agents: 0,
            stopping: 0,
            stop_bound: Bound { connected_ms: 19_500, cut_off_ms: 41_000 },
            stop: Some(StopProgress { state, by: String::new(), in_ms: 0, doubt: None }),
            outside: Vec::new(),
        }
    }

    pub(in super::super) fn device(id: &str, seen_ago_ms: Option<u64>, states: &[StopState]) -> FleetDevice {
        FleetDevice {
            device_id: id.to_owned(),
            status: DeviceStatus::Revoked,
            last_seen_at: seen_ago_ms.map(|_| "then".to_owned()),
            last_seen_ago_ms: seen_ago_ms,
            revoked_at: Some("now".to_owned()),
            revoke_reason: None,
            sidecars: states.iter().map(|state| sidecar(*state)).collect(),
            last_stop: None,
        }
    }

    #[test]
    fn a_device_is_stopped_when_every_sidecar_that_uses_it_is() {
        use StopState::{Confirmed, Lapsed, Pending, Stopping};
        for (states, expected) in [
            (&[Confirmed][..], DeviceProgress::Stopped),
            (&[Confirmed, Lapsed], DeviceProgress::Stopped),
            (&[Lapsed, Stopping], DeviceProgress::Stopping),
            (&[Confirmed, Stopping], DeviceProgress::Stopping),
            (&[Stopping, Pending, Confirmed], DeviceProgress::NotHeardFrom),
        ] {
            let followed = judge(&Targets::AllRevoked, vec![device("a", Some(1), states)], Duration::ZERO);
            assert_eq!(followed[0].progress, expected, "{states:?}");
            assert_eq!(is_over(&followed), expected.is_done());
        }
    }

    #[test]
    fn an_agents_daemon_outside_keeps_a_stop_from_being_complete_and_another_helper_does_not() {
        use machineid_protocol::outside::OutsideKind;
        for (kind, ending, expected) in [
            (OutsideKind::AgentDaemon, false, DeviceProgress::OutsideLeft),
            (OutsideKind::AgentDaemon, true, DeviceProgress::Stopping),
            (OutsideKind::ContainerEngine, false, DeviceProgress::Stopped),
        ] {
            let helper = ReportedHelper { name: "x".to_owned(), pid: Some(1), kind, ending };
            let left = FleetSidecar { outside: vec![helper], ..sidecar(StopState::Confirmed) };
            let device = FleetDevice { sidecars: vec![left], ..device("a", Some(1), &[]) };
            let followed = judge(&Targets::AllRevoked, vec![device], Duration::ZERO);
            assert_eq!(followed[0].progress, expected);
        }
    }

    #[test]
    fn a_doubtful_confirmation_is_none_whatever_the_state_and_is_waited_for() {
        for (doubt, expected) in
            [(Doubt::Unproven, DeviceProgress::Unproven), (Doubt::Contradictory, DeviceProgress::Contradictory)]
        {
            for state in [StopState::Confirmed, StopState::Pending, StopState::Lapsed] {
                let mut doubtful = sidecar(state);
                doubtful.stop.as_mut().unwrap().doubt = Some(doubt);
                let sidecars = vec![sidecar(StopState::Confirmed), doubtful];
                let device = FleetDevice { sidecars, ..device("a", Some(1), &[]) };
                let followed = judge(&Targets::AllRevoked, vec![device], Duration::ZERO);
                assert_eq!(followed[0].progress, expected);
                assert!(!expected.is_done() && !is_over(&followed));
            }
        }
    }

    #[test]
    fn a_lease_that_is_over_stands_for_a_confirmation_only_where_nothing_ran() {
        let of = |agents, heard_ago_ms, seen_ago_ms| {
            let silent = FleetSidecar { heard_ago_ms, agents, ..sidecar(StopState::Lapsed) };
            let device = FleetDevice { sidecars: vec![silent], ..device("a", seen_ago_ms, &[]) };
            judge(&Targets::AllRevoked, vec![device], Duration::ZERO)
        };
        assert_eq!(of(0, 90_000, Some(95_000))[0].progress, DeviceProgress::Stopped);
        assert_eq!(of(0, 90_000, None)[0].progress, DeviceProgress::Stopped);
        for uncertain in [of(1, 90_000, Some(95_000)), of(0, 90_000, Some(80_000))] {
            assert_eq!(
                uncertain[0].progress,
                DeviceProgress::Lapsed,
                "a paused machine has not lived through its lease"
            );
            assert!(is_over(&uncertain), "there is nothing to wait for");
        }
    }

    #[test]
    fn a_device_without_a_sidecar_is_unused_only_when_no_client_asked_about_it_lately() {
        let of = |seen, waited| judge(&Targets::AllRevoked, vec![device("a", seen, &[])], waited);
        for (seen, expected) in [
            (None, DeviceProgress::Unused),
            (Some(605_000), DeviceProgress::Unused),
            // The duration of the wait itself does not count as age.
            (Some(603_000), DeviceProgress::Unreported),
            (Some(1), DeviceProgress::Unreported),
        ] {
            let just_now = of(seen, Duration::from_secs(3));
            assert_eq!(
                just_now[0].progress,
                DeviceProgress::NotKnownYet,
                "what allowed it may not be written down yet"
            );
            assert!(!is_over(&just_now) && !just_now[0].progress.is_done());
            let settled = of(seen, SETTLE);
            assert_eq!(settled[0].progress, expected, "{seen:?}");
            assert!(is_over(&settled));
        }
        assert!(patience(&of(None, Duration::ZERO)) > SETTLE, "it is waited for until it is known");
    }

    #[test]
    fn what_was_meant_and_is_not_revoked_any_more_is_named() {
        let targets = Targets::These(["a", "b"].map(str::to_owned).into());
        let followed = judge(&targets, vec![device("a", None, &[]), device("c", None, &[])], SETTLE);
        let told: Vec<_> = followed.iter().map(|one| (one.id.as_str(), one.progress)).collect();
        assert_eq!(told, [("a", DeviceProgress::Unused), ("b", DeviceProgress::NoLongerRevoked)]);
    }

    #[test]
    fn a_wait_lasts_as_long_as_a_sidecar_that_is_reached_may_take() {
        let followed = judge(&Targets::AllRevoked, vec![device("a", Some(1), &[StopState::Pending])], Duration::ZERO);
        assert_eq!(patience(&followed), Duration::from_millis(24_500));
        assert_eq!(patience(&[]), SLACK);
    }
}
