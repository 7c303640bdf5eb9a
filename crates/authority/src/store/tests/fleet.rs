//! Tests of devices together with what was reported about them.

use super::*;

on_both! {
    a_page_of_the_fleet_has_a_size_and_its_cursor_leads_on
    a_page_of_the_audit_has_a_size_and_its_cursor_leads_on
    a_fleet_is_read_page_by_page_with_what_was_heard_of_each_device
    what_a_stop_of_many_led_to_is_told_of_its_own_devices_and_since_then
    some_devices_of_a_fleet_are_found_by_their_ids
    a_search_takes_every_character_as_it_is
}

fn a_fleet_is_read_page_by_page_with_what_was_heard_of_each_device(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let names: Vec<String> = (0..25).map(|number| format!("d{number:02}")).collect();
        let devices: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let org = org_with(&store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        store.save_reports(vec![heard(org, 1, 5, &devices, nothing())]).await.unwrap();
        store.revoke(org, &distinct(vec!["d07".to_owned()]).unwrap(), Verb::Revoke, &by(6)).await.unwrap();
        let mut filter = Filter { limit: Some(10), ..Filter::default() };
        let mut read = Vec::new();
        loop {
            let page = store.fleet(org, &filter).await.unwrap().unwrap();
            assert!(page.devices.iter().all(|row| row.heard.len() == 1));
            read.extend(page.devices.iter().map(|row| row.device.id.clone()));
            filter.after = page.devices.last().map(|row| id(&row.device.id));
            if !page.more {
                break;
            }
        }
        assert_eq!(read, names);
        let some =
            Filter { status: Some(DeviceStatus::Revoked), containing: Some("7".to_owned()), ..Filter::default() };
        let page = store.fleet(org, &some).await.unwrap().unwrap();
        assert_eq!((page.devices.len(), page.devices[0].device.revoked_at), (1, Some(at(6))));
        for (some, ids) in [
            (Filter { only: Some(id("d11")), ..Filter::default() }, &["d11"][..]),
            (Filter { only: Some(id("d1")), ..Filter::default() }, &[]),
            (Filter { revoked_at: Some(at(6)), ..Filter::default() }, &["d07"]),
            (Filter { revoked_at: Some(at(7)), ..Filter::default() }, &[]),
        ] {
            let (found, _) = store.list(org, &some).await.unwrap().unwrap();
            assert_eq!(found.devices.iter().map(|device| device.id.as_str()).collect::<Vec<_>>(), ids);
        }
        store.save_reports(vec![heard(org, 2, 5, &devices[..3], nothing())]).await.unwrap();
        let counted = Filter { counted: true, ..some.clone() };
        let page = store.fleet(org, &counted).await.unwrap().unwrap();
        assert_eq!((page.sidecars, page.agents), (2, 14), "of the whole organisation, each once");
    });
}

fn what_a_stop_of_many_led_to_is_told_of_its_own_devices_and_since_then(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "b", "c", "d"]).await;
        let other = org_with(&store, &["a"]).await;
        let first = distinct(vec!["d".to_owned()]).unwrap();
        store.revoke(org, &first, Verb::Revoke, &by(5)).await.unwrap();
        let why = Call { reason: Some("drill".parse().unwrap()), ..by(10) };
        store.revoke_all(org, &why).await.unwrap().unwrap();
        store.revoke_all(other, &by(10)).await.unwrap().unwrap();
        let stops = |stops: &[serde_json::Value]| serde_json::json!({"stops": stops});
        let reports = vec![
            heard(org, 1, 12, &[("a", 1), ("b", 2), ("d", 3)], stops(&[stop(1, 2_500, true), stop(2, 2_000, false)])),
            heard(org, 2, 12, &[("a", 4)], nothing()),
            heard(other, 3, 12, &[("a", 5)], stops(&[stop(3, 0, true)])),
        ];
        store.save_reports(reports).await.unwrap();
        let after = store.aftermath(org, at(10)).await.unwrap().unwrap();
        assert_eq!((after.devices, after.reason.as_deref()), (3, Some("drill")));
        let told: Vec<_> = after.heard.iter().map(|row| (row.device.as_str(), row.heard.said.device.agents)).collect();
        assert_eq!(told, [("a", 1), ("a", 4), ("b", 2)]);
        let runs: Vec<_> = after.stops.iter().map(|known| (known.began_at, known.stop.confirmed)).collect();
        assert_eq!(runs, [(at(10), false)], "one began before, one is another's");
        let none = store.aftermath(org, at(11)).await.unwrap().unwrap();
        assert_eq!((none.devices, none.heard.len(), none.stops.len()), (0, 0, 0));
        store.unrevoke_all(org, &by(13)).await.unwrap().unwrap();
        assert_eq!(store.aftermath(org, at(10)).await.unwrap().unwrap().devices, 0);
        store.change_org(org, &OrgChange::Delete, &by(14)).await.unwrap().unwrap();
        assert!(store.aftermath(org, at(10)).await.unwrap().is_none());
    });
}

