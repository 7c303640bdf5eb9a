//! Judges the sidecars of one device together: whose confirmation of a stop counts. Pure.
//!
//! A key's holder can validate every device that the key's pattern names, and report as any number of sidecars of its own, but
//! never as one whose secret it does not know. So what it says stands beside what the other sidecars say, and a confirmation
//! counts only when
//!
//! - it comes from a sidecar that proved itself and has validated the device since the revoke, or no sidecar of the device has
//!   ever proved itself (all are of earlier versions), and
//! - no other sidecar contradicts it: by running agents after the time in which it stops them, or by reporting for the same
//!   host that it knows of no stop; and there is a place for every sidecar of the device, so that none is missing.

use std::time::Duration;

use jiff::Timestamp;
use machineid_protocol::report::{Doubt, StopProgress, StopState};
use machineid_protocol::status::StandingKind;

use super::heard::HeardDevice;
use super::judge::{Known, Notes, judge};

/// The number of sidecars of one device from which on some may be missing: as many as are stored.
pub(crate) const FULL: usize = 64;

/// The facts about a revoked device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RevokedDevice {
    pub(crate) revoked_at: Timestamp,
    /// When any sidecar last validated the device, as far as that is recorded.
    pub(crate) last_seen_at: Option<Timestamp>,
    pub(crate) notes: Notes,
}

/// How far one sidecar is with a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) state: StopState,
    /// The time by which the lease alone has stopped every agent.
    pub(crate) by: Timestamp,
    /// Why a confirmation does not count.
    pub(crate) doubt: Option<Doubt>,
}

/// How far each sidecar of the device is, in the order of `heard`.
pub(crate) fn judge_all(device: &RevokedDevice, heard: &[&HeardDevice], now: Timestamp) -> Vec<Judged> {
    let alone: Vec<_> = heard.iter().map(|heard| of_one(device, heard, now)).collect();
    let some_prove = heard.iter().any(|heard| heard.validated_at.is_some());
    let judged = |place: usize| {
        let (mut state, by) = alone[place];
        let mut doubt = None;
        if state == StopState::Confirmed {
            let proven = heard[place].validated_at.is_some_and(|at| at >= device.revoked_at);
            let contradicted = || {
                let mut others = (0..heard.len()).filter(|other| *other != place);
                heard.len() >= FULL
                    || others.any(|other| contradicts(device, heard[other], alone[other].0, heard[place]))
            };
            doubt = if some_prove && !proven {
                Some(Doubt::Unproven)
            } else if contradicted() {
                Some(Doubt::Contradictory)
            } else {
                None
            };
        }
        if doubt.is_some() {
            state = if by <= now { StopState::Lapsed } else { StopState::Pending };
        }
        Judged { state, by, doubt }
    };
    (0..heard.len()).map(judged).collect()
}

/// Whether `other`, which is in this state, says something else than `confirming`, which confirms the stop.
fn contradicts(device: &RevokedDevice, other: &HeardDevice, state: StopState, confirming: &HeardDevice) -> bool {
    let outstanding = match state {
        StopState::Stopping | StopState::Pending => true,
        StopState::Confirmed | StopState::Lapsed => false,
    };
    if !outstanding || other.heard_at < device.revoked_at {
        return false;
    }
    let said = &other.said;
    let runs = said.device.agents > 0 || said.device.standing == StandingKind::Allowed;
    let time = Duration::from_millis(said.bound.connected_ms);
    let late = device.revoked_at.saturating_add(time).is_ok_and(|end| other.heard_at > end);
    // Another daemon of the same host that is stopping agents contradicts nothing.
    (said.host == confirming.said.host && state == StopState::Pending) || (runs && late)
}

fn of_one(device: &RevokedDevice, heard: &HeardDevice, now: Timestamp) -> (StopState, Timestamp) {
    let known = Known {
        revoked_at: device.revoked_at,
        last_seen_at: device.last_seen_at,
        heard_at: heard.heard_at,
        device: &heard.said.device,
        cut_off: Duration::from_millis(heard.said.bound.cut_off_ms),
        notes: device.notes,
    };
    judge(&known, now)
}

