//! Stops that the store does not take, and what they make of its answers.

use machineid_protocol::KeyRole;

use super::*;
use crate::store::{KeyRefusal, NewRoleKey, WhichKey};
use crate::unwritten::{InForce, StopScope, UnwrittenStop};

on_both! {
    a_stop_that_waits_is_what_look_ups_and_lists_say_and_is_written_with_its_own_time
    a_stop_that_waits_never_undoes_a_later_restore
    nothing_is_given_back_before_the_stops_that_wait_are_written
}

/// As a failed write leaves it.
fn put(store: &Store, org: OrgId, stop: StopScope, call: &Call) {
    let counted = if let StopScope::Devices { ids, .. } = &stop { ids.len() as u64 } else { 0 };
    store.unwritten.put(UnwrittenStop { org, stop, counted, call: call.clone() });
}

fn devices(of: &[&str]) -> StopScope {
    StopScope::Devices { ids: of.iter().map(|text| id(text)).collect(), batch: true }
}

async fn status(store: &Store, org: OrgId) -> Vec<(String, Option<Timestamp>, bool)> {
    let (page, _) = store.list(org, &Filter::default()).await.unwrap().unwrap();
    page.devices.into_iter().map(|device| (device.id, device.revoked_at, device.unwritten)).collect()
}

fn a_stop_that_waits_is_what_look_ups_and_lists_say_and_is_written_with_its_own_time(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b", "c"]).await;
        put(&store, org, devices(&["b"]), &because(5, "gone mad"));
        put(&store, org, StopScope::Off(Switch::Operator), &by(6));
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
        put(&store, org, StopScope::Off(Switch::Own), &by(6));
        store.write_stops(None).await.unwrap();
        let revoked = |id: &str, at: Option<Timestamp>| (id.to_owned(), at, false);
        assert_eq!(status(&store, org).await, [revoked("a", None), revoked("b", Some(at(5)))]);
        assert!(!store.account(org).await.unwrap().unwrap().org.disabled);
        put(&store, org, StopScope::AllActive { newest: None }, &by(8));
        store.write_stops(None).await.unwrap();
        assert_eq!(status(&store, org).await, [revoked("a", None), revoked("b", Some(at(5)))]);
        put(&store, org, StopScope::AllActive { newest: None }, &by(10));
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
        put(&store, org, StopScope::Off(Switch::Operator), &by(8));
        let on = OrgChange::Disabled(Switch::Operator, false);
        let InForce { done, unwritten } = store.order(org, &on, &by(9)).await.unwrap().unwrap();
        assert_eq!((done.org.disabled, unwritten), (false, None), "the stop first, and then what takes it back");
        let (all, _) = store.unrevoke_all(org, &by(10)).await.unwrap().unwrap();
        assert_eq!((all.restored.len(), store.unwritten_stops()), (2, (0, 0)));
    });
}

/// A database that refuses every write of these columns, and that of which nothing can be listed.
fn on_sqlite_that_refuses(columns: &str, scenario: impl AsyncFnOnce(Store)) {
    let directory = tempfile::TempDir::new().unwrap();
    run(&sqlite(directory.path()), |runtime, store| {
        let path = directory.path().join("test.db");
        let trigger = format!("CREATE TRIGGER refuse BEFORE UPDATE OF {columns} BEGIN SELECT RAISE(ABORT, 'no'); END");
        rusqlite::Connection::open(path).unwrap().execute_batch(&trigger).unwrap();
        runtime.block_on(scenario(store));
    });
}

fn accept(store: &Store) {
    let Backend::Sqlite(sqlite) = &store.backend else { unreachable!("a scenario on SQLite") };
    rusqlite::Connection::open(sqlite.path()).unwrap().execute_batch("DROP TRIGGER refuse").unwrap();
}

/// Keeps all threads that list busy until the senders are dropped.
async fn nothing_is_listed(store: &Store) -> Vec<std::sync::mpsc::Sender<()>> {
    let Backend::Sqlite(sqlite) = &store.backend else { unreachable!("a scenario on SQLite") };
    let mut busy = Vec::new();
    for _ in 0..2 {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (on_thread, taken) = tokio::sync::oneshot::channel();
        let sqlite = sqlite.clone();
        tokio::spawn(async move {
            let reading = sqlite.read(move |_| {
                on_thread.send(()).unwrap();
                // Fails when the sender is dropped.
                let _ = held.recv();
                Ok(())
            });
            reading.await
        });
        // One thread would take both questions if they waited together.
        taken.await.unwrap();
        busy.push(release);
    }
    busy
}

