//! The known problems of a running authority: logged when one begins and ends, and shown in `/readyz`, in `org list`
//! and in the metrics, where an alert rule finds them.
//!
//! ```text
//!   store ──examination, every few seconds──▶ Finding ──▶ Health ─▶ /readyz, org list, metrics, log
//! ```
//!
//! Almost no problem makes the server *not ready*: an orchestrator that takes a server out of service because its disk
//! is full would stop every agent at the end of its lease, though every decision is still correct. Not ready is only a
//! server whose data cannot be trusted (a damaged database), and one that was told not to serve in this state
//! (`--require-synchronous`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

/// A part of the server that can have a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Concern {
    /// Changes cannot be written.
    Writes,
    /// Stops are in force that are not in the database, or could not be kept if there were any.
    Stops,
    /// The disk is almost full.
    Space,
    /// The database is damaged.
    Integrity,
    /// The database's file is not the one that is served, or is also served under another name.
    File,
    /// Answered changes can be lost with the database's host.
    Durability,
}

/// How serious a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gravity {
    /// An operator should look.
    Warning,
    /// A guarantee is broken, or soon will be.
    Failure,
    /// The server should get no requests.
    NotReady,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) gravity: Gravity,
    /// The problem, and what to do.
    pub(super) text: String,
}

/// The result of examining one concern; `None` means no problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) concern: Concern,
    pub(super) trouble: Option<Trouble>,
}

/// A problem as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the name on the wire")]
pub(super) struct Problem {
    pub(super) concern: Concern,
    pub(super) problem: String,
    pub(super) since: Timestamp,
}

/// All known problems.
#[derive(Debug, Default)]
pub(super) struct Health {
    // A std mutex: held for one look-up, never across an await.
    found: Mutex<ConcernHistory>,
}

#[derive(Debug, Default)]
struct ConcernHistory {
    troubles: BTreeMap<Concern, (Trouble, Timestamp)>,
    written_at: Option<Timestamp>,
}

impl Concern {
    /// All concerns, for the metrics.
    pub(super) const ALL: [Self; 6] =
        [Self::Writes, Self::Stops, Self::Space, Self::Integrity, Self::File, Self::Durability];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Stops => "stops",
            Self::Space => "space",
            Self::Integrity => "integrity",
            Self::File => "file",
            Self::Durability => "durability",
        }
    }
}

impl Finding {
    pub(super) const fn fine(concern: Concern) -> Self {
        Self { concern, trouble: None }
    }

    pub(super) fn wrong(concern: Concern, gravity: Gravity, text: impl Into<String>) -> Self {
        Self { concern, trouble: Some(Trouble { gravity, text: text.into() }) }
    }
}

impl Health {
    /// Records a finding, and logs what is new about it.
    pub(super) fn take(&self, finding: Finding, now: Timestamp) {
        let Finding { concern, trouble } = finding;
        let mut found = self.lock();
        if concern == Concern::Writes && trouble.is_none() {
            found.written_at = Some(now);
        }
        let before = found.troubles.remove(&concern);
        let name = concern.as_str();
        match (&trouble, &before) {
            (None, None) => {}
            (None, Some(_)) => info!(concern = name, "problem resolved"),
            (Some(trouble), Some((known, _))) if trouble == known => {}
            (Some(Trouble { gravity: Gravity::Warning, text }), _) => warn!(concern = name, "{text}"),
            (Some(Trouble { gravity: Gravity::Failure | Gravity::NotReady, text }), _) => {
                error!(concern = name, "{text}");
            }
        }
        if let Some(trouble) = trouble {
            let since = before.map_or(now, |(_, since)| since);
            found.troubles.insert(concern, (trouble, since));
        }
    }

    /// All known problems.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let one = |(concern, (trouble, since)): (&Concern, &(Trouble, Timestamp))| Problem {
            concern: *concern,
            problem: trouble.text.clone(),
            since: *since,
        };
        self.lock().troubles.iter().map(one).collect()
    }

    /// Whether the server should get requests.
    pub(super) fn is_ready(&self) -> bool {
        self.lock().troubles.values().all(|(trouble, _)| trouble.gravity != Gravity::NotReady)
    }

    /// Whether this concern has a problem.
    pub(super) fn is_wrong(&self, concern: Concern) -> bool {
        self.lock().troubles.contains_key(&concern)
    }

    /// When a change was last written, as far as is known.
    pub(super) fn written_at(&self) -> Option<Timestamp> {
        self.lock().written_at
    }

    fn lock(&self) -> MutexGuard<'_, ConcernHistory> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_wrong_is_kept_with_its_beginning_until_it_is_right() {
        let health = Health::default();
        let full = || Finding::wrong(Concern::Writes, Gravity::Failure, "the disk is full");
        health.take(full(), at(1));
        health.take(Finding::wrong(Concern::Space, Gravity::Warning, "little is left"), at(2));
        health.take(full(), at(3));
        let found = health.problems();
        let told: Vec<_> = found.iter().map(|one| (one.concern, one.since)).collect();
        assert_eq!(told, [(Concern::Writes, at(1)), (Concern::Space, at(2))]);
        assert!(health.is_ready() && health.is_wrong(Concern::Writes) && health.written_at().is_none());
        health.take(Finding::fine(Concern::Writes), at(4));
        health.take(Finding::wrong(Concern::Integrity, Gravity::NotReady, "damaged"), at(5));
        assert!(!health.is_ready() && !health.is_wrong(Concern::Writes));
        assert_eq!(health.written_at(), Some(at(4)));
    }
}