fn some_devices_of_a_fleet_are_found_by_their_ids(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Pro).await;
        for device in ["a", "b", "b:1", "c"] {
            store.register(org, &id(device), None, &by(1)).await.unwrap();
        }
        store.save_reports(vec![heard(org, 1, 5, &[("b", 2), ("c", 1)], serde_json::json!({}))]).await.unwrap();
        let filter = Filter { among: Some(vec![id("c"), id("none"), id("b")]), limit: Some(10), ..Filter::default() };
        let rows = store.fleet(org, &filter).await.unwrap().unwrap();
        let found: Vec<_> = rows.devices.iter().map(|row| (row.device.id.as_str(), row.heard.len())).collect();
        assert_eq!((found, rows.more), (vec![("b", 1), ("c", 1)], false));
        let nobody = Filter { among: Some(Vec::new()), ..Filter::default() };
        assert!(store.fleet(org, &nobody).await.unwrap().unwrap().devices.is_empty());
    });
}

fn a_search_takes_every_character_as_it_is(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = org_with(&store, &["a", "A:b", "a_b"]).await;
        for (part, found) in
            [("a", &["a", "a_b"][..]), ("_", &["a_b"]), (":", &["A:b"]), ("%", &[]), ("'", &[]), ("a\0", &[])]
        {
            let filter = Filter { containing: Some(part.to_owned()), ..Filter::default() };
            let (page, _) = store.list(org, &filter).await.unwrap().unwrap();
            let ids: Vec<&str> = page.devices.iter().map(|device| device.id.as_str()).collect();
            assert_eq!(ids, found, "{part:?}");
            let query = Query { org: Some(org), device: Some(part.to_owned()), limit: 10, ..Query::default() };
            assert_eq!(audited(&store, &query).await.len(), usize::from(part == "a"), "{part:?}");
        }
        let query = Query { who: Some("key:0123\0".to_owned()), limit: 10, ..Query::default() };
        assert!(audited(&store, &query).await.is_empty());
        let query = Query { verb: Some("org/create\0".to_owned()), limit: 10, ..Query::default() };
        assert!(audited(&store, &query).await.is_empty());
    });
}

fn a_page_of_the_fleet_has_a_size_and_its_cursor_leads_on(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let names: Vec<String> = (0..110).map(|number| format!("d{number:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let org = org_with(&store, &names).await;
        let told: Vec<(&str, u32)> = names.iter().map(|name| (*name, 1)).collect();
        for sidecar in 0..64 {
            store.save_reports(vec![heard(org, sidecar, 5, &told, nothing())]).await.unwrap();
        }
        let (mut found, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let filter = Filter { after: after.take(), limit: Some(1_000), ..Filter::default() };
            let page = store.fleet(org, &filter).await.unwrap().unwrap();
            assert!(page.devices.iter().all(|row| row.heard.len() == 64));
            found.extend(page.devices.into_iter().map(|row| row.device.id));
            pages += 1;
            if !page.more {
                break;
            }
            after = found.last().map(|last| id(last));
        }
        assert!(pages > 1, "one page holds all of it");
        assert_eq!(found, names);
    });
}

fn a_page_of_the_audit_has_a_size_and_its_cursor_leads_on(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let long = "x".repeat(100);
        let names: Vec<String> = (0..250).map(|number| format!("{number:03}{long}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let org = org_with(&store, &names).await;
        let batch = distinct(names.iter().map(|name| (*name).to_owned()).collect()).unwrap();
        for second in 1..=40 {
            store.revoke(org, &batch, Verb::RevokeBatch, &by(second)).await.unwrap();
            store.unrevoke(org, &batch, Verb::UnrevokeBatch, &by(second)).await.unwrap();
        }
        let (mut found, mut pages, mut before) = (0, 0, None);
        loop {
            let query = Query {
                org: Some(org),
                verb: Some("devices/revoke_batch".to_owned()),
                before,
                limit: 1_000,
                ..Query::default()
            };
            let page = store.audit(&query).await.unwrap();
            (found, pages, before) = (found + page.entries.len(), pages + 1, page.entries.last().map(|last| last.id));
            if !page.more {
                break;
            }
        }
        assert_eq!(found, 40);
        let all = store.audit(&Query { org: Some(org), limit: 1_000, ..Query::default() }).await.unwrap();
        assert!(all.more && all.entries.len() < 330, "{} {pages}", all.entries.len());
    });
}
