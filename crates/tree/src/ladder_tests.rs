use super::super::pid::StartTime;
use super::*;
use proptest::prelude::*;

fn member(raw: i32) -> Member {
    let identity = Identity { pid: Pid::new(raw).unwrap(), start: StartTime(5) };
    Member { identity, activity: Activity::Interruptible, in_leaf: false }
}

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(1_000_000 + millis)
}

const GRACE: Duration = Duration::from_secs(10);

#[test]
fn each_member_is_asked_once_also_one_seen_later_and_all_are_killed_after_the_grace() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let [a, b] = [member(10), member(11)];
    assert_eq!(ladder.step(at(0), &TreeLook::at(&[a])).orders, [Order::Stop(a.identity)]);
    assert_eq!(ladder.step(at(5), &TreeLook::at(&[a, b])).orders, [Order::Stop(b.identity)]);
    assert_eq!(ladder.step(at(9_999), &TreeLook::at(&[a, b])).orders, []);
    for time in [10_000, 10_005] {
        assert_eq!(
            ladder.step(at(time), &TreeLook::at(&[a, b])).orders,
            [Order::Kill(a.identity), Order::Kill(b.identity)]
        );
    }
}

#[test]
fn what_an_agent_starts_to_clean_up_is_left_the_rest_of_the_grace() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let agent = member(10);
    let mut cleaner = member(11);
    cleaner.identity.start = StartTime(at(10).as_millis() / 10);
    assert_eq!(ladder.step(at(0), &TreeLook::at(&[agent])).orders, [Order::Stop(agent.identity)]);
    assert_eq!(ladder.step(at(20), &TreeLook::at(&[agent, cleaner])).orders, []);
    assert_eq!(ladder.step(at(10_000), &TreeLook::at(&[cleaner])).orders, [Order::Kill(cleaner.identity)]);
}

#[test]
fn the_side_that_does_not_ask_only_kills() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Theirs, GRACE);
    assert_eq!(ladder.step(at(0), &TreeLook::at(&[member(10)])).orders, []);
    assert_eq!(ladder.step(at(10_000), &TreeLook::at(&[member(10)])).orders, [Order::Kill(member(10).identity)]);
}

#[test]
fn it_is_over_when_no_process_was_found_twice_in_a_row() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    ladder.step(at(0), &TreeLook::at(&[member(10)]));
    assert!(matches!(ladder.step(at(5), &TreeLook::at(&[])).next, Next::LookAt(_)));
    // A process forked while the table was read shows up late.
    assert_eq!(ladder.step(at(10), &TreeLook::at(&[member(12)])).orders, [Order::Stop(member(12).identity)]);
    assert!(matches!(ladder.step(at(15), &TreeLook::at(&[])).next, Next::LookAt(_)));
    assert_eq!(ladder.step(at(20), &TreeLook::at(&[])).next, Next::Over);
}

#[test]
fn looks_become_rarer_up_to_a_limit_and_the_end_of_the_grace_is_met_exactly() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::from_millis(60));
    let mut now = at(0);
    let mut times = Vec::new();
    while let Next::LookAt(next) = ladder.step(now, &TreeLook::at(&[member(10)])).next {
        times.push(next.saturating_since(at(0)).as_millis());
        now = next;
        if times.len() == 8 {
            break;
        }
    }
    // A process that is killed for the first time may have forked: that look is soon followed by another.
    assert_eq!(times, [5, 15, 35, 60, 65, 75, 95, 135]);
}

