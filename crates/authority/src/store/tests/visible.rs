//! Tests of who sees a change, and from when on.

use super::*;

on_both! {
    every_read_that_begins_after_a_change_sees_it
    a_late_last_seen_time_never_lands_on_a_device_that_came_after
    a_listener_is_told_of_a_change_once_it_can_be_seen
    an_operation_that_fails_leaves_nothing_behind_and_tells_nothing
    an_operation_that_changes_nothing_tells_nothing
}

fn every_read_that_begins_after_a_change_sees_it(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, key) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        let (key, device) = (SecretHash::of_key(&key), id("a"));
        let batch = [Named { sent: "a".to_owned(), id: Some(device.clone()) }];
        store.register(org.id, &device, None, &by(1)).await.unwrap().unwrap();
        for round in 0..100 {
            let expected = if round % 2 == 0 {
                store.revoke(org.id, &batch, Verb::Revoke, &by(round)).await.unwrap().unwrap();
                DeviceStatus::Revoked
            } else {
                store.unrevoke(org.id, &batch, Verb::Unrevoke, &by(round)).await.unwrap().unwrap();
                DeviceStatus::Active
            };
            // On every reader at once, regardless of what it did before.
            let reads: Vec<_> = (0..8)
                .map(|_| {
                    let (store, device) = (store.clone(), device.clone());
                    tokio::spawn(async move { store.look_up(key, Some(&device)).await })
                })
                .collect();
            for read in reads {
                let found = read.await.unwrap().unwrap().unwrap().at(at(0)).unwrap();
                assert_eq!(found.device.map(|device| device.status), Some(expected), "round {round}");
            }
        }
    });
}

fn a_late_last_seen_time_never_lands_on_a_device_that_came_after(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, key) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        let (key, device) = (SecretHash::of_key(&key), id("a"));
        let known =
            async || store.look_up(key, Some(&device)).await.unwrap().unwrap().at(at(0)).unwrap().device.unwrap();
        store.register(org.id, &device, None, &by(1)).await.unwrap();
        let old = known().await;
        store.remove(org.id, &device, false, &by(1)).await.unwrap();
        store.register(org.id, &device, None, &by(2)).await.unwrap();
        store.touch(&[last_seen(old.seq, 3)]).await.unwrap();
        let seen = async || store.list(org.id, &Filter::default()).await.unwrap().unwrap().0.devices[0].last_seen_at;
        assert_eq!(seen().await, None);
        let new = known().await;
        store.touch(&[last_seen(new.seq, 5)]).await.unwrap();
        store.touch(&[last_seen(new.seq, 4)]).await.unwrap();
        assert_eq!(seen().await, Some(at(5)), "the newest time stays");
    });
}

fn a_listener_is_told_of_a_change_once_it_can_be_seen(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Pro).await;
        let batch = distinct(vec!["a".to_owned(), "x".to_owned()]).unwrap();
        store.register(org, &id("a"), None, &by(1)).await.unwrap();
        let mut news = store.changes().listen();
        store.revoke(org, &batch, Verb::RevokeBatch, &by(2)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Denied(org, Some(vec![id("a")])));
        // The hint about the first revoke may have been lost with the answer to its commit.
        store.revoke(org, &batch, Verb::RevokeBatch, &by(2)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Denied(org, Some(vec![id("a")])));
        let (page, _) = store.list(org, &Filter::default()).await.unwrap().unwrap();
        assert!(page.devices[0].revoked_at.is_some());
        store.unrevoke_all(org, &by(3)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Org(org));
        store.change_org(org, &OrgChange::Disabled(Switch::Own, true), &by(4)).await.unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Denied(org, None));
    });
}

fn an_operation_that_fails_leaves_nothing_behind_and_tells_nothing(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (first, key) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        let mut news = store.changes().listen();
        let second = new_org(&store, PlanTier::Free).await;
        // Its last statement except the audit's fails: that key belongs to the first organisation.
        let change = OrgChange::Key(SecretHash::of_key(&key), Some(at(100)), None);
        store.change_org(second, &change, &by(1)).await.unwrap_err();
        let account = store.account(second).await.unwrap().unwrap();
        assert_eq!((account.org.old_key_ends, store.orgs().await.unwrap().len()), (None, 2));
        let verbs: Vec<_> = audited(&store, &Query { limit: 10, ..Query::default() }).await;
        assert_eq!(verbs.iter().map(|line| line.0.as_str()).collect::<Vec<_>>(), ["org/create", "org/create"]);
        // The next news is the first that is told.
        store.change_org(first.id, &OrgChange::Disabled(Switch::Own, false), &by(2)).await.unwrap().unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Org(first.id));
    });
}

fn an_operation_that_changes_nothing_tells_nothing(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a"]).await;
        let gone = new_org(&store, PlanTier::Free).await;
        store.change_org(gone, &OrgChange::Delete, &by(1)).await.unwrap().unwrap();
        let mut news = store.changes().listen();
        let batch = distinct(vec!["a".to_owned(), "x".to_owned()]).unwrap();
        assert_eq!(store.register(org, &id("a"), None, &by(2)).await.unwrap().unwrap().0, Admission::Exists);
        assert_eq!(store.remove(org, &id("x"), false, &by(2)).await.unwrap().unwrap().0, Removal::NotFound);
        store.unrevoke(org, &batch, Verb::UnrevokeBatch, &by(2)).await.unwrap().unwrap();
        assert_eq!(store.age_out(org, at(1000), &by(2)).await.unwrap(), 0);
        assert!(store.register(gone, &id("a"), None, &by(2)).await.unwrap().is_none());
        assert!(store.revoke(gone, &batch, Verb::RevokeBatch, &by(2)).await.unwrap().is_none());
        assert!(store.unrevoke_all(gone, &by(2)).await.unwrap().is_none());
        assert!(store.change_org(gone, &OrgChange::Frozen(true), &by(2)).await.unwrap().is_none());
        assert!(store.list(gone, &Filter::default()).await.unwrap().is_none());
        store.revoke_all(org, &by(3)).await.unwrap().unwrap();
        assert_eq!(news.recv().await.unwrap(), Change::Denied(org, None), "the first thing that is told");
    });
}
