//! Tests of reports of sidecars, and of how long they are kept.

use super::*;

on_both! {
    what_a_sidecar_reports_takes_the_place_of_what_it_said_before
    a_report_that_comes_late_changes_nothing_but_what_happened
    what_is_kept_of_a_device_is_bounded_and_the_newest_stays
    observers_are_told_of_reports_once_they_can_be_read_and_no_sidecar_is
    what_is_said_of_devices_that_were_revoked_lately_is_found
    old_reports_are_forgotten_however_many_there_are_and_newer_ones_stay
}

/// Deletes what sidecars told before this time.
async fn forget_told(store: &Store, before: Timestamp) {
    for table in [Kept::Reports, Kept::Stops, Kept::Timeline] {
        store.forget(table, Surplus::Before(before)).await.unwrap();
    }
}

/// Each device with the sidecars that use it and their numbers of agents.
async fn told(store: &Store, org: OrgId) -> Vec<(String, Vec<(String, u32)>)> {
    let rows = store.fleet(org, &Filter::default()).await.unwrap().unwrap();
    let row = |row: FleetRow| {
        let said = |heard: &crate::reports::HeardDevice| {
            (heard.sidecar.to_string()[31..].to_owned(), heard.said.device.agents)
        };
        (row.device.id.clone(), row.heard.iter().map(said).collect())
    };
    rows.devices.into_iter().map(row).collect()
}

fn what_a_sidecar_reports_takes_the_place_of_what_it_said_before(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        let other = org_with(&store, &["a"]).await;
        let reports = vec![
            heard(org, 1, 10, &[("a", 1), ("b", 2), ("ghost", 3)], nothing()),
            heard(org, 2, 11, &[("a", 4)], nothing()),
            heard(other, 1, 12, &[("a", 5)], nothing()),
        ];
        store.save_reports(reports).await.unwrap();
        let of = |list: &[(&str, u32)]| list.iter().map(|(id, agents)| ((*id).to_owned(), *agents)).collect::<Vec<_>>();
        let both = [("a".to_owned(), of(&[("2", 4), ("1", 1)])), ("b".to_owned(), of(&[("1", 2)]))];
        assert_eq!(told(&store, org).await, both, "the newest first, and a report makes no device");
        store.save_reports(vec![heard(org, 1, 13, &[("a", 0)], nothing())]).await.unwrap();
        let left = [("a".to_owned(), of(&[("1", 0), ("2", 4)])), ("b".to_owned(), of(&[]))];
        assert_eq!(told(&store, org).await, left, "a device that is not in it is used no more");
        assert_eq!(told(&store, other).await, [("a".to_owned(), of(&[("1", 5)]))], "nor is another organisation's");
        forget_told(&store, at(12)).await;
        assert_eq!(told(&store, org).await[0].1, of(&[("1", 0)]));
        store.change_org(org, &OrgChange::Delete, &by(14)).await.unwrap().unwrap();
        assert!(store.fleet(org, &Filter::default()).await.unwrap().is_none());
        store.save_reports(vec![heard(org, 1, 15, &[("a", 0)], nothing())]).await.unwrap();
    });
}

fn what_is_said_of_devices_that_were_revoked_lately_is_found(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b", "c"]).await;
        let reports = vec![
            heard(org, 1, 10, &[("a", 1), ("b", 2), ("c", 1)], nothing()),
            heard(org, 2, 11, &[("a", 4)], nothing()),
        ];
        store.save_reports(reports).await.unwrap();
        store.revoke(org, &distinct(vec!["b".to_owned()]).unwrap(), Verb::Revoke, &by(20)).await.unwrap();
        store.revoke(org, &distinct(vec!["a".to_owned()]).unwrap(), Verb::Revoke, &by(30)).await.unwrap();
        let found = async |since, until| {
            let found = store.lately_revoked(at(since), at(until)).await.unwrap();
            found.iter().map(|one| (one.revoked_at, one.heard.len())).collect::<Vec<_>>()
        };
        assert_eq!(found(0, 40).await, [(at(30), 2), (at(20), 1)]);
        assert_eq!(found(25, 40).await, [(at(30), 2)]);
        assert_eq!(found(0, 25).await, [(at(20), 1)]);
        assert_eq!(store.approvals_waiting(at(40)).await.unwrap(), 0);
    });
}