#[test]
fn a_control_group_is_all_of_a_tree_only_while_the_last_looks_found_the_same_and_no_process_outside() {
    let inside = Member { in_leaf: true, ..member(10) };
    let (pid, other, outside) = (inside.identity.pid, member(11).identity.pid, member(12));
    let mut ladder = Ladder::begin(at(0), FirstSignal::Theirs, GRACE);
    ladder.step(at(0), &TreeLook::at(&[inside]));
    assert!(!ladder.is_all_of_it(&[pid]), "one look may have missed a process");
    ladder.step(at(5), &TreeLook::at(&[inside]));
    assert!(ladder.is_all_of_it(&[pid]));
    assert!(!ladder.is_all_of_it(&[pid, other]) && !ladder.is_all_of_it(&[other]) && !ladder.is_all_of_it(&[]));
    ladder.step(at(10), &TreeLook::at(&[inside, outside]));
    assert!(!ladder.is_all_of_it(&[pid]));
    let mut outside_alone = Ladder::begin(at(0), FirstSignal::Theirs, GRACE);
    for time in [0, 5, 10] {
        outside_alone.step(at(time), &TreeLook::at(&[outside]));
    }
    assert!(!outside_alone.is_all_of_it(&[]));
}

#[test]
fn a_ladder_is_calm_when_two_looks_had_nothing_new_to_send_and_not_any_more_when_kill_is_due() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let [a, b] = [member(10), member(11)];
    ladder.step(at(0), &TreeLook::at(&[a]));
    ladder.step(at(5), &TreeLook::at(&[a]));
    assert!(!ladder.is_calm());
    ladder.step(at(10), &TreeLook::at(&[a, b]));
    ladder.step(at(15), &TreeLook::at(&[a, b]));
    ladder.step(at(20), &TreeLook::at(&[a, b]));
    assert!(ladder.is_calm());
    for (time, calm) in [(10_000, false), (10_005, false), (10_015, true)] {
        ladder.step(at(time), &TreeLook::at(&[a, b]));
        assert_eq!(ladder.is_calm(), calm, "{time}");
    }
    ladder.step(at(10_020), &TreeLook::at(&[a, b, member(12)]));
    assert!(!ladder.is_calm(), "a new member may fork again");
}

fn asleep(raw: i32) -> Member {
    Member { activity: Activity::Uninterruptible, ..member(raw) }
}

fn reasons(ladder: &Ladder) -> Vec<(i32, SurvivorReason)> {
    ladder.survivors().into_iter().map(|survivor| (survivor.pid.as_raw(), survivor.reason)).collect()
}

#[test]
fn survivors_are_named_with_the_reason_only_after_some_patience() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::ZERO);
    let (a, b, c) = (member(10), asleep(11), member(12));
    let all = [a, b, c];
    for order in ladder.step(at(0), &TreeLook::at(&all)).orders {
        let delivery = if order == Order::Kill(a.identity) { Delivery::NotPermitted } else { Delivery::Sent };
        ladder.delivered(order, delivery);
    }
    for time in (5..800).step_by(50) {
        ladder.step(at(time), &TreeLook::at(&all));
        assert_eq!(reasons(&ladder), [], "{time}");
    }
    ladder.step(at(805), &TreeLook::at(&all));
    let refused = (10, SurvivorReason::NotPermitted);
    let asleep = (11, SurvivorReason::Uninterruptible);
    assert_eq!(reasons(&ladder), [refused, asleep], "a process that could end gets time to");
    for time in (855..10_000).step_by(50) {
        ladder.step(at(time), &TreeLook::at(&all));
    }
    assert_eq!(reasons(&ladder), [refused, asleep, (12, SurvivorReason::StillEnding)]);
    ladder.step(at(10_000), &TreeLook::at(&[]));
    assert_eq!(reasons(&ladder), []);
}

#[test]
fn a_machine_that_is_slow_makes_no_survivors() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::ZERO);
    let members = [asleep(10), member(11)];
    ladder.step(at(0), &TreeLook::at(&members));
    // The table of this look was begun late, and what it found is the first that is known after SIGKILL.
    ladder.step(at(4_000), &TreeLook::at(&members));
    assert_eq!(reasons(&ladder), [], "there was one look behind the signal");
    ladder.step(at(12_000), &TreeLook::at(&[asleep(10), member(11)]));
    let slow = "a look that came eight seconds late says that others had the processor";
    assert_eq!(reasons(&ladder), [(10, SurvivorReason::Uninterruptible)], "{slow}");
}

