//! How far a sidecar is with the stop that a revoke asks for. Pure.
//!
//! Confirmed is only what the sidecar said about *this* revoke: it echoes the revoke's own stamp, so neither a confirmation
//! of an earlier one nor anybody's clock can be taken for it. Until then the lease is what is certain: the last ALLOW a
//! sidecar can hold began before the revoke, and before it fell silent, and `cutOffMs` after that nothing of its agents is
//! left.

use std::time::Duration;

use jiff::Timestamp;

use crate::protocol::report::{ReportedDevice, StopState};
use crate::protocol::status::StandingKind;

/// Validations are noted with this much delay at most.
const NOTED_LATE: Duration = Duration::from_secs(3);

/// No bound is believed beyond this.
const LONGEST_BOUND: Duration = Duration::from_hours(24 * 7);

/// What is known.
#[derive(Clone, Copy, Debug)]
pub(in crate::authority) struct Known<'a> {
    /// When the device was revoked.
    pub(in crate::authority) revoked_at: Timestamp,
    /// When any sidecar last validated the device, as far as it is written down.
    pub(in crate::authority) last_seen_at: Option<Timestamp>,
    /// When this sidecar's last report came.
    pub(in crate::authority) heard_at: Timestamp,
    /// What it said.
    pub(in crate::authority) device: &'a ReportedDevice,
    /// From the last ALLOW to the last process gone, whatever fails.
    pub(in crate::authority) cut_off: Duration,
}

/// How far it is, and by when the lease alone has stopped every agent.
pub(in crate::authority) fn judge(known: &Known<'_>, now: Timestamp) -> (StopState, Timestamp) {
    let Known { revoked_at, last_seen_at, heard_at, device, cut_off } = known;
    let seen = last_seen_at.map(|seen| seen.saturating_add(NOTED_LATE).unwrap_or(seen));
    let last_allow = (*revoked_at).min(seen.map_or(*heard_at, |seen| seen.max(*heard_at)));
    let by = last_allow.saturating_add((*cut_off).min(LONGEST_BOUND)).unwrap_or(Timestamp::MAX);
    let echoes = device.standing == StandingKind::Denied
        && device.revoked_at.as_deref().and_then(|stamp| stamp.parse::<Timestamp>().ok()) == Some(*revoked_at);
    let state = match (echoes, device.agents == 0 && device.stopping == 0) {
        (true, true) => StopState::Confirmed,
        (true, false) => StopState::Stopping,
        (false, _) if by <= now => StopState::Lapsed,
        (false, _) => StopState::Pending,
    };
    (state, by)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn device(standing: StandingKind, stamp: Option<Timestamp>, agents: u32, stopping: u32) -> ReportedDevice {
        ReportedDevice {
            device_id: "a".parse().unwrap(),
            standing,
            code: None,
            revoked_at: stamp.map(|at| at.to_string()),
            lease_left_ms: None,
            agents,
            stopping,
        }
    }

    fn state(device: &ReportedDevice, seen: i64, heard: i64, now: i64) -> (StopState, Timestamp) {
        let known = Known {
            revoked_at: at(100),
            last_seen_at: Some(at(seen)),
            heard_at: at(heard),
            device,
            cut_off: Duration::from_secs(41),
        };
        judge(&known, at(now))
    }

    #[test]
    fn only_a_sidecar_that_echoes_this_revoke_and_runs_nothing_confirms() {
        use StandingKind::{Allowed, Denied, Unavailable};
        for (standing, stamp, agents, stopping, expected) in [
            (Denied, Some(100), 0, 0, StopState::Confirmed),
            (Denied, Some(100), 1, 0, StopState::Stopping),
            (Denied, Some(100), 0, 1, StopState::Stopping),
            (Denied, Some(99), 0, 0, StopState::Pending),
            (Denied, None, 0, 0, StopState::Pending),
            (Allowed, Some(100), 0, 0, StopState::Pending),
            (Unavailable, Some(100), 0, 0, StopState::Pending),
        ] {
            let device = device(standing, stamp.map(at), agents, stopping);
            assert_eq!(state(&device, 100, 101, 102).0, expected, "{device:?}");
        }
    }

    #[test]
    fn the_lease_counts_from_the_revoke_or_from_the_silence_before_it() {
        let silent = device(StandingKind::Allowed, None, 3, 0);
        // Heard after the revoke, with what it held before: an ALLOW just before the revoke may be on its way.
        assert_eq!(state(&silent, 100, 105, 106), (StopState::Pending, at(141)));
        assert_eq!(state(&silent, 100, 105, 141), (StopState::Lapsed, at(141)));
        // Silent since long before.
        assert_eq!(state(&silent, 10, 50, 101), (StopState::Lapsed, at(91)));
        // It validates, only its reports are lost.
        assert_eq!(state(&silent, 99, 20, 101), (StopState::Pending, at(141)));
        assert_eq!(state(&silent, 60, 20, 101), (StopState::Pending, at(104)));
    }

    #[test]
    fn a_bound_that_nobody_can_mean_changes_no_arithmetic() {
        let silent = device(StandingKind::Allowed, None, 1, 0);
        let known = Known {
            revoked_at: at(100),
            last_seen_at: None,
            heard_at: at(100),
            device: &silent,
            cut_off: Duration::MAX,
        };
        assert_eq!(judge(&known, at(200)).0, StopState::Pending);
    }
}
