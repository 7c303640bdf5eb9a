//! Tests of what is deleted because it is old or too much, and of what never is.

use super::*;
use crate::plan::most_revoked;

on_both! {
    the_oldest_entries_of_an_audit_go_by_age_and_by_size_and_no_other_organisations_do
    what_sidecars_told_of_an_organisation_is_bounded_and_the_newest_stays
    no_number_of_revokes_makes_room_for_a_device_by_forgetting_one
}

/// The reasons in an audit, the oldest first.
async fn reasons(store: &Store, org: OrgId) -> Vec<String> {
    let query = Query { org: Some(org), limit: 100, ..Query::default() };
    audited(store, &query).await.into_iter().filter_map(|(_, _, _, reason, _)| reason).collect()
}

fn the_oldest_entries_of_an_audit_go_by_age_and_by_size_and_no_other_organisations_do(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, other) = (org_with(&store, &[]).await, org_with(&store, &[]).await);
        for second in 1..=9 {
            let batch = distinct(vec!["ghost".to_owned()]).unwrap();
            for org in [org, other] {
                store.revoke(org, &batch, Verb::Revoke, &because(second, &second.to_string())).await.unwrap();
            }
        }
        let before = store.written().await.unwrap();
        store.forget(Kept::Audit, Surplus::Before(at(3))).await.unwrap();
        assert_eq!(reasons(&store, org).await, ["3", "4", "5", "6", "7", "8", "9"]);
        assert_eq!(reasons(&store, other).await.len(), 7);
        assert_eq!(store.over_bytes(org, 1_000_000).await.unwrap(), None);
        // Each entry is between 200 and 400 bytes.
        let place = store.over_bytes(org, 800).await.unwrap().unwrap();
        store.forget(Kept::Audit, Surplus::UpTo(org, place)).await.unwrap();
        let left = reasons(&store, org).await;
        assert!((2..=4).contains(&left.len()) && left.last().unwrap() == "9", "{left:?}");
        assert_eq!(store.over_bytes(org, 800).await.unwrap(), None);
        assert_eq!(reasons(&store, other).await.len(), 7);
        assert!(store.written().await.unwrap() >= before, "what was deleted counts as written");
    });
}

fn what_sidecars_told_of_an_organisation_is_bounded_and_the_newest_stays(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, other) = (org_with(&store, &["a"]).await, org_with(&store, &["a"]).await);
        for org in [org, other] {
            let events: Vec<_> = (0..9).map(|number| event(number, 400 - number)).collect();
            let stops: Vec<_> = (0..9).map(|run| stop(run, 100 - run, false)).collect();
            let rest = serde_json::json!({"events": events, "stops": stops});
            store.save_reports(vec![heard(org, 1, 1_000, &[("a", 0)], rest)]).await.unwrap();
        }
        for table in [Kept::Stops, Kept::Timeline] {
            assert_eq!(store.over_rows(table, org, 9).await.unwrap(), None);
            let place = store.over_rows(table, org, 4).await.unwrap().unwrap();
            store.forget(table, Surplus::UpTo(org, place)).await.unwrap();
        }
        let left = async |org| {
            let (stops, events) =
                (store.stops(org, &id("a")).await.unwrap(), store.timeline(org, &id("a")).await.unwrap());
            (stops.len(), events.iter().map(|known| known.event.id.number).collect::<Vec<_>>())
        };
        assert_eq!(left(org).await, (4, vec![8, 7, 6, 5]));
        assert_eq!(left(other).await.0, 9);
        assert_eq!(store.over_rows(Kept::Reports, org, 1).await.unwrap(), None);
        assert!(store.over_rows(Kept::Reports, org, 0).await.unwrap().is_some());
    });
}

fn no_number_of_revokes_makes_room_for_a_device_by_forgetting_one(runtime: &Runtime, store: Store) {
    let org = runtime.block_on(new_org(&store, PlanTier::Free));
    let most = most_revoked(PlanTier::Free.limit());
    let rows = |numbers: &str| {
        format!(
            "INSERT INTO devices (org_id, device_id, created_at, revoked_at, was_revoked)
             SELECT '{org}', 'old:' || number, 1, 1, TRUE FROM {numbers}"
        )
    };
    match &store.backend {
        Backend::Sqlite(sqlite) => {
            let numbers = format!(
                "(WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers
                 WHERE number < {most}) SELECT number FROM numbers)"
            );
            rusqlite::Connection::open(sqlite.path()).unwrap().execute(&rows(&numbers), []).unwrap();
        }
        Backend::Postgres(postgres) => {
            let insert = rows(&format!("generate_series(1, {most}) AS numbers (number)"));
            runtime.block_on(sqlx::query(sqlx::AssertSqlSafe(insert)).execute(postgres.pool())).unwrap();
        }
    }
    runtime.block_on(async {
        let register = async |name: &str| store.register(org, &id(name), None, &by(1)).await.unwrap().unwrap().0;
        assert_eq!(register("new").await, Admission::TooManyRevoked);
        assert_eq!(register("old:1").await, Admission::Revoked, "a revoked device never registers again");
        store.remove(org, &id("old:2"), false, &by(2)).await.unwrap().unwrap();
        assert_eq!(register("new").await, Admission::New);
    });
}