#[test]
fn a_rest_before_sigkill_does_not_put_off_when_survivors_are_named() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    for time in [0, 5, 15, 1_000, 2_000] {
        ladder.step(at(time), &TreeLook::at(&[member(10)]));
    }
    // A wrapper that leaves the lead to the daemon strikes late on purpose.
    ladder.strike(at(10_300), None, None);
    for time in (10_300..15_200).step_by(5) {
        ladder.step(at(time), &TreeLook::at(&[member(10)]));
        assert_eq!(reasons(&ladder), [], "{time}");
    }
    for time in (15_200..15_400).step_by(5) {
        ladder.step(at(time), &TreeLook::at(&[member(10)]));
    }
    assert_eq!(reasons(&ladder), [(10, SurvivorReason::StillEnding)]);
}

#[test]
fn uninterruptible_is_said_of_a_process_that_every_look_found_so_for_a_while() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::ZERO);
    for time in (0..4_000).step_by(100) {
        // The process is asleep for a moment now and then, as it is while it ends.
        let now = if time % 300 == 0 { member(10) } else { asleep(10) };
        ladder.step(at(time), &TreeLook::at(&[now]));
        assert_eq!(reasons(&ladder), [], "{time}");
    }
}

#[test]
fn what_could_not_be_sent_is_ordered_again() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let order = ladder.step(at(0), &TreeLook::at(&[member(10)])).orders[0];
    ladder.not_sent(order);
    assert_eq!(ladder.step(at(5), &TreeLook::at(&[member(10)])).orders, [order]);
    ladder.delivered(order, Delivery::Sent);
    assert_eq!(ladder.step(at(10), &TreeLook::at(&[member(10)])).orders, []);
}

#[test]
fn the_grace_can_be_shortened_and_never_lengthened() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    ladder.hasten(at(0), Duration::from_mins(1));
    assert_eq!(ladder.kill_at(), at(10_000));
    ladder.hasten(at(100), Duration::from_secs(1));
    assert_eq!(ladder.kill_at(), at(1_100));
}

fn leaf(populated: bool) -> LeafLook {
    LeafLook { populated, can_kill: true, needs_thawing: false }
}

fn inside(raw: i32) -> Member {
    Member { in_leaf: true, ..member(raw) }
}

#[test]
fn the_kernel_kills_the_processes_in_the_leaf_and_the_others_are_killed_one_by_one() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::ZERO);
    let members = [inside(10), member(11)];
    let look = TreeLook { leaf: Some(leaf(true)), ..TreeLook::at(&members) };
    let expected = [Order::KillLeaf, Order::Kill(members[1].identity)];
    assert_eq!(ladder.step(at(0), &look).orders, expected);
    assert_eq!(ladder.step(at(0), &look).orders, expected, "at every look while the group is populated");
    for order in expected {
        ladder.delivered(order, Delivery::Sent);
    }
    assert_eq!(ladder.killed(), 2);
    // Where the kernel may not kill the group, or did not, the members are killed one by one.
    let one_by_one = members.map(|member| Order::Kill(member.identity));
    let look = TreeLook { leaf: Some(LeafLook { can_kill: false, ..leaf(true) }), ..TreeLook::at(&members) };
    assert_eq!(ladder.step(at(5), &look).orders, one_by_one);
    ladder.delivered(Order::KillLeaf, Delivery::NotPermitted);
    let look = TreeLook { leaf: Some(leaf(true)), ..TreeLook::at(&members) };
    assert_eq!(ladder.step(at(10), &look).orders, one_by_one);
}

