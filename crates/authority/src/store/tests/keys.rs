//! Keys with roles.

use machineid_protocol::KeyRole;

use super::*;
use crate::keys::KeyMark;
use crate::org::KeyName;
use crate::store::{KeyRefusal, KeyRow, NewRoleKey, WhichKey};

on_both! {
    a_key_with_a_role_is_found_as_it_was_made_beside_the_organisations_own
    a_key_ends_at_its_time_and_when_it_is_revoked
    a_rotated_key_keeps_its_role_and_name_and_the_old_one_stays_valid_until_the_time
    there_are_a_thousand_valid_keys_at_most_rotated_ones_too
    two_valid_keys_never_have_one_name
    the_organisations_own_key_is_no_key_that_can_be_revoked
    devices_that_use_a_hosts_key_use_no_old_key
    the_end_of_a_key_is_found_once_in_the_span_in_which_it_ends
    when_a_key_was_used_is_known_to_a_minute
    a_key_of_a_deleted_organisation_is_still_known_as_one
}

fn new(role: KeyRole, name: Option<&str>, ends: Option<i64>) -> NewRoleKey {
    NewRoleKey {
        hash: SecretHash::of_key(&new_key().unwrap()),
        role,
        devices: (role == KeyRole::Host).then(|| "k8s:*".parse().unwrap()),
        name: name.map(|name| name.parse().unwrap()),
        ends: ends.map(at),
    }
}

fn named(name: &str) -> WhichKey {
    WhichKey::Name(name.parse::<KeyName>().unwrap())
}

async fn made(store: &Store, org: OrgId, new: &NewRoleKey, second: i64) {
    let change = store.create_key(org, new, &by(second)).await.unwrap();
    assert!(matches!(change, Ok(())), "{change:?}");
}

async fn held(store: &Store, key: SecretHash, second: i64) -> Option<HeldKey> {
    store.look_up(key, None).await.unwrap().and_then(|found| found.at(at(second))).map(|found| found.key)
}

async fn marks(store: &Store, org: OrgId) -> Vec<KeyMark> {
    store.keys(org).await.unwrap().unwrap().iter().map(|row| row.mark).collect()
}

fn a_key_with_a_role_is_found_as_it_was_made_beside_the_organisations_own(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, own) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        let own = SecretHash::of_key(&own);
        store.register(org.id, &id("k8s:1"), None, &by(0)).await.unwrap();
        let host = new(KeyRole::Host, Some("hosts"), Some(500));
        let stop = new(KeyRole::Stop, None, None);
        made(&store, org.id, &host, 1).await;
        made(&store, org.id, &stop, 2).await;
        assert_eq!(held(&store, own, 3).await, Some(HeldKey::own()));
        assert_eq!(held(&store, host.hash, 3).await, Some(host.held()));
        assert_eq!(held(&store, stop.hash, 3).await, Some(stop.held()));
        let found = store.look_up(host.hash, Some(&id("k8s:1"))).await.unwrap().unwrap().at(at(3)).unwrap();
        assert_eq!((found.org.id, found.device.map(|device| device.status)), (org.id, Some(DeviceStatus::Active)));
        assert_eq!(held(&store, SecretHash::of_key(&new_key().unwrap()), 3).await, None);
        // The newest first, behind the organisation's own.
        assert_eq!(marks(&store, org.id).await, [own.mark(), stop.hash.mark(), host.hash.mark()]);
        let records =
            audited(&store, &Query { verb: Some("org/keys/create".to_owned()), limit: 9, ..Query::default() }).await;
        let details = &records[0].4;
        for part in [hex::encode(host.hash.mark()).as_str(), "hosts", "host", "k8s:*"] {
            assert!(details.contains(part), "{part}: {details}");
        }
    });
}

