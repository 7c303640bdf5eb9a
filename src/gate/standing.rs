//! The standing of a gate, and its answers to askers.

use std::sync::Arc;
use std::time::Duration;

use machineid_clock::BootTime;
use machineid_protocol::{Code, Denial, RequestId};

/// An ALLOW as the gate keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) code: Code,
    pub(crate) request_id: Option<RequestId>,
    /// When its validation began: freshness and lease count from here.
    pub(crate) confirmed_at: BootTime,
}

/// A deny as the gate keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfirmedDenial {
    pub(crate) denial: Denial,
    /// When its validation began.
    pub(crate) confirmed_at: BootTime,
}

/// What the gate knows about its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No attempt has ended yet.
    Unknown,
    /// The newest answer is an ALLOW. `since` is when the standing became "allowed", not the newest confirmation.
    Allowed { since: BootTime, grant: Grant },
    /// The newest answer is a deny.
    Denied { since: BootTime, refusal: ConfirmedDenial },
    /// The newest attempt brought no answer.
    Unavailable { since: BootTime, cause: Arc<str>, last_allowed: Option<BootTime> },
}

/// The answer to one asker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GateVerdict {
    /// Allowed by a validation that began after the question. `until` is the end of the lease that it gives.
    Allowed { grant: Grant, until: BootTime },
    /// No.
    Denied(ConfirmedDenial),
    /// No decision was available. Clients treat this as a deny.
    Undecided { code: Code, cause: Arc<str>, retry_after: Option<Duration> },
}

impl GateVerdict {
    /// An "undecided" whose cause is not a failed attempt.
    pub(crate) fn undecided(code: Code, cause: &str) -> Self {
        Self::Undecided { code, cause: Arc::from(cause), retry_after: None }
    }

    /// The answer at the time it is sent: a deny that came after the answer was decided counts.
    pub(crate) fn told_under(self, standing: &Standing) -> Self {
        match (self, standing) {
            (Self::Allowed { .. }, Standing::Denied { refusal, .. }) => Self::Denied(refusal.clone()),
            (verdict, _) => verdict,
        }
    }

    /// The daemon lacks a resource that it needs for asking.
    pub(crate) fn overloaded(error: &std::io::Error) -> Self {
        Self::undecided(Code::Overloaded, &format!("the daemon cannot accept another check now: {error}"))
    }
}

impl Standing {
    /// The answer that this standing gives to a caller that accepts an answer as old as `max_age`; `None` when the caller
    /// must wait for a validation.
    pub(crate) fn cached(&self, now: BootTime, max_age: Duration, lease: Duration) -> Option<GateVerdict> {
        match self {
            Self::Denied { refusal, .. } if now.saturating_since(refusal.confirmed_at) <= max_age => {
                Some(GateVerdict::Denied(refusal.clone()))
            }
            Self::Allowed { .. } | Self::Denied { .. } | Self::Unknown | Self::Unavailable { .. } => {
                let grant = self.cached_grant(now, max_age, lease)?.clone();
                Some(GateVerdict::Allowed { until: grant.confirmed_at + lease, grant })
            }
        }
    }

    /// The grant of that answer when it is an ALLOW, not copied.
    pub(crate) fn cached_grant(&self, now: BootTime, max_age: Duration, lease: Duration) -> Option<&Grant> {
        match self {
            Self::Allowed { grant, .. } => {
                let confirmed_at = grant.confirmed_at;
                let young = now.saturating_since(confirmed_at) <= max_age && now < confirmed_at + lease;
                young.then_some(grant)
            }
            Self::Denied { .. } | Self::Unknown | Self::Unavailable { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_allow_is_never_older_than_asked_nor_than_its_lease() {
        let at = BootTime::from_millis(10_000);
        let grant = Grant { code: Code::Allow, request_id: None, confirmed_at: at };
        let standing = Standing::Allowed { since: at, grant };
        let lease = Duration::from_secs(30);
        let second = Duration::from_secs(1);
        assert!(standing.cached(at + second, second, lease).is_some());
        assert!(standing.cached(at + second + Duration::from_millis(1), second, lease).is_none());
        assert!(standing.cached(at + lease, second * 60, lease).is_none());
        assert!(standing.cached(at, Duration::ZERO, lease).is_some());
        assert!(Standing::Unknown.cached(at, second, lease).is_none());
    }

    #[test]
    fn an_allow_that_waits_to_be_told_is_overtaken_by_a_deny_and_by_nothing_else() {
        let at = BootTime::from_millis(10_000);
        let grant = Grant { code: Code::Allow, request_id: None, confirmed_at: at };
        let allowed = GateVerdict::Allowed { grant: grant.clone(), until: at };
        let refused = |code| ConfirmedDenial { denial: Denial::local(code, ""), confirmed_at: at };
        let denied = |code| Standing::Denied { refusal: refused(code), since: at };
        let killed = GateVerdict::Denied(refused(Code::LocalKill));
        assert_eq!(allowed.clone().told_under(&denied(Code::LocalKill)), killed);
        for standing in [Standing::Unknown, Standing::Allowed { since: at, grant }] {
            assert_eq!(allowed.clone().told_under(&standing), allowed);
        }
        let undecided = GateVerdict::undecided(Code::CheckTimeout, "late");
        for verdict in [killed, undecided] {
            assert_eq!(verdict.clone().told_under(&denied(Code::DeviceRevoked)), verdict);
        }
    }
}
