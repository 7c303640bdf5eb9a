//! The numbered, forward-only migrations of the `PostgreSQL` store.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgPool;

use super::super::OpenError;

/// The migrations by name; the first is number 1. The database keeps each one's number, description and hash, so none is
/// ever changed. sqlx's macro would list the folder itself, but compiles the driver a second time, for the compiler.
const MIGRATIONS: [(&str, &str); 8] = [
    ("first", include_str!("../../../migrations/postgres/0001_first.sql")),
    ("reports", include_str!("../../../migrations/postgres/0002_reports.sql")),
    (
        "old keys and ephemeral devices",
        include_str!("../../../migrations/postgres/0003_old_keys_and_ephemeral_devices.sql"),
    ),
    ("keys with roles", include_str!("../../../migrations/postgres/0004_keys_with_roles.sql")),
    (
        "two switches and revoked keys",
        include_str!("../../../migrations/postgres/0005_two_switches_and_revoked_keys.sql"),
    ),
    (
        "sidecars that prove themselves",
        include_str!("../../../migrations/postgres/0006_sidecars_that_prove_themselves.sql"),
    ),
    ("restores by two", include_str!("../../../migrations/postgres/0007_restores_by_two.sql")),
    ("count of revoked devices", include_str!("../../../migrations/postgres/0008_count_of_revoked_devices.sql")),
];

/// Creates missing tables and runs the missing migrations.
pub(super) async fn migrate(pool: &PgPool, place: &str) -> Result<(), OpenError> {
    migrator().run(pool).await.map_err(|source| {
        // A migration that the database has and this version does not know.
        if let MigrateError::VersionMissing(found) = source {
            return OpenError::Newer { found: found.to_string(), known: MIGRATIONS.len() };
        }
        OpenError::MigratePostgres { place: place.to_owned(), source }
    })
}

fn migrator() -> Migrator {
    let numbered = (1_i64..).zip(MIGRATIONS).map(|(number, (description, sql))| {
        Migration::new(number, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(numbered.collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Databases keep what sqlx made of the folder; a file that is missing from the list, or under another number or
    /// description, would make them look like those of another version.
    #[tokio::test]
    async fn the_list_is_what_the_folder_holds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
        let found = Migrator::new(folder).await.unwrap();
        let kept = |migrator: &Migrator| -> Vec<_> {
            migrator.iter().map(|one| (one.version, one.description.clone(), one.checksum.clone(), one.no_tx)).collect()
        };
        assert_eq!(kept(&migrator()), kept(&found));
    }
}