fn a_key_ends_at_its_time_and_when_it_is_revoked(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        let (brief, other) = (new(KeyRole::Read, Some("brief"), Some(100)), new(KeyRole::Stop, Some("oncall"), None));
        made(&store, org, &brief, 1).await;
        made(&store, org, &other, 1).await;
        assert!(held(&store, brief.hash, 99).await.is_some() && held(&store, brief.hash, 100).await.is_none());
        let done = store.revoke_key(org, &named("oncall"), &by(50)).await.unwrap();
        assert!(matches!(done, Ok(ref marks) if *marks == [other.hash.mark()]), "{done:?}");
        assert_eq!(held(&store, other.hash, 50).await, None);
        // A clock that was set back revives nothing, and a repeated request is no mistake.
        assert_eq!(held(&store, other.hash, 1).await, None);
        let again = store.revoke_key(org, &named("oncall"), &by(51)).await.unwrap();
        assert!(matches!(again, Ok(ref marks) if *marks == [other.hash.mark()]), "{again:?}");
        let unknown = store.revoke_key(org, &named("nothing"), &by(51)).await.unwrap();
        assert!(matches!(unknown, Err(KeyRefusal::Unknown)), "{unknown:?}");
        let stranger = new_org(&store, PlanTier::Free).await;
        let foreign = store.revoke_key(stranger, &WhichKey::Mark(brief.hash.mark()), &by(52)).await.unwrap();
        assert!(matches!(foreign, Err(KeyRefusal::Unknown)), "{foreign:?}");
        assert!(held(&store, brief.hash, 60).await.is_some());
    });
}

fn a_rotated_key_keeps_its_role_and_name_and_the_old_one_stays_valid_until_the_time(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        let first = new(KeyRole::Host, Some("hosts"), None);
        made(&store, org, &first, 1).await;
        let rotate = async |which: WhichKey, second: i64, until: i64| {
            let hash = SecretHash::of_key(&new_key().unwrap());
            let done = store.rotate_role_key(org, &which, hash, (at(until), None), &by(second)).await.unwrap();
            (hash, done)
        };
        let (second, done) = rotate(named("hosts"), 10, 100).await;
        let renewed = done.unwrap().new;
        assert_eq!(held(&store, second, 11).await, Some(renewed.held()));
        assert_eq!(held(&store, second, 11).await, Some(first.held()), "the role, the devices, the name and the end");
        let old = HeldKey { ends: Some(at(100)), replaced: true, ..first.held() };
        assert_eq!((held(&store, first.hash, 99).await, held(&store, first.hash, 100).await), (Some(old), None));
        // By its name the new one is meant; the old one is replaced once.
        let (_, done) = rotate(WhichKey::Mark(first.hash.mark()), 20, 200).await;
        assert!(matches!(done, Err(KeyRefusal::Replaced)), "{done:?}");
        let (third, done) = rotate(named("hosts"), 30, 30).await;
        assert!(done.is_ok(), "{done:?}");
        assert_eq!((held(&store, second, 30).await, held(&store, third, 30).await), (None, Some(first.held())));
        assert!(held(&store, first.hash, 40).await.is_some(), "the other old key keeps its time");
        // One that ends within the overlap is replaced all the same, and what takes its place ends with it.
        let brief = new(KeyRole::Stop, Some("brief"), Some(50));
        made(&store, org, &brief, 41).await;
        let (renewed, done) = rotate(named("brief"), 42, 900).await;
        assert!(
            matches!(done, Ok(ref rotated) if (rotated.new.ends, rotated.old_ends) == (Some(at(50)), at(50))),
            "{done:?}"
        );
        assert!(held(&store, brief.hash, 49).await.is_some_and(|key| key.replaced));
        // A name means every key of that name, the old one too.
        store.revoke_key(org, &named("brief"), &by(43)).await.unwrap().unwrap();
        assert_eq!((held(&store, brief.hash, 43).await, held(&store, renewed, 43).await), (None, None));
    });
}

fn there_are_a_thousand_valid_keys_at_most_rotated_ones_too(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        made(&store, org, &new(KeyRole::Host, Some("hosts"), None), 1).await;
        let rotate = async |second: i64| {
            let hash = SecretHash::of_key(&new_key().unwrap());
            store.rotate_role_key(org, &named("hosts"), hash, (at(900), None), &by(second)).await.unwrap()
        };
        for _ in 0..499 {
            rotate(2).await.unwrap();
            made(&store, org, &new(KeyRole::Read, None, Some(800)), 2).await;
        }
        rotate(2).await.unwrap();
        assert_eq!(rotate(3).await.unwrap_err(), KeyRefusal::Full);
        let full = store.create_key(org, &new(KeyRole::Read, None, None), &by(3)).await.unwrap();
        assert_eq!(full.unwrap_err(), KeyRefusal::Full);
        // What has ended makes room.
        rotate(800).await.unwrap();
        made(&store, org, &new(KeyRole::Read, None, None), 800).await;
    });
}

