//! Finds problems of a database that answers.

use super::super::{Demand, StoreError};
use super::{COMMIT, Postgres};
use crate::health::{Concern, Finding, Gravity};

impl Postgres {
    pub(in super::super) async fn examine(&self, demand: Demand) -> Vec<Finding> {
        match self.replication(demand).await {
            Ok(finding) => vec![finding],
            // The probe finds a database that does not answer. What was known about it stays.
            Err(_) => Vec::new(),
        }
    }

    /// Commits something that changes nothing. A logical message is written to the log like a change, by any role, and
    /// waits for the disk and for standbys like a change; unlike a row, it causes no lock conflict between servers.
    pub(in super::super) async fn try_to_write(&self) -> Finding {
        let written: Result<(), StoreError> = self
            .within(COMMIT, async {
                let read_only: String = sqlx::query_scalar("SHOW transaction_read_only").fetch_one(&self.pool).await?;
                if read_only == "on" {
                    return Err(StoreError::ReadOnly);
                }
                sqlx::query("SELECT pg_logical_emit_message(true, 'machineid', '')").execute(&self.pool).await?;
                Ok(())
            })
            .await;
        match written {
            Ok(()) => Finding::fine(Concern::Writes),
            Err(error) => Finding::wrong(
                Concern::Writes,
                Gravity::Failure,
                format!(
                    "changes cannot be written, so that they are refused, and stops are in force at this server alone: {error}"
                ),
            ),
        }
    }
}
