//! Tests of removed devices, and of what is kept about them.

use super::*;

on_both! {
    a_revoked_device_is_not_removed_by_what_wants_an_active_one_gone
    what_was_reported_about_a_removed_device_is_not_said_of_its_successor
    a_device_that_was_revoked_leaves_its_stops_and_timeline_behind
    ephemeral_devices_age_out_by_when_they_were_last_seen_and_revoked_ones_never
}

fn a_revoked_device_is_not_removed_by_what_wants_an_active_one_gone(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        store.revoke(org, &distinct(vec!["a".to_owned()]).unwrap(), Verb::Revoke, &by(1)).await.unwrap();
        let remove = async |name: &str, only_active: bool| {
            let (removal, account) = store.remove(org, &id(name), only_active, &by(2)).await.unwrap().unwrap();
            (removal, account.used)
        };
        assert_eq!(remove("a", true).await, (Removal::Revoked, 1));
        assert_eq!(remove("b", true).await, (Removal::Removed, 0));
        assert_eq!(remove("c", true).await, (Removal::NotFound, 0));
        assert_eq!(remove("a", false).await, (Removal::Removed, 0), "an operator's is a hard delete");
        let audit = store.audit(&Query { org: Some(org), limit: 4, ..Query::default() }).await.unwrap().entries;
        let outcomes: Vec<&str> = audit.iter().map(|entry| entry.outcome.as_str()).collect();
        assert_eq!(outcomes, ["ok", "not_found", "ok", "device_revoked"]);
    });
}

fn what_was_reported_about_a_removed_device_is_not_said_of_its_successor(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a"]).await;
        let rest = serde_json::json!({"events": [event(1, 0)], "stops": [stop(1, 0, true)]});
        store.save_reports(vec![heard(org, 1, 5, &[("a", 1)], rest.clone())]).await.unwrap();
        store.remove(org, &id("a"), false, &by(6)).await.unwrap();
        // A report under way while the device was removed.
        store.save_reports(vec![heard(org, 1, 7, &[("a", 1)], rest)]).await.unwrap();
        store.register(org, &id("a"), None, &by(8)).await.unwrap();
        let row = store.fleet(org, &Filter::default()).await.unwrap().unwrap().devices.remove(0);
        assert!(row.heard.is_empty() && row.last_stop.is_none(), "{row:?}");
        assert!(store.timeline(org, &id("a")).await.unwrap().is_empty());
    });
}

fn a_device_that_was_revoked_leaves_its_stops_and_timeline_behind(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        let rest = serde_json::json!({"events": [event(1, 0)], "stops": [stop(1, 0, true)]});
        store.save_reports(vec![heard(org, 1, 5, &[("a", 1)], rest)]).await.unwrap();
        let batch = distinct(vec!["a".to_owned()]).unwrap();
        store.revoke(org, &batch, Verb::Revoke, &by(6)).await.unwrap();
        // Restored since: it was revoked all the same.
        store.unrevoke(org, &batch, Verb::Unrevoke, &by(7)).await.unwrap();
        let (removal, account) = store.remove(org, &id("a"), true, &by(8)).await.unwrap().unwrap();
        assert_eq!((removal, account.used), (Removal::Removed, 1));
        let left = async || {
            let stops = store.stops(org, &id("a")).await.unwrap().len();
            (stops, store.timeline(org, &id("a")).await.unwrap().len())
        };
        assert_eq!(left().await, (1, 1));
        // A new device with the same id is reported as itself, and does not take the evidence along.
        store.register(org, &id("a"), None, &by(9)).await.unwrap();
        let row = store.fleet(org, &Filter { only: Some(id("a")), ..Filter::default() }).await.unwrap().unwrap();
        assert!(row.devices[0].last_stop.is_none() && row.devices[0].heard.is_empty());
        store.remove(org, &id("a"), true, &by(10)).await.unwrap();
        assert_eq!(left().await, (1, 1));
        store.change_org(org, &OrgChange::Delete, &by(11)).await.unwrap();
        assert_eq!(left().await, (0, 0));
    });
}

fn ephemeral_devices_age_out_by_when_they_were_last_seen_and_revoked_ones_never(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Pro).await;
        let other = new_org(&store, PlanTier::Pro).await;
        for name in ["never-seen", "seen", "revoked", "fresh", "settled", "permanent"] {
            let ephemeral = (name != "permanent").then_some(true);
            let at = if name == "fresh" { 90 } else { 10 };
            store.register(org, &id(name), ephemeral, &by(at)).await.unwrap();
        }
        // Without the field a known device keeps its setting; with `false` it no longer ages out.
        store.register(org, &id("never-seen"), None, &by(11)).await.unwrap();
        store.register(org, &id("settled"), Some(false), &by(11)).await.unwrap();
        store.revoke(org, &distinct(vec!["revoked".to_owned()]).unwrap(), Verb::Revoke, &by(12)).await.unwrap();
        let key = SecretHash::of_key(&new_key().unwrap());
        store.change_org(org, &OrgChange::Key(key, None, None), &by(13)).await.unwrap();
        let seq = store.look_up(key, Some(&id("seen"))).await.unwrap().unwrap().at(at(13)).unwrap().device.unwrap().seq;
        store.touch(&[last_seen(seq, 60)]).await.unwrap();
        store.register(other, &id("never-seen"), Some(true), &by(95)).await.unwrap();
        // A device that returns counts as seen before its first validation.
        let third = new_org(&store, PlanTier::Pro).await;
        store.register(third, &id("back"), Some(true), &by(10)).await.unwrap();
        store.register(third, &id("back"), Some(true), &by(70)).await.unwrap();
        let mut news = store.changes().listen();
        let names = async || {
            let (page, account) = store.list(org, &Filter::default()).await.unwrap().unwrap();
            (page.devices.into_iter().map(|device| device.id).collect::<Vec<_>>(), account.used)
        };
        let age = async |before: i64| {
            let mut gone = 0;
            for org in store.aged(at(before)).await.unwrap() {
                gone += store.age_out(org, at(before), &by(100)).await.unwrap();
            }
            gone
        };
        assert_eq!(age(10).await, 0, "made known at that moment is not before it");
        assert_eq!(age(50).await, 1);
        assert_eq!(names().await.0, ["fresh", "permanent", "revoked", "seen", "settled"]);
        assert_eq!(news.recv().await.unwrap(), Change::Denied(org, Some(vec![id("never-seen")])));
        assert_eq!(age(61).await, 1);
        assert_eq!(
            names().await,
            (vec!["fresh", "permanent", "revoked", "settled"].into_iter().map(str::to_owned).collect(), 3)
        );
        let audit = store.audit(&Query { org: Some(org), limit: 1, ..Query::default() }).await.unwrap().entries;
        assert_eq!((audit[0].verb.as_str(), audit[0].outcome.as_str()), ("devices/age_out", "ok"));
        assert_eq!(
            (&audit[0].details["deviceIds"], &audit[0].details["removed"]),
            (&serde_json::json!(["seen"]), &serde_json::json!(1))
        );
        // The places are free again, more than one transaction removes.
        assert_eq!(age(1000).await, 3);
    });
}
