//! Tests of organisations: their keys, entitlements and limits.

use super::*;

on_both! {
    an_entitlement_that_ends_is_found_once_in_the_span_in_which_it_does
    old_and_new_key_are_valid_together_until_the_time_and_no_third_one_is
    an_old_key_that_ends_is_found_once_in_the_span_in_which_it_does
    an_operators_own_limit_holds_instead_of_the_plans
    which_key_a_device_asked_with_last_is_known_and_the_newest_note_wins
    either_switch_denies_and_each_is_taken_back_by_itself
}

fn an_entitlement_that_ends_is_found_once_in_the_span_in_which_it_does(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, other) = (new_org(&store, PlanTier::Free).await, new_org(&store, PlanTier::Free).await);
        for (org, end) in [(org, 100), (other, 500)] {
            store.change_org(org, &OrgChange::AccessUntil(Some(at(end))), &by(1)).await.unwrap();
        }
        assert_eq!(store.ended(at(50), at(99)).await.unwrap(), []);
        assert_eq!(store.ended(at(99), at(100)).await.unwrap(), [Change::Denied(org, None)]);
        assert_eq!(store.ended(at(100), at(499)).await.unwrap(), []);
        store.change_org(other, &OrgChange::Delete, &by(2)).await.unwrap();
        assert_eq!(store.ended(at(499), at(600)).await.unwrap(), []);
    });
}

fn old_and_new_key_are_valid_together_until_the_time_and_no_third_one_is(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, first) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        store.register(org.id, &id("a"), None, &by(0)).await.unwrap();
        let keys: Vec<SecretHash> = [0; 4].iter().map(|_| SecretHash::of_key(&new_key().unwrap())).collect();
        let first = SecretHash::of_key(&first);
        let held = async |key: SecretHash, now: i64| {
            let found = store.look_up(key, Some(&id("a"))).await.unwrap().and_then(|found| found.at(at(now)));
            assert!(found.as_ref().is_none_or(|found| found.device.is_some() && found.org.id == org.id));
            found.map(|found| found.key)
        };
        let rotate = async |key: SecretHash, until: Option<i64>, now: i64| {
            let change = OrgChange::Key(key, until.map(at), None);
            store.change_org(org.id, &change, &by(now)).await.unwrap().unwrap().org.old_key_ends
        };
        let old = |ends: i64| Some(HeldKey::own_old(at(ends)));
        assert_eq!(held(first, 1).await, Some(HeldKey::own()));
        assert_eq!(rotate(keys[0], Some(100), 10).await, Some(at(100)));
        assert_eq!((held(keys[0], 11).await, held(first, 99).await), (Some(HeldKey::own()), old(100)));
        assert_eq!(held(first, 100).await, None, "an old key ends at the time that it was given");
        // A second rotation within the overlap ends the oldest key at once.
        assert_eq!(rotate(keys[1], Some(200), 50).await, Some(at(200)));
        assert_eq!((held(first, 51).await, held(keys[0], 51).await), (None, old(200)));
        // Without an overlap there is one valid key.
        assert_eq!(rotate(keys[2], None, 60).await, Some(at(60)));
        assert_eq!((held(keys[1], 60).await, held(keys[0], 60).await), (None, None));
        assert_eq!(held(keys[2], 60).await, Some(HeldKey::own()));
        // An overlap can be ended early.
        rotate(keys[3], Some(200), 70).await;
        assert_eq!(held(keys[2], 71).await, old(200));
        let ended = store.change_org(org.id, &OrgChange::EndOldKey, &by(80)).await.unwrap().unwrap();
        assert_eq!((ended.org.old_key_ends, held(keys[2], 81).await), (Some(at(80)), None));
        assert_eq!(held(keys[3], 81).await, Some(HeldKey::own()));
        // A rotation that expects a key succeeds only with that key.
        let expect = async |key: SecretHash, expected: SecretHash| {
            let change = OrgChange::Key(key, None, Some(expected));
            store.change_org(org.id, &change, &by(90)).await.unwrap().is_some()
        };
        assert!(!expect(keys[0], keys[2]).await);
        assert_eq!((held(keys[3], 91).await, held(keys[0], 91).await), (Some(HeldKey::own()), None));
        assert!(expect(keys[0], keys[3]).await);
        assert_eq!((held(keys[3], 91).await, held(keys[0], 91).await), (None, Some(HeldKey::own())));
    });
}

