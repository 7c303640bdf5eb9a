//! Tests of checkouts.

use super::*;

on_both! {
    a_checkout_is_confirmed_once_within_its_time_and_by_nobody_but_an_operator
}

fn a_checkout_is_confirmed_once_within_its_time_and_by_nobody_but_an_operator(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        let org = new_org(&store, PlanTier::Free).await;
        for number in ["one", "two", "three"] {
            let token = SecretHash::of_token(number);
            let new = NewCheckout { number: number.to_owned(), wanted: PlanTier::Pro, token, expires_at: at(3600) };
            store.create_checkout(org, &new, &by(0)).await.unwrap().unwrap();
        }
        let link = |secret: &str| CheckoutKey::Link(SecretHash::of_confirmation(secret));
        let number = |number: &str| CheckoutKey::Number(number.to_owned());
        let confirm = async |key: &CheckoutKey, now| store.confirm_checkout(key, &by(now)).await.unwrap().is_some();
        let shown = store.checkout(&CheckoutKey::Address(SecretHash::of_token("one"))).await.unwrap().unwrap();
        assert_eq!((shown.number.as_str(), shown.wanted), ("one", PlanTier::Pro));
        assert!(!confirm(&link("one"), 1).await, "the secret of the address is not the operator's");
        assert!(!confirm(&number("one"), 3600).await, "its time is over");
        store.link_checkout("one", SecretHash::of_confirmation("s1"), &by(1)).await.unwrap().unwrap();
        store.link_checkout("one", SecretHash::of_confirmation("s2"), &by(2)).await.unwrap().unwrap();
        assert!(!confirm(&link("s1"), 3).await, "a newer link took its place");
        assert!(confirm(&link("s2"), 3599).await);
        assert!(!confirm(&link("s2"), 3599).await && !confirm(&number("one"), 3599).await, "it was used");
        assert_eq!(store.account(org).await.unwrap().unwrap().org.tier, PlanTier::Pro);
        let open: Vec<_> = store.checkouts(at(4)).await.unwrap().into_iter().map(|open| open.number).collect();
        assert_eq!(open, ["three", "two"]);
        assert!(confirm(&number("two"), 4).await);
        store.change_org(org, &OrgChange::Delete, &by(5)).await.unwrap().unwrap();
        assert!(!confirm(&number("three"), 5).await, "its organisation is gone");
        let verbs: Vec<_> = audited(&store, &Query { org: Some(org), limit: 100, ..Query::default() }).await;
        let confirmed = verbs.iter().filter(|line| line.0 == "org/confirm-checkout").count();
        assert_eq!(confirmed, 2);
    });
}
