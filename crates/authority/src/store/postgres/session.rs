//! One connection to the database: how it is made, and which server it leads to.
//!
//! An address (a virtual IP, a DNS name, a proxy) can lead to another server at any time, also to a standby or to an
//! old primary. So each new connection identifies its server before it is used. An existing session never moves: a
//! primary becomes a standby only by a restart, which ends its sessions.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Executor, Row};

use super::super::StoreError;
use super::lost;

/// The settings of a session of the pool.
const OPERATIONS: &str = "SET statement_timeout = '8s'; SET lock_timeout = '2s'; \
                          SET idle_in_transaction_session_timeout = '10s'";

/// The settings of a session for decisions: it runs one statement, always by the same indexes. Making a new plan for
/// each execution costs more than the execution, and a generic plan made while the tables were empty scans them whole.
const DECISIONS: &str = "SET statement_timeout = '3s'; SET plan_cache_mode = force_generic_plan; SET jit = off; \
                         SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; \
                         SET enable_mergejoin = off";

/// Identifies the server of a session.
const WHERE: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
                     (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
                     (SELECT system_identifier FROM pg_control_system()), \
                     CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END";

/// Identifies the server where the provider hides the last two values.
const WHERE_AT_LEAST: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
                              (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, NULL::bigint, NULL::text";

/// How long an idle connection may take to answer a check.
const ALIVE: Duration = Duration::from_millis(500);

/// The purpose of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionPurpose {
    Decisions,
    Operations,
}

/// A running server: the same value for every session until the server restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// The start time of the server, in microseconds.
    started: i64,
    era: Option<Era>,
}

/// The database system and its timeline. A promotion begins a new timeline, with a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Era {
    system: i64,
    timeline: u32,
}

/// The servers that an address has led to.
#[derive(Debug, Default)]
pub(super) struct KnownServers {
    // A std mutex: held for a comparison, never across an await.
    seen: Mutex<SeenServers>,
}

#[derive(Debug, Default)]
struct SeenServers {
    /// The server that the newest connection led to.
    current: Option<Server>,
    newest: Option<Era>,
    /// How often the address moved away from a server.
    moves: u64,
}

/// A server's description of itself.
#[derive(Clone, Copy, Debug)]
struct ServerFacts {
    standby: bool,
    read_only: bool,
    server: Server,
}

impl KnownServers {
    /// Records that a new connection led to `server`; sessions on another server end. Fails for an old primary that a
    /// promotion has left behind. Returns whether the server changed.
    fn arrived(&self, server: Server) -> Result<bool, StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(newest), Some(era)) = (seen.newest, server.era)
            && newest.system == era.system
            && newest.timeline > era.timeline
        {
            return Err(StoreError::Superseded);
        }
        seen.newest = server.era.or(seen.newest);
        let moved = seen.current.is_some_and(|current| current != server);
        seen.current = Some(server);
        seen.moves += u64::from(moved);
        Ok(moved)
    }

    /// Records that a new connection led to a server that cannot decide; sessions on the previous one end, too.
    pub(super) fn astray(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.moves += u64::from(seen.current.take().is_some());
    }

    /// How often the address moved away from a server. A transaction begun before the newest move may be on the
    /// previous server.
    pub(super) fn moves(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).moves
    }

    /// Whether the address still leads to `server`, as far as is known.
    pub(super) fn is_current(&self, server: Server) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).current == Some(server)
    }
}

/// Connects for `purpose`. Fails unless the connection leads to the one primary.
pub(super) async fn open(
    options: &PgConnectOptions,
    known: &KnownServers,
    purpose: SessionPurpose,
) -> Result<(PgConnection, Server), StoreError> {
    let mut connection = options.connect().await?;
    let server = prepare(&mut connection, known, purpose).await?;
    Ok((connection, server))
}

/// Prepares a new connection. Settings are sent after the connection is made and not with it: poolers refuse unknown
/// parameters in the first packet.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    known: &KnownServers,
    purpose: SessionPurpose,
) -> Result<Server, StoreError> {
    let place = place(connection).await?;
    if place.standby {
        return Err(StoreError::Standby);
    }
    if place.read_only {
        return Err(StoreError::ReadOnly);
    }
    if known.arrived(place.server)? {
        tracing::warn!("the database's address leads to another server now; closing sessions on the previous one");
    }
    let settings = match purpose {
        SessionPurpose::Decisions => DECISIONS,
        SessionPurpose::Operations => OPERATIONS,
    };
    connection.execute(sqlx::raw_sql(settings)).await?;
    Ok(place.server)
}

/// Whether an idle connection is alive and leads to the current server.
pub(super) async fn still_good(connection: &mut PgConnection, known: &KnownServers) -> bool {
    match tokio::time::timeout(ALIVE, place(connection)).await {
        Ok(Ok(place)) => !place.standby && !place.read_only && known.is_current(place.server),
        Ok(Err(_)) | Err(_) => false,
    }
}

async fn place(connection: &mut PgConnection) -> Result<ServerFacts, StoreError> {
    let row = match connection.fetch_one(sqlx::raw_sql(WHERE)).await.map_err(StoreError::from) {
        Ok(row) => row,
        Err(error) if lost(&error) => return Err(error),
        Err(_) => connection.fetch_one(sqlx::raw_sql(WHERE_AT_LEAST)).await?,
    };
    Ok(ServerFacts { standby: row.try_get(0)?, read_only: row.try_get(1)?, server: server(&row)? })
}

fn server(row: &PgRow) -> Result<Server, StoreError> {
    let timeline: Option<String> = row.try_get(4)?;
    let timeline = timeline.and_then(|digits| u32::from_str_radix(&digits, 16).ok());
    let era = row.try_get::<Option<i64>, _>(3)?.zip(timeline).map(|(system, timeline)| Era { system, timeline });
    Ok(Server { started: row.try_get(2)?, era })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(started: i64, system: i64, timeline: u32) -> Server {
        Server { started, era: Some(Era { system, timeline }) }
    }

    #[test]
    fn an_old_primary_is_refused_once_a_promotion_was_seen() {
        let known = KnownServers::default();
        let (old, new) = (server(1, 7, 1), server(2, 7, 2));
        assert!(!known.arrived(old).unwrap());
        assert!(known.is_current(old));
        assert!(known.arrived(new).unwrap());
        assert!(known.is_current(new) && !known.is_current(old));
        assert!(matches!(known.arrived(old), Err(StoreError::Superseded)));
        assert!(known.is_current(new));
    }

    #[test]
    fn each_server_that_is_left_is_counted() {
        let known = KnownServers::default();
        let (old, new) = (server(1, 7, 1), server(2, 7, 2));
        known.astray();
        known.arrived(old).unwrap();
        known.arrived(old).unwrap();
        assert_eq!(known.moves(), 0);
        known.arrived(new).unwrap();
        assert_eq!(known.moves(), 1);
        // Refused: this is not the server that the address leads to now.
        assert!(known.arrived(old).is_err());
        assert_eq!(known.moves(), 1);
        known.astray();
        known.astray();
        assert!(!known.is_current(new));
        assert!(!known.arrived(new).unwrap() && known.is_current(new));
        assert_eq!(known.moves(), 2);
    }

    #[test]
    fn another_database_system_has_timelines_of_its_own() {
        let known = KnownServers::default();
        known.arrived(server(1, 7, 5)).unwrap();
        assert!(known.arrived(server(2, 8, 1)).unwrap());
        // Where the provider hides the timeline, only the start time tells servers apart.
        assert!(known.arrived(Server { started: 3, era: None }).unwrap());
    }
}
