//! Tests at the start what the address offers: how many connections, and whether a session keeps its server. Limits of
//! the server, the role, the database and a pooler all show up the same way, and a pooler in transaction mode is found
//! before it causes damage.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::super::StoreError;

/// How long the server or the pooler may take to grant the connections.
const GRANTED: Duration = Duration::from_secs(3);

/// The result of the test.
#[derive(Debug)]
pub(super) struct Survey {
    /// How many connections could be used at the same time.
    pub(super) granted: usize,
    /// Why there were no more: the server's message, or a timeout.
    pub(super) refused: Option<StoreError>,
    /// Whether two sessions shared a server process, or a session changed its process.
    pub(super) pooled: bool,
}

/// Opens `wanted` connections at once.
pub(super) async fn survey(options: &PgConnectOptions, wanted: usize) -> Survey {
    let tried = join_all((0..wanted).map(|_| async {
        let one = async {
            let mut connection = options.connect().await?;
            let process = process(&mut connection).await?;
            Ok::<_, StoreError>((connection, process))
        };
        tokio::time::timeout(GRANTED, one).await.unwrap_or(Err(StoreError::Late))
    }))
    .await;
    let mut refused = None;
    let mut sessions = Vec::new();
    for one in tried {
        match one {
            Ok(session) => sessions.push(session),
            Err(error) => refused = Some(error),
        }
    }
    let distinct: HashSet<i32> = sessions.iter().map(|(_, process)| *process).collect();
    let mut pooled = distinct.len() < sessions.len();
    // One after another: a pooler in transaction mode gives all of these the same server process.
    for (connection, before) in &mut sessions {
        let now = tokio::time::timeout(GRANTED, process(connection)).await;
        pooled |= matches!(now, Ok(Ok(now)) if now != *before);
    }
    let granted = sessions.len();
    join_all(sessions.into_iter().map(|(connection, _)| connection.close())).await;
    Survey { granted, refused, pooled }
}

/// The process that serves this session, queried without a prepared statement.
async fn process(connection: &mut PgConnection) -> Result<i32, StoreError> {
    Ok(connection.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await?.try_get(0)?)
}