fn a_report_that_comes_late_changes_nothing_but_what_happened(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        let late =
            heard(org, 1, 10, &[("b", 7)], serde_json::json!({"events": [event(1, 0)], "stops": [stop(1, 0, false)]}));
        let late = HeardReport { heard_at: at(20), ..late };
        store.save_reports(vec![heard(org, 1, 19, &[("a", 1)], nothing()), late.clone()]).await.unwrap();
        let agents = told(&store, org).await;
        assert_eq!((agents[0].1.len(), agents[1].1.len()), (1, 0), "{agents:?}");
        assert_eq!(store.timeline(org, &id("a")).await.unwrap().len(), 1);
        assert_eq!(store.stops(org, &id("a")).await.unwrap().len(), 1);
        store.save_reports(vec![HeardReport { heard_at: at(90), ..late }]).await.unwrap();
        let agents = told(&store, org).await;
        assert_eq!((agents[0].1.len(), agents[1].1.len()), (0, 1), "nothing is under way for so long: {agents:?}");
    });
}

fn what_is_kept_of_a_device_is_bounded_and_the_newest_stays(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a"]).await;
        for sidecar in 0..70 {
            store
                .save_reports(vec![heard(org, sidecar, 100 + i64::from(sidecar), &[("a", sidecar)], nothing())])
                .await
                .unwrap();
        }
        let sidecars = told(&store, org).await.remove(0).1;
        assert_eq!((sidecars.len(), sidecars[0].1, sidecars[63].1), (64, 69, 6));

        for round in 0..3_i64 {
            let events: Vec<_> = (round * 100..round * 100 + 100).map(|number| event(number, 400 - number)).collect();
            let stops: Vec<_> = (round * 10..round * 10 + 10).map(|run| stop(run, 100 - run, false)).collect();
            let rest = serde_json::json!({"events": events, "stops": stops});
            store.save_reports(vec![heard(org, 1, 1_000, &[("a", 0)], rest.clone())]).await.unwrap();
            // A report whose answer was lost is sent again.
            store.save_reports(vec![heard(org, 1, 1_000, &[("a", 0)], rest)]).await.unwrap();
        }
        let events = store.timeline(org, &id("a")).await.unwrap();
        let numbers: Vec<u64> = events.iter().map(|known| known.event.id.number).collect();
        assert_eq!(numbers, (100..300).rev().collect::<Vec<_>>(), "each once, the newest first");
        assert_eq!(events[0].at, at(1_000) - std::time::Duration::from_millis(101), "on the authority's clock");
        let stops = store.stops(org, &id("a")).await.unwrap();
        assert_eq!((stops.len(), stops[0].stop.run_id.to_string()), (20, format!("{:032x}", 29)));
        let again = heard(org, 1, 1_001, &[("a", 0)], serde_json::json!({"stops": [stop(29, 5, true)]}));
        store.save_reports(vec![again]).await.unwrap();
        let last = store.fleet(org, &Filter::default()).await.unwrap().unwrap().devices.remove(0).last_stop.unwrap();
        assert_eq!((last.stop.confirmed, last.began_at), (true, stops[0].began_at), "the same stop, further along");
        forget_told(&store, at(2_000)).await;
        assert!(store.timeline(org, &id("a")).await.unwrap().is_empty());
        assert!(store.stops(org, &id("a")).await.unwrap().is_empty());
    });
}

fn observers_are_told_of_reports_once_they_can_be_read_and_no_sidecar_is(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, other) = (org_with(&store, &["a", "b"]).await, org_with(&store, &["a"]).await);
        let mut news = store.changes().listen();
        let reports = vec![
            heard(org, 2, 5, &[("b", 1)], nothing()),
            heard(org, 1, 5, &[("a", 1)], nothing()),
            heard(other, 1, 5, &[("a", 1)], nothing()),
        ];
        store.save_reports(reports).await.unwrap();
        let mut heard = vec![news.recv().await.unwrap(), news.recv().await.unwrap()];
        heard.sort_by_key(|change| matches!(change, Change::Reports(first, _) if *first == other));
        assert_eq!(heard, [Change::Reports(org, vec![id("a"), id("b")]), Change::Reports(other, vec![id("a")])]);
    });
}