#[test]
fn a_leaf_that_holds_an_unseen_process_is_not_empty() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let look = TreeLook { leaf: Some(leaf(true)), ..TreeLook::at(&[]) };
    for time in 0..5 {
        assert!(matches!(ladder.step(at(time), &look).next, Next::LookAt(_)));
    }
    assert_eq!(ladder.step(at(10_000), &look).orders, [Order::KillLeaf]);
    let look = TreeLook { leaf: Some(leaf(false)), ..TreeLook::at(&[]) };
    assert!(matches!(ladder.step(at(10_001), &look).next, Next::LookAt(_)));
    assert_eq!(ladder.step(at(10_002), &look).next, Next::Over);
}

#[test]
fn a_frozen_leaf_is_thawed_after_all_were_asked_by_the_side_that_asks() {
    let frozen = LeafLook { needs_thawing: true, ..leaf(true) };
    let members = [inside(10), inside(11)];
    let look = TreeLook { leaf: Some(frozen), ..TreeLook::at(&members) };
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let [a, b] = members.map(|member| Order::Stop(member.identity));
    assert_eq!(ladder.step(at(0), &look).orders, [a, b, Order::ThawLeaf]);
    assert_eq!(ladder.step(at(5), &look).orders, [Order::ThawLeaf]);
    let mut ladder = Ladder::begin(at(0), FirstSignal::Theirs, GRACE);
    assert_eq!(ladder.step(at(0), &look).orders, []);
}

#[test]
fn a_namespaces_first_process_is_not_asked_and_is_killed_with_the_others() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let members = [member(10)];
    let init = member(9).identity;
    let look = TreeLook { init: Some(init), ..TreeLook::at(&members) };
    assert_eq!(ladder.step(at(0), &look).orders, [Order::Stop(members[0].identity)]);
    assert_eq!(ladder.step(at(10_000), &look).orders, [Order::Kill(init), Order::Kill(members[0].identity)]);
}

#[test]
fn finding_no_process_means_nothing_while_one_eludes_or_something_was_not_seen() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::ZERO);
    for gaps in [Gaps::Elusive, Gaps::Unseen] {
        for _ in 0..3 {
            assert!(matches!(ladder.step(at(0), &TreeLook { gaps, ..TreeLook::at(&[]) }).next, Next::LookAt(_)));
        }
    }
}

#[test]
fn a_process_that_forks_as_fast_as_it_is_killed_is_looked_for_at_once_until_patience_ends() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::ZERO);
    assert_eq!(
        ladder.step(at(0), &TreeLook::at(&[member(1)])).next,
        Next::LookAt(at(5)),
        "a killed process ends before it is looked for again"
    );
    for (round, time) in [(2, 0), (3, 1), (4, 2)] {
        assert_eq!(ladder.step(at(time), &TreeLook::at(&[member(round)])).next, Next::LookAt(at(time)));
    }
    assert!(matches!(ladder.step(at(3), &TreeLook::at(&[member(4)])).next, Next::LookAt(when) if when > at(3)));
    let elusive = TreeLook { gaps: Gaps::Elusive, ..TreeLook::at(&[]) };
    assert_eq!(ladder.step(at(4), &elusive).next, Next::LookAt(at(4)));
    assert!(matches!(ladder.step(at(900), &elusive).next, Next::LookAt(when) if when > at(900)));
}

#[test]
fn a_process_that_was_asked_before_any_look_is_not_asked_again() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let [a, b] = [member(10), member(11)];
    assert_eq!(ladder.ask_first(at(0), a.identity), Some(Order::Stop(a.identity)));
    assert_eq!(ladder.ask_first(at(0), a.identity), None);
    assert_eq!(ladder.step(at(1), &TreeLook::at(&[a, b])).orders, [Order::Stop(b.identity)]);
    assert_eq!(ladder.ask_first(at(10_000), member(12).identity), None);
    assert_eq!(Ladder::begin(at(0), FirstSignal::Theirs, GRACE).ask_first(at(0), a.identity), None);
}

