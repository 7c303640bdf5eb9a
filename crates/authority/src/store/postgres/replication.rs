//! Checks whether answered changes survive the loss of the primary: a revoke that only the primary has is lost in a
//! failover, with its audit entry. [`judge`] is pure.
//!
//! Every role sees the settings and how many processes receive the log. Only members of `pg_monitor` see which of those
//! are standbys and whether the primary waits for them; for an ordinary role the check relies on the settings.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};

use super::super::{Demand, StoreError};
use super::{OPERATION, Postgres};
use crate::health::{Concern, Finding, Gravity};

/// The database's own data about its replication.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    /// The setting `synchronous_standby_names`: empty when no standby is waited for.
    names: String,
    /// The setting `synchronous_commit` in effect for this role.
    commit: String,
    /// The number of receivers of the log, without logical subscribers and base backups as far as they can be told
    /// apart.
    receivers: i64,
    /// The receivers that the primary waits for.
    waited_for: i64,
    /// The receivers whose kind this role may not see.
    hidden: i64,
    /// The number of physical replication slots, connected or not.
    slots: i64,
}

impl FromRow<'_, PgRow> for Facts {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            names: row.try_get("names")?,
            commit: row.try_get("commit")?,
            receivers: row.try_get("receivers")?,
            waited_for: row.try_get("waited_for")?,
            hidden: row.try_get("hidden")?,
            slots: row.try_get("slots")?,
        })
    }
}

const FACTS: &str = "
    SELECT current_setting('synchronous_standby_names') AS names, current_setting('synchronous_commit') AS commit,
        COUNT(s.pid) AS receivers, COUNT(s.pid) FILTER (WHERE s.sync_state IN ('sync', 'quorum')) AS waited_for,
        COUNT(s.pid) FILTER (WHERE s.sync_state IS NULL) AS hidden,
        (SELECT COUNT(*) FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary) AS slots
    FROM (VALUES (1)) AS one
    LEFT JOIN pg_stat_replication AS s ON s.state IS DISTINCT FROM 'backup' AND s.pid NOT IN
        (SELECT active_pid FROM pg_replication_slots WHERE slot_type = 'logical' AND active_pid IS NOT NULL)";

/// A setting by which a commit does not wait until a standby has it on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NotSynchronous<'a> {
    #[error(
        "synchronous_commit is {commit}: {}. Set it to on, or for this role alone: ALTER ROLE … SET \
         synchronous_commit = on",
        lost(commit)
    )]
    Commit { commit: &'a str },
    #[error(
        "synchronous_standby_names is empty, so no standby is waited for: a revoke that was answered can be gone after a \
         failover. Name them, as in: ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'"
    )]
    NoNames,
}

/// The damage that a value of `synchronous_commit` permits.
fn lost(commit: &str) -> &'static str {
    match commit {
        "off" => "a revoke that was answered can be lost when the database crashes",
        "local" => "no standby is waited for, so a revoke that was answered can be gone after a failover",
        _ => {
            "a commit does not wait until a standby has written it, so a revoke that was answered can be gone after a \
             failover"
        }
    }
}

/// Checks whether a commit waits until a standby has it on its disk.
fn waits(facts: &Facts) -> Result<(), NotSynchronous<'_>> {
    let Facts { names, commit, .. } = facts;
    if !matches!(commit.as_str(), "on" | "remote_apply") {
        return Err(NotSynchronous::Commit { commit });
    }
    if names.trim().is_empty() { Err(NotSynchronous::NoNames) } else { Ok(()) }
}

/// The finding about replication.
fn judge(facts: &Facts, demand: Demand) -> Finding {
    let Facts { receivers, waited_for, hidden, slots, .. } = facts;
    let others = (*receivers).max(*slots);
    let who = match (others, *receivers, *hidden) {
        (0, _, _) => "no standby is known".to_owned(),
        (count, 0, _) => format!("physical replication slots: {count}, none is connected"),
        (_, count, 0) => format!("standbys or archivers connected: {count}"),
        (_, count, _) => format!(
            "receivers of the log connected: {count}; this role may not see whether they are standbys (GRANT pg_monitor \
             TO it)"
        ),
    };
    let gravity = match demand {
        Demand::Synchronous => Gravity::NotReady,
        Demand::Nothing => Gravity::Warning,
    };
    match waits(facts) {
        // The loss of the primary alone loses the change.
        Err(problem) if others > 0 || demand == Demand::Synchronous || facts.commit == "off" => {
            Finding::wrong(Concern::Durability, gravity, format!("{problem} ({who})"))
        }
        Ok(()) if *receivers > 0 && *hidden == 0 && *waited_for == 0 => Finding::wrong(
            Concern::Durability,
            Gravity::Warning,
            format!("synchronous_standby_names names standbys of which none is connected: every change waits ({who})"),
        ),
        Ok(()) | Err(_) => Finding::fine(Concern::Durability),
    }
}

impl Postgres {
    /// Queries the replication state and judges it.
    pub(super) async fn replication(&self, demand: Demand) -> Result<Finding, StoreError> {
        let facts: Facts =
            self.within(OPERATION, async { Ok(sqlx::query_as(FACTS).fetch_one(&self.pool).await?) }).await?;
        Ok(judge(&facts, demand))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(names: &str, commit: &str, receivers: i64, waited_for: i64, hidden: i64, slots: i64) -> Facts {
        Facts { names: names.to_owned(), commit: commit.to_owned(), receivers, waited_for, hidden, slots }
    }

    fn said(facts: &Facts, demand: Demand) -> Option<(Gravity, String)> {
        judge(facts, demand).trouble.map(|trouble| (trouble.gravity, trouble.text))
    }

    #[test]
    fn a_standby_that_is_not_waited_for_is_warned_of_and_refused_where_that_is_demanded() {
        for (facts, contains) in [
            (facts("", "on", 1, 0, 0, 0), "synchronous_standby_names is empty"),
            (facts("", "on", 0, 0, 0, 1), "none is connected"),
            (facts("", "on", 2, 0, 2, 0), "this role may not see"),
            (facts("*", "local", 1, 1, 0, 0), "synchronous_commit is local"),
            (facts("*", "remote_write", 1, 1, 0, 0), "synchronous_commit is remote_write"),
            (facts("", "off", 0, 0, 0, 0), "when the database crashes"),
        ] {
            let (gravity, text) = said(&facts, Demand::Nothing).unwrap();
            assert!(gravity == Gravity::Warning && text.contains(contains), "{facts:?}: {text}");
            assert_eq!(said(&facts, Demand::Synchronous).unwrap().0, Gravity::NotReady, "{facts:?}");
        }
    }

    #[test]
    fn what_is_waited_for_is_fine_and_so_is_a_database_alone() {
        for (facts, alone) in [
            (facts("ANY 1 (*)", "on", 2, 2, 0, 2), false),
            (facts("a", "remote_apply", 2, 1, 0, 0), false),
            // An ordinary role sees the settings, and they say enough.
            (facts("*", "on", 1, 0, 1, 0), false),
            (facts("", "on", 0, 0, 0, 0), true),
            (facts("", "local", 0, 0, 0, 0), true),
        ] {
            assert_eq!(said(&facts, Demand::Nothing), None, "{facts:?}");
            // Standbys may come later: what is demanded is that they will be waited for.
            assert_eq!(said(&facts, Demand::Synchronous).is_some(), alone, "{facts:?}");
        }
        let (gravity, text) = said(&facts("a", "on", 1, 0, 0, 0), Demand::Synchronous).unwrap();
        assert!(gravity == Gravity::Warning && text.contains("every change waits"), "{text}");
    }
}
