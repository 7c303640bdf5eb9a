//! The numbered, forward-only migrations, and how a database is brought to the newest.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::super::OpenError;

/// The migrations; the first is number 1. `PRAGMA user_version` is the number of migrations that a database has. None
/// is ever changed.
const MIGRATIONS: [&str; 10] = [
    include_str!("../../../migrations/sqlite/0001_organisations_and_devices.sql"),
    include_str!("../../../migrations/sqlite/0002_audit_and_reasons.sql"),
    include_str!("../../../migrations/sqlite/0003_counts_limits_and_last_seen.sql"),
    include_str!("../../../migrations/sqlite/0004_reports.sql"),
    include_str!("../../../migrations/sqlite/0005_old_keys_and_ephemeral_devices.sql"),
    include_str!("../../../migrations/sqlite/0006_keys_with_roles.sql"),
    include_str!("../../../migrations/sqlite/0007_two_switches_and_revoked_keys.sql"),
    include_str!("../../../migrations/sqlite/0008_sidecars_that_prove_themselves.sql"),
    include_str!("../../../migrations/sqlite/0009_restores_by_two.sql"),
    include_str!("../../../migrations/sqlite/0010_count_of_revoked_devices.sql"),
];

/// Runs the missing migrations: all of them, or none.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Migrate { path: path.to_owned(), source };
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let found: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let seen = usize::try_from(found).unwrap_or(usize::MAX);
    if seen > MIGRATIONS.len() {
        return Err(OpenError::Newer { found: found.to_string(), known: MIGRATIONS.len() });
    }
    let tables: u32 = tx.query_row("SELECT COUNT(*) FROM sqlite_master", [], |row| row.get(0)).map_err(failed)?;
    if found == 0 && tables > 0 {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    for (number, migration) in (1_u32..).zip(MIGRATIONS).skip(seen) {
        tx.execute_batch(migration).map_err(failed)?;
        tx.pragma_update(None, "user_version", number).map_err(failed)?;
    }
    tx.commit().map_err(failed)
}