/// The stores differ in how they make this many rows, more than either deletes at once.
fn old_reports_are_forgotten_however_many_there_are_and_newer_ones_stay(runtime: &Runtime, store: Store) {
    let org = runtime.block_on(org_with(&store, &["a", "b"]));
    let rows = |numbers: &str| {
        format!(
            "INSERT INTO timeline (org_id, device_id, sidecar_id, life, number, at, body)
             SELECT '{org}', 'b', 'any', 1, number, number, '' FROM {numbers}"
        )
    };
    match &store.backend {
        Backend::Sqlite(sqlite) => {
            let numbers = "(WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers
                 WHERE number < 10001) SELECT number FROM numbers)";
            rusqlite::Connection::open(sqlite.path()).unwrap().execute(&rows(numbers), []).unwrap();
        }
        Backend::Postgres(postgres) => {
            let insert = rows("generate_series(1, 10001) AS numbers (number)");
            runtime.block_on(sqlx::query(sqlx::AssertSqlSafe(insert)).execute(postgres.pool())).unwrap();
        }
    }
    runtime.block_on(async {
        let rest = serde_json::json!({"stops": [stop(1, 0, true)], "events": [event(1, 0)]});
        store.save_reports(vec![heard(org, 1, 10, &[("a", 1)], rest)]).await.unwrap();
        let left = async || {
            let told = told(&store, org).await.into_iter().filter(|(_, heard)| !heard.is_empty()).count();
            let (stops, timeline) = (store.stops(org, &id("a")).await, store.timeline(org, &id("a")).await);
            (told, stops.unwrap().len(), timeline.unwrap().len())
        };
        forget_told(&store, at(10)).await;
        assert_eq!((left().await, store.timeline(org, &id("b")).await.unwrap().len()), ((1, 1, 1), 0));
        forget_told(&store, at(11)).await;
        assert_eq!(left().await, (0, 0, 0));
    });
}

#[test]
fn reports_are_taken_while_old_ones_are_forgotten_however_long_that_takes() {
    use std::sync::Arc;

    use sqlx::Connection as _;
    use tokio_util::sync::CancellationToken;

    use crate::intake::Intake;
    use crate::retention::{Retention, keep_tidy};
    use machineid_clock::wall_now;

    let Some(url) = cluster::new_database() else { return };
    run(&url.parse().unwrap(), |runtime, store| {
        runtime.block_on(async {
            let org = new_org(&store, PlanTier::Pro).await;
            store.register(org, &id("a"), None, &by(1)).await.unwrap();
            let report = |sidecar, at: Timestamp| HeardReport {
                heard_at: at,
                ..heard(org, sidecar, 5, &[("a", 1)], serde_json::json!({}))
            };
            store.save_reports(vec![report(1, Timestamp::from_second(1_000_000_000).unwrap())]).await.unwrap();
            // Another transaction locks the rows to delete, so that the clean-up waits.
            let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
            sqlx::query("BEGIN").execute(&mut other).await.unwrap();
            sqlx::query("SELECT 1 FROM reports FOR UPDATE").execute(&mut other).await.unwrap();
            // On another connection: inside a transaction, the activity stays as first read.
            let mut observer = sqlx::PgConnection::connect(&url).await.unwrap();
            let (intake, stop) = (Arc::<Intake>::default(), CancellationToken::new());
            tokio::spawn(Arc::clone(&intake).work(store.clone(), stop.clone()));
            tokio::spawn(keep_tidy(store.clone(), Retention::default(), stop.clone()));
            let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE%'";
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut observer).await.unwrap() == 0 {
                tokio::task::yield_now().await;
            }
            intake.keep(report(2, wall_now())).await.unwrap();
            let waiting: i64 = sqlx::query_scalar(waits).fetch_one(&mut observer).await.unwrap();
            assert_eq!(waiting, 1, "the clean-up had ended before");
            stop.cancel();
        });
    });
}
