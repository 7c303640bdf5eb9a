//! What can be wrong with the database while it answers.

use super::super::{Demand, StoreError};
use super::{COMMIT, Postgres};
use crate::health::{Concern, Finding, Gravity};

impl Postgres {
    pub(in super::super) async fn examine(&self, demand: Demand) -> Vec<Finding> {
        match self.replication(demand).await {
            Ok(finding) => vec![finding],
            // A database that does not answer is found elsewhere. What was known of it stays.
            Err(_) => Vec::new(),
        }
    }

    /// Commits something that changes nothing. A logical message is written to the log like a change, by any role, and
    /// waits for the disk and for standbys like a change; there is no row that replicas would wait for each other about.
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
                format!("changes cannot be written, so that a revoke is refused: {error}"),
            ),
        }
    }
}
