//! What the address grants, found out at the start by trying: how many connections, and whether a session keeps its
//! server. A limit of the server, of the role, of the database or of a pooler shows alike, and a pooler that would lend a
//! session another server for each transaction is found out before it breaks something.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::super::StoreError;

/// How long the server or the pooler has to grant the connections.
const GRANTED: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug)]
pub(super) struct Survey {
    /// How many connections could be used at the same time.
    pub(super) granted: usize,
    /// Why not more: what the server said, or that it said nothing in time.
    pub(super) refused: Option<StoreError>,
    /// Whether two sessions shared a server's process, or one changed it.
    pub(super) pooled: bool,
}

/// Tries so many connections at once.
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
    // One after another: a pooler that lends servers out lends all of these the same one.
    for (connection, before) in &mut sessions {
        let now = tokio::time::timeout(GRANTED, process(connection)).await;
        pooled |= matches!(now, Ok(Ok(now)) if now != *before);
    }
    let granted = sessions.len();
    join_all(sessions.into_iter().map(|(connection, _)| connection.close())).await;
    Survey { granted, refused, pooled }
}

/// The process that serves this session, asked without a prepared statement.
async fn process(connection: &mut PgConnection) -> Result<i32, StoreError> {
    Ok(connection.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await?.try_get(0)?)
}
