//! Stops that the store does not take, and what they make of its answers.

use super::*;
use crate::unwritten::{InForce, Stop, UnwrittenStop};

on_both! {
    a_stop_that_waits_is_what_look_ups_and_lists_say_and_is_written_with_its_own_time
    a_stop_that_waits_never_undoes_a_later_restore
    nothing_is_given_back_before_the_stops_that_wait_are_written
}

/// As a failed write leaves it.
fn put(store: &Store, org: OrgId, stop: Stop, call: &Call) {
    store.unwritten.put(UnwrittenStop { org, stop, call: call.clone() });
}

fn devices(of: &[&str]) -> Stop {
    Stop::Devices { ids: of.iter().map(|text| id(text)).collect(), batch: true }
}

async fn status(store: &Store, org: OrgId) -> Vec<(String, Option<Timestamp>, bool)> {
    let (page, _) = store.list(org, &Filter::default()).await.unwrap().unwrap();
    page.devices.into_iter().map(|device| (device.id, device.revoked_at, device.unwritten)).collect()
}

fn a_stop_that_waits_is_what_look_ups_and_lists_say_and_is_written_with_its_own_time(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b", "c"]).await;
        put(&store, org, devices(&["b"]), &because(5, "gone mad"));
        put(&store, org, Stop::Off(Switch::Operator), &by(6));
        let listed = |b: bool| {
            vec![("a".to_owned(), None, false), ("b".to_owned(), Some(at(5)), b), ("c".to_owned(), None, false)]
        };
        assert_eq!(status(&store, org).await, listed(true));
        let only = async |status: DeviceStatus| {
            let filter = Filter { status: Some(status), limit: Some(2), ..Filter::default() };
            let (page, account) = store.list(org, &filter).await.unwrap().unwrap();
            let ids: Vec<String> = page.devices.into_iter().map(|device| device.id).collect();
            (ids.join(" "), page.more, account.used)
        };
        assert_eq!(only(DeviceStatus::Active).await, ("a c".to_owned(), false, 2));
        assert_eq!(only(DeviceStatus::Revoked).await, ("b".to_owned(), false, 2));
        let account = store.account(org).await.unwrap().unwrap();
        assert_eq!((account.org.disabled, account.org.off.operator, account.org.off.own), (true, true, false));
        let aftermath = store.aftermath(org, at(5)).await.unwrap().unwrap();
        assert_eq!((aftermath.devices, aftermath.reason.as_deref()), (1, Some("gone mad")));

        store.write_stops(None).await.unwrap();
        assert_eq!(store.unwritten_stops(), (0, 0));
        assert_eq!(status(&store, org).await, listed(false));
        let account = store.account(org).await.unwrap().unwrap();
        assert_eq!((account.used, account.org.disabled), (2, true));
        let page = store.audit(&Query { org: Some(org), limit: 2, ..Query::default() }).await.unwrap();
        let written: Vec<_> = page.entries.iter().map(|entry| (entry.at, entry.verb.as_str())).collect();
        assert_eq!(written, [(at(6), "org/disable"), (at(5), "devices/revoke_batch")]);
    });
}

fn a_stop_that_waits_never_undoes_a_later_restore(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        // As another server of the same database, which does not know of the stop, takes it.
        let (a, b) = (distinct(vec!["a".to_owned()]).unwrap(), distinct(vec!["b".to_owned()]).unwrap());
        store.revoke(org, &a, Verb::Revoke, &by(8)).await.unwrap().unwrap();
        store.unrevoke(org, &a, Verb::Unrevoke, &by(9)).await.unwrap().unwrap();
        store.change_org(org, &OrgChange::Disabled(Switch::Own, true), &by(8)).await.unwrap().unwrap();
        store.change_org(org, &OrgChange::Disabled(Switch::Own, false), &by(9)).await.unwrap().unwrap();
        // Where nothing is stopped, these give nothing back.
        store.unrevoke(org, &b, Verb::Unrevoke, &by(9)).await.unwrap().unwrap();
        store.change_org(org, &OrgChange::Disabled(Switch::Operator, false), &by(9)).await.unwrap().unwrap();
        put(&store, org, devices(&["a", "b"]), &by(5));
        put(&store, org, Stop::Off(Switch::Own), &by(6));
        store.write_stops(None).await.unwrap();
        let revoked = |id: &str, at: Option<Timestamp>| (id.to_owned(), at, false);
        assert_eq!(status(&store, org).await, [revoked("a", None), revoked("b", Some(at(5)))]);
        assert!(!store.account(org).await.unwrap().unwrap().org.disabled);
        put(&store, org, Stop::AllActive, &by(8));
        store.write_stops(None).await.unwrap();
        assert_eq!(status(&store, org).await, [revoked("a", None), revoked("b", Some(at(5)))]);
        put(&store, org, Stop::AllActive, &by(10));
        store.write_stops(None).await.unwrap();
        assert_eq!(status(&store, org).await[0], revoked("a", Some(at(10))));
    });
}

fn nothing_is_given_back_before_the_stops_that_wait_are_written(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b"]).await;
        put(&store, org, devices(&["a"]), &by(5));
        // An active device may be removed, and would register again.
        let (removal, _) = store.remove(org, &id("a"), true, &by(6)).await.unwrap().unwrap();
        assert_eq!(removal, Removal::Revoked);
        put(&store, org, devices(&["b"]), &by(7));
        let (admission, _) = store.register(org, &id("b"), None, &by(8)).await.unwrap().unwrap();
        assert_eq!(admission, Admission::Revoked);
        put(&store, org, Stop::Off(Switch::Operator), &by(8));
        let on = OrgChange::Disabled(Switch::Operator, false);
        let InForce { done, unwritten } = store.order(org, &on, &by(9)).await.unwrap().unwrap();
        assert_eq!((done.org.disabled, unwritten), (false, None), "the stop first, and then what takes it back");
        let (all, _) = store.unrevoke_all(org, &by(10)).await.unwrap().unwrap();
        assert_eq!((all.restored.len(), store.unwritten_stops()), (2, (0, 0)));
    });
}