fn two_valid_keys_never_have_one_name(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        made(&store, org, &new(KeyRole::Stop, Some("oncall"), Some(100)), 1).await;
        let taken = store.create_key(org, &new(KeyRole::Read, Some("oncall"), None), &by(2)).await.unwrap();
        assert!(matches!(taken, Err(KeyRefusal::Taken)), "{taken:?}");
        made(&store, org, &new(KeyRole::Read, Some("oncall"), None), 100).await;
        made(&store, new_org(&store, PlanTier::Free).await, &new(KeyRole::Stop, Some("oncall"), None), 3).await;
    });
}

fn the_organisations_own_key_is_no_key_that_can_be_revoked(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, own) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        let own = SecretHash::of_key(&own);
        let which = WhichKey::Mark(own.mark());
        let revoked = store.revoke_key(org.id, &which, &by(1)).await.unwrap();
        assert!(matches!(revoked, Err(KeyRefusal::Own)), "{revoked:?}");
        let hash = SecretHash::of_key(&new_key().unwrap());
        let rotated = store.rotate_role_key(org.id, &which, hash, (at(9), None), &by(1)).await.unwrap();
        assert!(matches!(rotated, Err(KeyRefusal::Own)), "{rotated:?}");
        assert_eq!((held(&store, own, 2).await, held(&store, hash, 2).await), (Some(HeldKey::own()), None));
    });
}

fn devices_that_use_a_hosts_key_use_no_old_key(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        let host = new(KeyRole::Host, Some("hosts"), None);
        made(&store, org, &host, 1).await;
        store.register(org, &id("k8s:1"), None, &by(1)).await.unwrap();
        let seq =
            store.look_up(host.hash, Some(&id("k8s:1"))).await.unwrap().unwrap().at(at(2)).unwrap().device.unwrap().seq;
        store.touch(&[LastSeen { key: host.hash.mark(), ..last_seen(seq, 3) }]).await.unwrap();
        let rotation = OrgChange::Key(SecretHash::of_key(&new_key().unwrap()), Some(at(500)), None);
        store.change_org(org, &rotation, &by(4)).await.unwrap().unwrap();
        let old = async || {
            let (page, _) = store.list(org, &Filter::default()).await.unwrap().unwrap();
            (page.devices[0].old_key, store.old_keys(at(5)).await.unwrap()[0].devices)
        };
        assert_eq!(old().await, (false, 0));
        let used = |rows: Vec<KeyRow>| rows.into_iter().find(|row| row.mark == host.hash.mark()).unwrap().devices;
        assert_eq!(used(store.keys(org).await.unwrap().unwrap()), 1);
        // An old key of the host's is one.
        let hash = SecretHash::of_key(&new_key().unwrap());
        store.rotate_role_key(org, &named("hosts"), hash, (at(400), None), &by(6)).await.unwrap().unwrap();
        assert!(old().await.0);
    });
}

fn the_end_of_a_key_is_found_once_in_the_span_in_which_it_ends(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        made(&store, org, &new(KeyRole::Host, None, Some(100)), 1).await;
        made(&store, org, &new(KeyRole::Host, None, Some(100)), 1).await;
        assert_eq!(store.ended(at(2), at(99)).await.unwrap(), []);
        assert_eq!(store.ended(at(99), at(100)).await.unwrap(), [Change::Key(org)]);
        assert_eq!(store.ended(at(100), at(900)).await.unwrap(), []);
    });
}

fn when_a_key_was_used_is_known_to_a_minute(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        let key = new(KeyRole::Read, None, None);
        made(&store, org, &key, 1).await;
        let used = async || store.keys(org).await.unwrap().unwrap()[1].last_used_at;
        assert_eq!(used().await, None);
        for (second, known) in [(10, 10), (40, 10), (69, 10), (70, 70), (20, 70)] {
            store.note_keys(&[(key.hash.mark(), at(second).as_microsecond())]).await.unwrap();
            assert_eq!(used().await, Some(at(known)), "{second}");
        }
    });
}

fn a_key_of_a_deleted_organisation_is_still_known_as_one(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        let key = new(KeyRole::Admin, None, None);
        made(&store, org, &key, 1).await;
        store.change_org(org, &OrgChange::Delete, &by(2)).await.unwrap().unwrap();
        let found = store.look_up(key.hash, None).await.unwrap().and_then(|found| found.at(at(3)));
        assert!(found.unwrap().org.deleted);
        assert!(store.keys(org).await.unwrap().is_none());
    });
}