#[test]
fn what_came_of_it_is_counted_by_process() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::from_millis(5));
    let [a, b] = [member(10), member(11)];
    for (order, delivery) in
        ladder.step(at(0), &TreeLook::at(&[a, b])).orders.into_iter().zip([Delivery::Sent, Delivery::Gone])
    {
        ladder.delivered(order, delivery);
    }
    for time in [5, 6] {
        for order in ladder.step(at(time), &TreeLook::at(&[a])).orders {
            ladder.delivered(order, Delivery::Sent);
        }
    }
    assert_eq!((ladder.signalled(), ladder.killed()), (1, 1));
}

/// Processes that fork whenever there is room, up to a limit.
struct ForkStorm {
    living: Vec<Member>,
    standing: HashSet<Identity>,
    next: i32,
}

impl ForkStorm {
    const LIMIT: usize = 100;

    fn fill(&mut self) {
        let some_run = self.living.iter().any(|member| !self.standing.contains(&member.identity));
        while some_run && self.living.len() < Self::LIMIT {
            self.next += 1;
            self.living.push(member(self.next));
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Kill(identity) => self.living.retain(|member| member.identity != identity),
            Order::Suspend(identity) => drop(self.standing.insert(identity)),
            Order::Stop(_) | Order::KillLeaf | Order::ThawLeaf => {}
        }
        self.fill();
    }
}

#[test]
fn a_fork_storm_at_its_limit_that_refills_each_place_at_once_is_ended() {
    let mut storm = ForkStorm { living: vec![member(1_000)], standing: HashSet::new(), next: 1_000 };
    storm.fill();
    let mut ladder = Ladder::begin(at(0), FirstSignal::Theirs, Duration::ZERO);
    for look in 0..20 {
        let members = storm.living.clone();
        // One is killed by another side during the look, and another is missed by it, until new members are held first.
        if let Some(unlucky) = members.first().filter(|_| look < 5) {
            storm.obey(Order::Kill(unlucky.identity));
        }
        let step = ladder.step(at(look), &TreeLook::at(&members));
        if step.next == Next::Over {
            return;
        }
        for order in step.orders {
            storm.obey(order);
            ladder.delivered(order, Delivery::Sent);
        }
    }
    panic!("{} are left", storm.living.len());
}

#[test]
fn a_tree_that_ends_as_others_do_is_never_made_to_stand_still() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Theirs, Duration::ZERO);
    for (time, members) in [vec![member(10)], vec![member(10), member(11)], vec![member(11)]].iter().enumerate() {
        let step = ladder.step(at(u64::try_from(time).unwrap()), &TreeLook::at(members));
        assert!(step.orders.iter().all(|order| matches!(order, Order::Kill(_))), "{:?}", step.orders);
    }
}

