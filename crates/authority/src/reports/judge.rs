//! Judges how far a sidecar is with the stop that a revoke asks for. Pure.
//!
//! A stop is confirmed only by what the sidecar reports about *this* revoke: the sidecar echoes the revoke's own stamp,
//! so neither a confirmation of an earlier revoke nor a clock difference can be mistaken for it. Until then only the
//! lease is certain: the last ALLOW that a sidecar can hold began before the revoke, and before its last sign of life,
//! and `cutOffMs` later all its agents have ended. Silence counts only once every validation from before the revoke is
//! recorded ([`Notes`]): an ALLOW of the last second is not recorded at first.

use std::time::Duration;

use jiff::Timestamp;
use machineid_protocol::report::{ReportedDevice, StopState};
use machineid_protocol::status::StandingKind;

/// The maximum delay before a validation is recorded, on every server whose database accepts its writes.
const NOTED_LATE: Duration = Duration::from_secs(3);

/// A reported bound longer than this is ignored.
const LONGEST_BOUND: Duration = Duration::from_hours(24 * 7);

/// Which validations are recorded by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    /// All validations until this time are recorded,
    until: Timestamp,
    /// except some that a server may have lost when it died before this time.
    since: Timestamp,
}

impl Notes {
    /// The state when every server writes in time.
    pub(crate) fn in_time(now: Timestamp) -> Self {
        let until = now.saturating_sub(NOTED_LATE).unwrap_or(Timestamp::MIN);
        Self { until, since: Timestamp::MIN }
    }

    /// The state on a server that started at `began` and whose oldest unwritten time is `oldest`.
    pub(crate) fn of(now: Timestamp, began: Timestamp, oldest: Option<Timestamp>) -> Self {
        let all = Self::in_time(now);
        Self { until: oldest.map_or(all.until, |oldest| oldest.min(all.until)), since: began }
    }
}

/// The facts for a judgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// When the device was revoked.
    pub(crate) revoked_at: Timestamp,
    /// When any sidecar last validated the device, as far as that is recorded.
    pub(crate) last_seen_at: Option<Timestamp>,
    /// When this sidecar's last report arrived.
    pub(crate) heard_at: Timestamp,
    /// The sidecar's report about the device.
    pub(crate) device: &'a ReportedDevice,
    /// The sidecar's bound: the time from the last ALLOW to the end of the last process, in the worst case.
    pub(crate) cut_off: Duration,
    pub(crate) notes: Notes,
}

/// How far the stop is, and the time by which the lease alone has stopped every agent.
pub(crate) fn judge(known: &Known<'_>, now: Timestamp) -> (StopState, Timestamp) {
    let Known { revoked_at, last_seen_at, heard_at, device, cut_off, notes } = known;
    let seen = last_seen_at.map(|seen| seen.saturating_add(NOTED_LATE).unwrap_or(seen));
    let silent_since = seen.map_or(*heard_at, |seen| seen.max(*heard_at)).max(notes.since);
    // Until all validations are recorded, it is only known that no ALLOW began after the revoke.
    let last_allow = if notes.until < *revoked_at { *revoked_at } else { (*revoked_at).min(silent_since) };
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
            outside: Vec::new(),
        }
    }

    fn state(device: &ReportedDevice, seen: i64, heard: i64, now: i64) -> (StopState, Timestamp) {
        let known = Known {
            revoked_at: at(100),
            last_seen_at: Some(at(seen)),
            heard_at: at(heard),
            device,
            cut_off: Duration::from_secs(41),
            notes: Notes::in_time(at(now)),
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
        // Its report after the revoke has the old state: an ALLOW from just before the revoke may be in transit.
        assert_eq!(state(&silent, 100, 105, 106), (StopState::Pending, at(141)));
        assert_eq!(state(&silent, 100, 105, 141), (StopState::Lapsed, at(141)));
        // Silent since long before the revoke.
        assert_eq!(state(&silent, 10, 50, 103), (StopState::Lapsed, at(91)));
        // The sidecar validates; only its reports are lost.
        assert_eq!(state(&silent, 99, 20, 103), (StopState::Pending, at(141)));
        assert_eq!(state(&silent, 60, 20, 103), (StopState::Pending, at(104)));
    }

    #[test]
    fn no_lease_is_called_over_before_every_validation_from_before_the_revoke_is_written_down() {
        // Idle for long, as far as is recorded; it was allowed a moment before the revoke.
        let silent = device(StandingKind::Unavailable, None, 0, 0);
        for soon in [100, 101, 102] {
            assert_eq!(state(&silent, 10, 20, soon), (StopState::Pending, at(141)), "{soon}");
        }
        assert_eq!(state(&silent, 10, 20, 103), (StopState::Lapsed, at(61)));
        let judged = |notes| {
            let known = Known {
                revoked_at: at(100),
                last_seen_at: Some(at(10)),
                heard_at: at(20),
                device: &silent,
                cut_off: Duration::from_secs(41),
                notes,
            };
            judge(&known, at(120))
        };
        let began = at(0);
        assert_eq!(judged(Notes::of(at(120), began, None)), (StopState::Lapsed, at(61)));
        assert_eq!(judged(Notes::of(at(120), began, Some(at(99)))), (StopState::Pending, at(141)), "writing fails");
        assert_eq!(judged(Notes::of(at(120), began, Some(at(110)))), (StopState::Lapsed, at(61)), "of after it");
        assert_eq!(judged(Notes::of(at(120), at(95), None)), (StopState::Pending, at(136)), "some may be lost");
        assert_eq!(judged(Notes::of(at(120), at(110), None)), (StopState::Pending, at(141)));
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
            notes: Notes::in_time(at(200)),
        };
        assert_eq!(judge(&known, at(200)).0, StopState::Pending);
    }
}
