//! Tests of the store against a model, and of plans at their limits.

use super::*;

on_both! {
    any_sequence_of_changes_leaves_what_the_model_says
    the_large_plans_end_at_their_limits_too
    registrations_that_race_for_the_last_places_never_exceed_the_plan
}

#[derive(Clone, Debug)]
enum Step {
    Register(String),
    Remove(String),
    Revoke(Vec<String>),
    Unrevoke(Vec<String>),
    RevokeAll,
    UnrevokeAll,
    SetPlan(PlanTier),
}

fn name() -> impl Strategy<Value = String> {
    "[a-f]"
}

/// Ids of a batch: some repeated, some invalid.
fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(prop_oneof![8 => name(), 1 => Just("not valid".to_owned())], 1..8)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => name().prop_map(Step::Register),
        1 => name().prop_map(Step::Remove),
        2 => names().prop_map(Step::Revoke),
        2 => names().prop_map(Step::Unrevoke),
        1 => Just(Step::RevokeAll),
        1 => Just(Step::UnrevokeAll),
        1 => prop_oneof![Just(PlanTier::Free), Just(PlanTier::Pro)].prop_map(Step::SetPlan),
    ]
}

/// The model: each device with the time of its revoke, and the order of registration.
#[derive(Debug)]
struct Model {
    devices: BTreeMap<String, (u64, Option<i64>)>,
    limit: u64,
    registered: u64,
}

impl Model {
    fn used(&self) -> u64 {
        self.devices.values().filter(|(_, revoked)| revoked.is_none()).count() as u64
    }

    fn register(&mut self, name: &str) -> Admission {
        match self.devices.get(name) {
            Some((_, None)) => Admission::Exists,
            Some((_, Some(_))) => Admission::Revoked,
            None if self.used() >= self.limit => Admission::Full,
            None => {
                self.registered += 1;
                self.devices.insert(name.to_owned(), (self.registered, None));
                Admission::New
            }
        }
    }

    fn revoke(&mut self, batch: &[Named], now: i64) -> Vec<Outcome<Suspension>> {
        let one = |named: &Named| match named.id.as_ref().map(|id| self.devices.get_mut(id.as_str())) {
            None => Outcome::Invalid,
            Some(None) => Outcome::Did(Suspension::NotFound),
            Some(Some((_, Some(_)))) => Outcome::Did(Suspension::AlreadyRevoked),
            Some(Some((_, revoked))) => {
                *revoked = Some(now);
                Outcome::Did(Suspension::Revoked)
            }
        };
        batch.iter().map(one).collect()
    }

    fn unrevoke(&mut self, batch: &[Named]) -> Vec<Outcome<Restoration>> {
        let mut used = self.used();
        let one = |named: &Named| match named.id.as_ref().map(|id| self.devices.get_mut(id.as_str())) {
            None => Outcome::Invalid,
            Some(None) => Outcome::Did(Restoration::NotFound),
            Some(Some((_, None))) => Outcome::Did(Restoration::AlreadyActive),
            Some(Some(_)) if used >= self.limit => Outcome::Did(Restoration::Full),
            Some(Some((_, revoked))) => {
                used += 1;
                *revoked = None;
                Outcome::Did(Restoration::Restored)
            }
        };
        batch.iter().map(one).collect()
    }

    fn revoke_all(&mut self, now: i64) -> u64 {
        let active = self.devices.values_mut().filter(|(_, revoked)| revoked.is_none());
        active.map(|(_, revoked)| *revoked = Some(now)).count() as u64
    }

    fn unrevoke_all(&mut self) -> RestoredAll {
        let mut revoked: Vec<_> =
            self.devices.iter().filter_map(|(name, (seq, at))| at.map(|at| (at, *seq, name.clone()))).collect();
        revoked.sort_by(|one, two| two.cmp(one));
        let mut all = RestoredAll::default();
        for (_, _, name) in revoked {
            if self.used() < self.limit {
                self.devices.entry(name.clone()).and_modify(|(_, revoked)| *revoked = None);
                all.restored.push(name);
            } else {
                all.left += 1;
            }
        }
        all
    }
}

