//! Tests of the audit and of reasons.

use super::*;

on_both! {
    every_management_call_is_in_the_audit_with_its_reason_and_what_it_came_to
    a_reason_stays_with_the_device_while_it_is_revoked
}

fn every_management_call_is_in_the_audit_with_its_reason_and_what_it_came_to(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let other = new_org(&store, PlanTier::Free).await;
        let org = new_org(&store, PlanTier::Pro).await;
        let batch = |ids: &[&str]| distinct(ids.iter().map(|id| (*id).to_owned()).collect()).unwrap();
        for (now, name) in (1..).zip(["a", "b", "a"]) {
            store.register(org, &id(name), None, &by(now)).await.unwrap().unwrap();
        }
        store.revoke(org, &batch(&["a"]), Verb::Revoke, &because(4, "gone mad")).await.unwrap().unwrap();
        store.revoke(org, &batch(&["a", "b", "x", "no no"]), Verb::RevokeBatch, &by(5)).await.unwrap().unwrap();
        store.unrevoke(org, &batch(&["b"]), Verb::Unrevoke, &by(6)).await.unwrap().unwrap();
        store.revoke_all(org, &because(7, "drill")).await.unwrap().unwrap();
        store.unrevoke_all(org, &by(8)).await.unwrap().unwrap();
        store.remove(org, &id("x"), false, &by(9)).await.unwrap().unwrap();
        store.change_org(org, &OrgChange::Frozen(true), &because(10, "unpaid")).await.unwrap().unwrap();
        store.revoke_all(other, &by(11)).await.unwrap().unwrap();

        let mine = Query { org: Some(org), limit: 100, ..Query::default() };
        let line = |verb: &str, device: Option<&str>, outcome: &str, reason: Option<&str>, details: &str| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            (verb.to_owned(), owned(device), outcome.to_owned(), owned(reason), details.to_owned())
        };
        let expected = vec![
            line("org/create", None, "ok", None, r#"{"plan":"pro"}"#),
            line("devices/register", Some("a"), "ok", None, "{}"),
            line("devices/register", Some("b"), "ok", None, "{}"),
            line("devices/revoke", Some("a"), "revoked", Some("gone mad"), "{}"),
            line(
                "devices/revoke_batch",
                None,
                "ok",
                None,
                r#"{"already_revoked":1,"deviceIds":["b"],"invalid":1,"not_found":1,"revoked":1}"#,
            ),
            line("devices/unrevoke", Some("b"), "unrevoked", None, "{}"),
            line("devices/revoke_batch", None, "ok", Some("drill"), r#"{"revoked":1,"scope":"all_active"}"#),
            line("devices/unrevoke_batch", None, "ok", None, r#"{"left":0,"scope":"all_revoked","unrevoked":2}"#),
            line("devices/remove", Some("x"), "not_found", None, "{}"),
            line("org/freeze", None, "ok", Some("unpaid"), "{}"),
        ];
        assert_eq!(audited(&store, &mine).await, expected);
        let revokes = Query { verb: Some("devices/revoke".to_owned()), ..mine.clone() };
        let revokes: Vec<_> = audited(&store, &revokes).await.into_iter().map(|line| line.0).collect();
        assert_eq!(revokes, ["devices/revoke"]);
        let nobodys = Query { who: Some("nobody".to_owned()), ..mine.clone() };
        assert!(audited(&store, &nobodys).await.is_empty());
        let about_b = Query { device: Some("b".to_owned()), ..mine.clone() };
        let verbs: Vec<_> = audited(&store, &about_b).await.into_iter().map(|line| line.0).collect();
        assert_eq!(verbs, ["devices/register", "devices/revoke_batch", "devices/unrevoke"]);

        let mut pages = Vec::new();
        let mut before = None;
        loop {
            let page = store.audit(&Query { before, limit: 4, ..mine.clone() }).await.unwrap();
            before = page.entries.last().map(|last| last.id);
            assert!(page.entries.is_sorted_by(|one, two| one.id > two.id));
            pages.push(page.entries.len());
            if !page.more {
                break;
            }
        }
        assert_eq!(pages, [4, 4, 2]);
        let all = store.audit(&Query { limit: 100, ..Query::default() }).await.unwrap();
        assert_eq!(all.entries.len(), 12);
        assert_eq!((all.entries[0].at, all.entries[0].request_id.as_str()), (at(11), "request 11"));
        assert_eq!(all.entries[0].actor, "key:012300000000");
    });
}

fn a_reason_stays_with_the_device_while_it_is_revoked(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Pro).await;
        let batch = distinct(vec!["a".to_owned()]).unwrap();
        let said =
            async || store.list(org, &Filter::default()).await.unwrap().unwrap().0.devices[0].revoke_reason.clone();
        store.register(org, &id("a"), None, &by(1)).await.unwrap();
        store.revoke(org, &batch, Verb::Revoke, &because(2, "first")).await.unwrap();
        store.revoke(org, &batch, Verb::Revoke, &because(3, "second")).await.unwrap();
        assert_eq!(said().await.as_deref(), Some("first"), "the revoke that did it");
        store.unrevoke(org, &batch, Verb::Unrevoke, &by(4)).await.unwrap();
        assert_eq!(said().await, None);
        store.revoke_all(org, &because(5, "all")).await.unwrap();
        assert_eq!(said().await.as_deref(), Some("all"));
    });
}