#[test]
fn a_stop_is_in_force_before_anything_is_read_about_it() {
    on_sqlite_that_refuses("revoked_at ON devices", async |store| {
        let org = org_with(&store, &["a", "b"]).await;
        let mut news = store.changes().listen();
        let busy = nothing_is_listed(&store).await;
        let (stopping, batch) = (store.clone(), distinct(vec!["a".to_owned(), "unknown".to_owned()]).unwrap());
        let stopped = tokio::spawn(async move { stopping.stop_devices(org, &batch, Verb::RevokeBatch, &by(5)).await });
        let told = news.recv().await.unwrap();
        assert_eq!(told, Change::Denied(org, Some(vec![id("a"), id("unknown")])));
        drop(busy);
        let InForce { done: (outcomes, account), unwritten } = stopped.await.unwrap().unwrap().unwrap();
        assert_eq!(outcomes, [Outcome::Did(Suspension::Revoked), Outcome::Did(Suspension::NotFound)]);
        assert_eq!((account.used, unwritten.is_some()), (1, true));
        let waiting = store.unwritten.waiting(Some(org));
        assert_eq!(waiting[0].1.stop, devices(&["a"]), "and then it is about no device that does not exist");
        // One that stops nothing leaves nothing behind.
        let unknown = distinct(vec!["unknown".to_owned()]).unwrap();
        let InForce { unwritten, .. } =
            store.stop_devices(org, &unknown, Verb::RevokeBatch, &by(6)).await.unwrap().unwrap();
        assert_eq!((unwritten, store.unwritten_stops_of(org)), (None, 1));
    });
}

#[test]
fn the_end_of_a_key_is_in_force_before_the_keys_are_read() {
    on_sqlite_that_refuses("ends ON org_keys", async |store| {
        let org = new_org(&store, PlanTier::Free).await;
        let new = NewRoleKey {
            hash: SecretHash::of_key(&new_key().unwrap()),
            role: KeyRole::Host,
            devices: None,
            name: Some("ci".parse().unwrap()),
            ends: None,
        };
        store.create_key(org, &new, &by(1)).await.unwrap().unwrap();
        let mut news = store.changes().listen();
        let busy = nothing_is_listed(&store).await;
        let (stopping, which) = (store.clone(), WhichKey::Name("ci".parse().unwrap()));
        let stopped = tokio::spawn(async move { stopping.stop_key(org, &which, &by(5)).await });
        assert_eq!(news.recv().await.unwrap(), Change::Key(org));
        drop(busy);
        let InForce { done, unwritten } = stopped.await.unwrap().unwrap().unwrap();
        assert_eq!((done, unwritten.is_some()), (vec![new.hash.mark()], true));
        let unknown = WhichKey::Name("other".parse().unwrap());
        assert!(matches!(store.stop_key(org, &unknown, &by(6)).await, Ok(Err(KeyRefusal::Unknown))));
        assert_eq!(store.unwritten_stops_of(org), 1);
    });
}

#[test]
fn a_stop_of_all_is_about_the_devices_that_existed_when_it_was_ordered() {
    on_sqlite_that_refuses("revoked_at ON devices", async |store| {
        let org = org_with(&store, &["a", "b"]).await;
        let InForce { done: (count, account), .. } = store.stop_all(org, &by(5)).await.unwrap().unwrap();
        assert_eq!((count, account.used), (2, 0));
        let register = async |device: &str| store.register(org, &id(device), None, &by(6)).await.unwrap().unwrap();
        let (admission, account) = register("later").await;
        assert_eq!((admission, account.used), (Admission::New, 1));
        assert_eq!(register("later").await.0, Admission::Exists);
        assert_eq!(register("a").await.0, Admission::Revoked);
        let listed = |waits: bool| {
            vec![
                ("a".to_owned(), Some(at(5)), waits),
                ("b".to_owned(), Some(at(5)), waits),
                ("later".to_owned(), None, false),
            ]
        };
        assert_eq!(status(&store, org).await, listed(true));
        accept(&store);
        store.write_stops(None).await.unwrap();
        assert_eq!(status(&store, org).await, listed(false));
        assert_eq!(store.account(org).await.unwrap().unwrap().used, 1);
    });
}

#[test]
fn a_stop_that_is_repeated_takes_no_device_from_the_count_twice() {
    on_sqlite_that_refuses("stops ON devices", async |store| {
        let org = org_with(&store, &["a", "b", "c"]).await;
        let both = distinct(vec!["a".to_owned(), "b".to_owned()]).unwrap();
        store.revoke(org, &both[..1], Verb::Revoke, &by(4)).await.unwrap().unwrap();
        store.change_org(org, &OrgChange::RestoreNeeds(2), &by(5)).await.unwrap().unwrap();
        for second in 6..8 {
            let InForce { done: (_, account), unwritten } =
                store.stop_devices(org, &both, Verb::RevokeBatch, &by(second)).await.unwrap().unwrap();
            assert_eq!((account.used, unwritten.is_some()), (1, true));
        }
        assert_eq!(store.account(org).await.unwrap().unwrap().used, 1);
    });
}

#[test]
fn a_stop_of_one_organisation_that_cannot_be_written_keeps_no_other_from_its_checkout() {
    on_sqlite_that_refuses("revoked_at ON devices", async |store| {
        let (org, other) = (org_with(&store, &["a"]).await, new_org(&store, PlanTier::Free).await);
        put(&store, org, devices(&["a"]), &by(5));
        for (number, of) in [("1", org), ("2", other)] {
            let token = SecretHash::of_token(number);
            let new = NewCheckout { number: number.to_owned(), wanted: PlanTier::Max, token, expires_at: at(99) };
            store.create_checkout(of, &new, &by(6)).await.unwrap().unwrap();
        }
        let confirm =
            async |number: &str| store.confirm_checkout(&CheckoutKey::Number(number.to_owned()), &by(7)).await;
        assert!(matches!(confirm("1").await, Err(StoreError::StopsWait(_))));
        assert!(confirm("2").await.unwrap().is_some() && confirm("3").await.unwrap().is_none());
    });
}