async fn agree(store: &Store, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let org = new_org(store, PlanTier::Free).await;
    let mut model = Model { devices: BTreeMap::new(), limit: 3, registered: 0 };
    for (now, step) in (1..).zip(steps) {
        match step {
            Step::Register(name) => {
                let (admission, account) = store.register(org, &id(&name), None, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(admission, model.register(&name));
                prop_assert_eq!(account.used, model.used());
            }
            Step::Remove(name) => {
                let (removed, _) = store.remove(org, &id(&name), false, &by(now)).await.unwrap().unwrap();
                let known = model.devices.remove(&name).is_some();
                prop_assert_eq!(removed, if known { Removal::Removed } else { Removal::NotFound });
            }
            Step::Revoke(names) => {
                let batch = distinct(names).unwrap();
                let (outcomes, account) =
                    store.revoke(org, &batch, Verb::RevokeBatch, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(outcomes, model.revoke(&batch, now));
                prop_assert_eq!(account.used, model.used());
            }
            Step::Unrevoke(names) => {
                let batch = distinct(names).unwrap();
                let (outcomes, account) =
                    store.unrevoke(org, &batch, Verb::UnrevokeBatch, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(outcomes, model.unrevoke(&batch));
                prop_assert_eq!(account.used, model.used());
            }
            Step::RevokeAll => {
                let (count, _) = store.revoke_all(org, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(count, model.revoke_all(now));
            }
            Step::UnrevokeAll => {
                let (all, _) = store.unrevoke_all(org, &by(now)).await.unwrap().unwrap();
                prop_assert_eq!(all, model.unrevoke_all());
            }
            Step::SetPlan(tier) => {
                store.change_org(org, &OrgChange::Plan(tier, None), &by(now)).await.unwrap().unwrap();
                model.limit = tier.limit();
            }
        }
        let (page, account) = store.list(org, &Filter::default()).await.unwrap().unwrap();
        let held: BTreeMap<_, _> = page.devices.into_iter().map(|device| (device.id, device.revoked_at)).collect();
        let expected: BTreeMap<_, _> =
            model.devices.iter().map(|(name, (_, revoked))| (name.clone(), revoked.map(at))).collect();
        prop_assert_eq!(held, expected);
        prop_assert_eq!(account.used, model.used());
    }
    Ok(())
}

fn any_sequence_of_changes_leaves_what_the_model_says(runtime: &Runtime, store: Store) {
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&proptest::collection::vec(step(), 1..24), |steps| runtime.block_on(agree(&store, steps)))
        .unwrap();
}

fn the_large_plans_end_at_their_limits_too(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        for tier in [PlanTier::Scale, PlanTier::Max] {
            let org = new_org(&store, tier).await;
            for number in 0..tier.limit() {
                let admitted = store.register(org, &id(&format!("d{number}")), None, &by(1)).await.unwrap().unwrap();
                assert_eq!((admitted.0, admitted.1.used), (Admission::New, number + 1));
            }
            let admitted = store.register(org, &id("one-more"), None, &by(1)).await.unwrap().unwrap();
            assert_eq!((admitted.0, admitted.1.used), (Admission::Full, tier.limit()));
        }
    });
}

fn registrations_that_race_for_the_last_places_never_exceed_the_plan(runtime: &Runtime, store: Store) {
    runtime.block_on(async {
        for round in 0..5 {
            let org = new_org(&store, PlanTier::Pro).await;
            let racers: Vec<_> = (0..100)
                .map(|number| {
                    // Each device twice: registering is idempotent, in any order.
                    let (store, device) = (store.clone(), id(&format!("device-{}", number / 2)));
                    tokio::spawn(
                        async move { store.register(org, &device, None, &by(round)).await.unwrap().unwrap().0 },
                    )
                })
                .collect();
            let mut won = 0;
            for racer in racers {
                won += u32::from(racer.await.unwrap() == Admission::New);
            }
            let (page, account) = store.list(org, &Filter::default()).await.unwrap().unwrap();
            assert_eq!((won, page.devices.len(), account.used), (25, 25, 25), "round {round}");
        }
    });
}