proptest! {
    /// Looks at arbitrary times at processes that are asleep, or not, and permitted to be signalled, or not.
    #[test]
    fn a_survivor_was_there_long_after_its_signal_and_is_what_is_said_of_it(
        refused in any::<bool>(),
        looks in proptest::collection::vec((1_u64..900, any::<bool>(), prop::bool::weighted(0.9)), 1..40),
    ) {
        let mut ladder = Ladder::begin(at(0), FirstSignal::Theirs, Duration::ZERO);
        // Each look that found it, the latest last, since it was last missing: when, and whether it was asleep.
        let mut seen: Vec<(u64, bool)> = Vec::new();
        let mut now = 0;
        for (pause, sleeps, there) in looks {
            now += pause;
            let found = if sleeps { asleep(10) } else { member(10) };
            let members = if there { vec![found] } else { Vec::new() };
            let step = ladder.step(at(now), &TreeLook::at(&members));
            if step.next == Next::Over {
                break;
            }
            for order in step.orders {
                ladder.delivered(order, if refused { Delivery::NotPermitted } else { Delivery::Sent });
            }
            if there { seen.push((now, sleeps)) } else { seen.clear() }
            for survivor in ladder.survivors() {
                // The first look sends the signal, the second is the first behind it.
                let behind = seen.get(1).map_or(0, |(first, _)| now - first);
                prop_assert!(there && behind >= 800, "{seen:?}");
                match survivor.reason {
                    SurvivorReason::NotPermitted => prop_assert!(refused),
                    SurvivorReason::Uninterruptible => {
                        let asleep = seen.iter().rev().take_while(|(_, sleeps)| *sleeps);
                        let since = asleep.map(|(when, _)| *when).last().unwrap_or(now);
                        prop_assert!(now - since >= 300, "{seen:?}");
                    }
                    SurvivorReason::StillEnding => prop_assert!(behind >= 5_000, "{seen:?}"),
                }
            }
        }
    }

    #[test]
    fn any_course_keeps_the_promises(
        grace in 0_u64..200,
        ours in any::<bool>(),
        has_leaf in any::<bool>(),
        can_kill in any::<bool>(),
        looks in proptest::collection::vec(
            (0_u64..40, proptest::collection::btree_set(2_i32..8, 0..4), prop::bool::weighted(0.2)), 1..40),
    ) {
        let first = if ours { FirstSignal::Ours } else { FirstSignal::Theirs };
        let mut ladder = Ladder::begin(at(0), first, Duration::from_millis(grace));
        let mut asked = HashSet::new();
        let mut elapsed = 0;
        let mut empty_before = false;
        let mut sigstops_in_a_row = 0;
        for (pause, pids, unseen_inside) in looks {
            elapsed += pause;
            // Even ones are in the control group, if there is one.
            let members: Vec<_> =
                pids.iter().map(|&pid| Member { in_leaf: has_leaf && pid % 2 == 0, ..member(pid) }).collect();
            let populated = unseen_inside || members.iter().any(|member| member.in_leaf);
            let leaf = has_leaf.then_some(LeafLook { populated, can_kill, needs_thawing: false });
            let nothing_left = members.is_empty() && !(has_leaf && populated);
            let step = ladder.step(at(elapsed), &TreeLook { leaf, ..TreeLook::at(&members) });
            for order in &step.orders {
                match order {
                    Order::Stop(identity) => {
                        prop_assert!(ours && elapsed < grace);
                        prop_assert!(members.iter().any(|member| member.identity == *identity));
                        prop_assert!(asked.insert(*identity), "asked twice");
                    }
                    Order::Suspend(identity) | Order::Kill(identity) => {
                        prop_assert!(elapsed >= grace);
                        prop_assert!(members.iter().any(|member| member.identity == *identity));
                    }
                    Order::KillLeaf => prop_assert!(elapsed >= grace && has_leaf && can_kill && populated),
                    Order::ThawLeaf => prop_assert!(false, "nothing is frozen"),
                }
            }
            if elapsed >= grace {
                let at_once = step.orders.contains(&Order::KillLeaf);
                prop_assert_eq!(at_once, has_leaf && can_kill && populated);
                for member in &members {
                    let alone = [Order::Kill, Order::Suspend].map(|order| order(member.identity));
                    let alone = step.orders.iter().any(|order| alone.contains(order));
                    prop_assert!(alone || (at_once && member.in_leaf), "each member is killed at every look");
                }
                let sigstops = step.orders.iter().any(|order| matches!(order, Order::Suspend(_)));
                sigstops_in_a_row = if sigstops { sigstops_in_a_row + 1 } else { 0 };
                prop_assert!(sigstops_in_a_row <= MOST_SIGSTOP_LOOKS);
            } else if ours {
                prop_assert!(members.iter().all(|member| asked.contains(&member.identity)));
            }
            match step.next {
                Next::Over => {
                    prop_assert!(nothing_left && empty_before);
                    break;
                }
                Next::LookAt(when) => {
                    let longest = if elapsed >= grace { LONGEST_WAIT } else { LONGEST_PAUSE };
                    prop_assert!(when >= at(elapsed) && when <= at(elapsed) + longest);
                    if elapsed < grace && !nothing_left {
                        prop_assert!(when <= at(grace));
                    }
                }
            }
            empty_before = nothing_left;
        }
    }
}
