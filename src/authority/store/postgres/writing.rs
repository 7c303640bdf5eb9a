//! A transaction that may write, which says that it is done only if its server was not left meanwhile.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::postgres::PgPool;
use sqlx::{Postgres as Db, Transaction};

use super::super::StoreError;
use super::COMMIT;
use super::health::Health;

/// A transaction. Rolled back when it is dropped.
#[derive(Debug)]
pub(super) struct Writing {
    tx: Transaction<'static, Db>,
    health: Arc<Health>,
    /// How often a server had been left before it began.
    moves: u64,
}

impl Writing {
    pub(super) async fn begin(pool: &PgPool, health: &Arc<Health>) -> Result<Self, StoreError> {
        loop {
            let moves = health.known.moves();
            let tx = pool.begin().await?;
            // Else it may be on a server that was left while it waited for its connection.
            if health.known.moves() == moves {
                return Ok(Self { tx, health: Arc::clone(health), moves });
            }
        }
    }

    /// Commits. A transaction can wait for a lock for seconds, and the old primary then commits what the new one never gets.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let Self { tx, health, moves } = self;
        let stayed = || if health.known.moves() == moves { Ok(()) } else { Err(StoreError::Superseded) };
        stayed()?;
        tokio::time::timeout(COMMIT, tx.commit()).await.map_err(|_| StoreError::Late)??;
        stayed()
    }
}

impl Deref for Writing {
    type Target = Transaction<'static, Db>;

    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.tx
    }
}