impl Judged {
    /// The judgement as the API says it.
    pub(crate) fn progress(self, now: Timestamp) -> StopProgress {
        let left = self.by.as_millisecond().saturating_sub(now.as_millisecond());
        let in_ms = u64::try_from(left).unwrap_or(0);
        StopProgress { state: self.state, by: self.by.to_string(), in_ms, doubt: self.doubt }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    const REVOKED: i64 = 100;

    /// A report about the device: of which sidecar and host, when, what it says, and when the sidecar validated.
    #[derive(Clone, Debug)]
    struct Said {
        sidecar: u32,
        host: u32,
        heard: i64,
        confirms: bool,
        agents: u32,
        validated: Option<i64>,
    }

    fn heard(said: &Said) -> HeardDevice {
        let standing = if said.confirms { "denied" } else { "allowed" };
        let body = json!({
            "version": "1", "host": format!("host:{}", said.host), "push": true,
            "bound": {"connectedMs": 15_000, "cutOffMs": 41_000},
            "device": {"deviceId": "a", "standing": standing, "agents": said.agents, "stopping": 0,
                "revokedAt": said.confirms.then(|| at(REVOKED).to_string())},
        });
        let heard = HeardDevice::read(&format!("{:032x}", said.sidecar), at(said.heard), &body.to_string()).unwrap();
        HeardDevice { validated_at: said.validated.map(at), ..heard }
    }

    fn judged(all: &[Said], now: i64) -> Vec<Judged> {
        let device =
            RevokedDevice { revoked_at: at(REVOKED), last_seen_at: Some(at(REVOKED)), notes: Notes::in_time(at(now)) };
        let all: Vec<_> = all.iter().map(heard).collect();
        judge_all(&device, &all.iter().collect::<Vec<_>>(), at(now))
    }

    fn confirming(sidecar: u32, validated: Option<i64>) -> Said {
        Said { sidecar, host: sidecar, heard: 101, confirms: true, agents: 0, validated }
    }

    fn running(sidecar: u32, heard: i64) -> Said {
        Said { sidecar, host: sidecar, heard, confirms: false, agents: 1, validated: Some(60) }
    }

    #[test]
    fn a_confirmation_counts_when_its_sidecar_has_validated_since_the_revoke() {
        let of = |said: &[Said]| judged(said, 103).into_iter().map(|one| (one.state, one.doubt)).collect::<Vec<_>>();
        let (confirmed, unproven) = ((StopState::Confirmed, None), (StopState::Pending, Some(Doubt::Unproven)));
        assert_eq!(of(&[confirming(1, Some(100))]), [confirmed]);
        assert_eq!(of(&[confirming(1, Some(99))]), [unproven]);
        assert_eq!(of(&[confirming(1, None)]), [confirmed], "every sidecar is of an earlier version");
        assert_eq!(of(&[confirming(1, None), confirming(2, Some(101))]), [unproven, confirmed]);
        assert_eq!(of(&[confirming(1, None), running(2, 90)]), [unproven, (StopState::Pending, None)]);
    }

    #[test]
    fn a_sidecar_that_runs_agents_after_its_bound_contradicts_and_one_that_still_may_does_not() {
        let of = |other: Said, now| judged(&[confirming(1, Some(101)), other], now)[0];
        assert_eq!(of(running(2, 110), 111).doubt, None, "its stop may take so long");
        assert_eq!(of(running(2, 116), 117).doubt, Some(Doubt::Contradictory));
        assert_eq!(of(running(2, 90), 117).doubt, None, "it has not reported since");
        let twin = |heard| Said { host: 1, ..running(2, heard) };
        assert_eq!(of(twin(102), 103).doubt, Some(Doubt::Contradictory), "it reports for the same host");
        assert_eq!(of(twin(99), 103).doubt, None, "the same host before its restart");
    }

    #[test]
    fn where_a_sidecar_may_be_missing_none_confirms() {
        let many = |count| (0..count).map(|sidecar| confirming(sidecar, Some(101))).collect::<Vec<_>>();
        assert!(judged(&many(63), 103).iter().all(|one| one.state == StopState::Confirmed));
        assert!(judged(&many(64), 103).iter().all(|one| one.doubt == Some(Doubt::Contradictory)));
    }

    fn said() -> impl Strategy<Value = Said> {
        let numbers = (0..4_u32, 0..3_u32, 80..160_i64, 0..2_u32);
        let rest = (any::<bool>(), prop::option::of(80..160_i64));
        (numbers, rest).prop_map(|((sidecar, host, heard, agents), (confirms, validated))| Said {
            sidecar,
            host,
            heard,
            confirms,
            agents,
            validated,
        })
    }

    proptest! {
        #[test]
        fn no_report_of_another_makes_a_confirmation(
            all in prop::collection::vec(said(), 1..6), forged in said(), now in 100..200_i64,
        ) {
            let before = judged(&all, now);
            let mut with = all.clone();
            with.push(forged);
            let after = judged(&with, now);
            for (place, said) in all.iter().enumerate() {
                let (before, after) = (before[place], after[place]);
                prop_assert!(
                    after.state != StopState::Confirmed || before.state == StopState::Confirmed,
                    "{said:?} {before:?} {after:?}"
                );
                prop_assert_eq!(before.by, after.by);
            }
        }

        #[test]
        fn beside_a_proven_sidecar_nothing_unproven_confirms(
            all in prop::collection::vec(said(), 1..6), now in 100..200_i64,
        ) {
            let some_prove = all.iter().any(|said| said.validated.is_some());
            for (said, judged) in all.iter().zip(judged(&all, now)) {
                let proven = said.validated.is_some_and(|at| at >= REVOKED);
                if judged.state == StopState::Confirmed {
                    prop_assert!(proven || !some_prove);
                    prop_assert!(said.confirms && said.agents == 0 && judged.doubt.is_none());
                }
                prop_assert!(judged.doubt.is_none() || matches!(judged.state, StopState::Pending | StopState::Lapsed));
            }
        }
    }
}