fn an_old_key_that_ends_is_found_once_in_the_span_in_which_it_does(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        let key = SecretHash::of_key(&new_key().unwrap());
        store.change_org(org, &OrgChange::AccessUntil(Some(at(80))), &by(1)).await.unwrap();
        store.change_org(org, &OrgChange::Key(key, Some(at(100)), None), &by(1)).await.unwrap();
        assert_eq!(store.ended(at(2), at(79)).await.unwrap(), []);
        assert_eq!(store.ended(at(79), at(80)).await.unwrap(), [Change::Denied(org, None)]);
        assert_eq!(store.ended(at(80), at(100)).await.unwrap(), [Change::Key(org)]);
        assert_eq!(store.ended(at(79), at(100)).await.unwrap(), [Change::Key(org)], "both at once are told as one");
        // Its watchers use a key that says ORG_NOT_FOUND from now on, and never belongs to another organisation.
        store.change_org(org, &OrgChange::Delete, &by(2)).await.unwrap();
        assert_eq!(store.ended(at(80), at(200)).await.unwrap(), [Change::Key(org)]);
        assert_eq!(store.ended(at(100), at(200)).await.unwrap(), []);
    });
}

fn an_operators_own_limit_holds_instead_of_the_plans(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, _) = create_org(&store, None, PlanTier::Free, Some(5), &by(0)).await.unwrap();
        for number in 0..5 {
            let (admission, account) =
                store.register(org.id, &id(&format!("d{number}")), None, &by(1)).await.unwrap().unwrap();
            assert_eq!((admission, account.org.limit()), (Admission::New, 5));
        }
        let register = async || store.register(org.id, &id("more"), None, &by(2)).await.unwrap().unwrap().0;
        assert_eq!(register().await, Admission::Full);
        store.change_org(org.id, &OrgChange::Plan(PlanTier::Free, None), &by(3)).await.unwrap().unwrap();
        assert_eq!(register().await, Admission::Full);
        store.change_org(org.id, &OrgChange::Plan(PlanTier::Free, Some(6)), &by(4)).await.unwrap().unwrap();
        assert_eq!(register().await, Admission::New);
    });
}

fn which_key_a_device_asked_with_last_is_known_and_the_newest_note_wins(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let (org, first) = create_org(&store, None, PlanTier::Free, None, &by(0)).await.unwrap();
        let (first, second) = (SecretHash::of_key(&first), SecretHash::of_key(&new_key().unwrap()));
        for name in ["a", "b", "c"] {
            store.register(org.id, &id(name), None, &by(0)).await.unwrap();
        }
        let seq = async |name: &str| {
            store.look_up(first, Some(&id(name))).await.unwrap().unwrap().at(at(1)).unwrap().device.unwrap().seq
        };
        let (a, b) = (seq("a").await, seq("b").await);
        let note = |seq, second, key: SecretHash| LastSeen { seq, at: at(second).as_microsecond(), key: key.mark() };
        store.touch(&[note(a, 1, first), note(b, 1, first)]).await.unwrap();
        assert_eq!(store.old_keys(at(0)).await.unwrap(), [], "there was no rotation");
        store.change_org(org.id, &OrgChange::Key(second, Some(at(100)), None), &by(10)).await.unwrap();
        let old = async || {
            let filter = Filter { old_key: true, ..Filter::default() };
            let (page, _) = store.list(org.id, &filter).await.unwrap().unwrap();
            assert!(page.devices.iter().all(|device| device.old_key));
            let ids: Vec<String> = page.devices.into_iter().map(|device| device.id).collect();
            let counted = store.old_keys(at(0)).await.unwrap();
            assert_eq!((counted.len(), counted[0].devices), (1, ids.len() as u64));
            ids
        };
        assert_eq!(old().await, ["a", "b"], "one that never asked uses none");
        store.touch(&[note(a, 12, second)]).await.unwrap();
        store.touch(&[note(a, 11, first)]).await.unwrap();
        assert_eq!(old().await, ["b"]);
        assert_eq!(store.old_keys(at(100)).await.unwrap(), [], "those that are over are not asked for");
    });
}

fn either_switch_denies_and_each_is_taken_back_by_itself(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        let switched = async |switch: Switch, off: bool| {
            let account = store.change_org(org, &OrgChange::Disabled(switch, off), &by(1)).await.unwrap().unwrap();
            (account.org.disabled, account.org.off)
        };
        let off = |own, operator| (own || operator, Switches { own, operator });
        assert_eq!(switched(Switch::Operator, true).await, off(false, true));
        assert_eq!(switched(Switch::Own, true).await, off(true, true));
        assert_eq!(switched(Switch::Own, false).await, off(false, true), "the operator's switch stays");
        assert_eq!(switched(Switch::Own, true).await, off(true, true));
        assert_eq!(switched(Switch::Operator, false).await, off(true, false), "the organisation's own stays");
        assert_eq!(switched(Switch::Own, false).await, off(false, false));
    });
}
