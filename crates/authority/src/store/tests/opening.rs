//! Tests of databases that are not served.

use super::*;

on_both! {
    a_database_of_a_newer_version_is_refused
}

/// The stores differ in where they record their migrations.
fn a_database_of_a_newer_version_is_refused(runtime: &Runtime, store: Store) {
    let database = match &store.backend {
        Backend::Sqlite(sqlite) => {
            let path = sqlite.path().to_owned();
            rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 9999).unwrap();
            Database::Sqlite(path)
        }
        Backend::Postgres(postgres) => {
            let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'from the future', TRUE, '', 0)";
            runtime.block_on(sqlx::query(insert).execute(postgres.pool())).unwrap();
            Database::Postgres(Box::new((*postgres.pool().connect_options()).clone()))
        }
    };
    runtime.block_on(store.close());
    let error = runtime.block_on(Store::open(&database, Terms::default(), Reserves::default())).unwrap_err();
    assert!(matches!(&error, OpenError::Newer { found, .. } if found == "9999"), "{error}");
    assert!(error.to_string().contains("written by a newer version"), "{error}");
}

#[test]
fn a_database_in_use_and_that_of_another_program_are_refused() {
    let directory = tempfile::TempDir::new().unwrap();
    let runtime = runtime();
    let store =
        runtime.block_on(Store::open(&sqlite(directory.path()), Terms::default(), Reserves::default())).unwrap();
    let link = directory.path().join("same.db");
    std::os::unix::fs::symlink(directory.path().join("test.db"), &link).unwrap();
    let error =
        runtime.block_on(Store::open(&Database::Sqlite(link), Terms::default(), Reserves::default())).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    runtime.block_on(store.close());
    let other = directory.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error =
        runtime.block_on(Store::open(&Database::Sqlite(other), Terms::default(), Reserves::default())).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}
