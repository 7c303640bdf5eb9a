use super::super::pid::StartTime;
use super::*;
use proptest::prelude::*;

fn member(raw: i32) -> Member {
    let identity = Identity { pid: Pid::new(raw).unwrap(), start: StartTime(5) };
    Member { identity, activity: Activity::Interruptible }
}

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(1_000_000 + millis)
}

const GRACE: Duration = Duration::from_secs(10);

#[test]
fn each_member_is_asked_once_also_one_seen_later_and_all_are_killed_after_the_grace() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let [a, b] = [member(10), member(11)];
    assert_eq!(ladder.step(at(0), &[a]).orders, [Order::Stop(a.identity)]);
    assert_eq!(ladder.step(at(5), &[a, b]).orders, [Order::Stop(b.identity)]);
    assert_eq!(ladder.step(at(9_999), &[a, b]).orders, []);
    for time in [10_000, 10_005] {
        assert_eq!(ladder.step(at(time), &[a, b]).orders, [Order::Kill(a.identity), Order::Kill(b.identity)]);
    }
}

#[test]
fn what_an_agent_starts_to_clean_up_is_left_the_rest_of_the_grace() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let agent = member(10);
    let mut cleaner = member(11);
    cleaner.identity.start = StartTime(at(10).as_millis() / 10);
    assert_eq!(ladder.step(at(0), &[agent]).orders, [Order::Stop(agent.identity)]);
    assert_eq!(ladder.step(at(20), &[agent, cleaner]).orders, []);
    assert_eq!(ladder.step(at(10_000), &[cleaner]).orders, [Order::Kill(cleaner.identity)]);
}

#[test]
fn the_side_that_does_not_ask_only_kills() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Theirs, GRACE);
    assert_eq!(ladder.step(at(0), &[member(10)]).orders, []);
    assert_eq!(ladder.step(at(10_000), &[member(10)]).orders, [Order::Kill(member(10).identity)]);
}

#[test]
fn it_is_over_when_nobody_was_found_twice_in_a_row() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    ladder.step(at(0), &[member(10)]);
    assert!(matches!(ladder.step(at(5), &[]).next, Next::LookAt(_)));
    // A process forked while the table was read shows up late.
    assert_eq!(ladder.step(at(10), &[member(12)]).orders, [Order::Stop(member(12).identity)]);
    assert!(matches!(ladder.step(at(15), &[]).next, Next::LookAt(_)));
    assert_eq!(ladder.step(at(20), &[]).next, Next::Over);
}

#[test]
fn looks_become_rarer_up_to_a_limit_and_the_end_of_the_grace_is_met_exactly() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::from_millis(60));
    let mut now = at(0);
    let mut times = Vec::new();
    while let Next::LookAt(next) = ladder.step(now, &[member(10)]).next {
        times.push(next.saturating_since(at(0)).as_millis());
        now = next;
        if times.len() == 8 {
            break;
        }
    }
    assert_eq!(times, [5, 15, 35, 60, 65, 75, 95, 135]);
}

#[test]
fn survivors_are_named_with_the_reason_only_after_some_patience() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, Duration::ZERO);
    let [a, mut b, c] = [member(10), member(11), member(12)];
    b.activity = Activity::Uninterruptible;
    for order in ladder.step(at(0), &[a, b, c]).orders {
        let delivery = if order.target() == a.identity { Delivery::NotPermitted } else { Delivery::Sent };
        ladder.delivered(order, delivery);
    }
    assert_eq!(ladder.survivors(at(100)), []);
    ladder.step(at(900), &[a, b, c]);
    let reasons: Vec<_> = ladder.survivors(at(900)).into_iter().map(|survivor| survivor.reason).collect();
    assert_eq!(reasons, [SurvivorReason::NotPermitted, SurvivorReason::Uninterruptible, SurvivorReason::StillEnding]);
    ladder.step(at(950), &[]);
    assert_eq!(ladder.survivors(at(950)), []);
}

#[test]
fn what_could_not_be_sent_is_ordered_again() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    let order = ladder.step(at(0), &[member(10)]).orders[0];
    ladder.not_sent(order);
    assert_eq!(ladder.step(at(5), &[member(10)]).orders, [order]);
    ladder.delivered(order, Delivery::Sent);
    assert_eq!(ladder.step(at(10), &[member(10)]).orders, []);
}

#[test]
fn the_grace_can_be_shortened_and_never_lengthened() {
    let mut ladder = Ladder::begin(at(0), FirstSignal::Ours, GRACE);
    ladder.hasten(at(0), Duration::from_mins(1));
    assert_eq!(ladder.kill_at(), at(10_000));
    ladder.hasten(at(100), Duration::from_secs(1));
    assert_eq!(ladder.kill_at(), at(1_100));
}

proptest! {
    #[test]
    fn any_course_keeps_the_promises(
        grace in 0_u64..200,
        ours in any::<bool>(),
        looks in proptest::collection::vec((0_u64..40, proptest::collection::btree_set(2_i32..8, 0..4)), 1..40),
    ) {
        let first = if ours { FirstSignal::Ours } else { FirstSignal::Theirs };
        let mut ladder = Ladder::begin(at(0), first, Duration::from_millis(grace));
        let mut asked = HashSet::new();
        let mut elapsed = 0;
        let mut empty_before = false;
        for (pause, pids) in looks {
            elapsed += pause;
            let members: Vec<_> = pids.iter().map(|&pid| member(pid)).collect();
            let step = ladder.step(at(elapsed), &members);
            for order in &step.orders {
                prop_assert!(members.iter().any(|member| member.identity == order.target()));
                match order {
                    Order::Stop(who) => {
                        prop_assert!(ours && elapsed < grace);
                        prop_assert!(asked.insert(*who), "asked twice");
                    }
                    Order::Kill(_) => prop_assert!(elapsed >= grace),
                }
            }
            if elapsed >= grace {
                prop_assert_eq!(step.orders.len(), members.len(), "everybody is killed at every look");
            } else if ours {
                prop_assert!(members.iter().all(|member| asked.contains(&member.identity)));
            }
            match step.next {
                Next::Over => {
                    prop_assert!(members.is_empty() && empty_before);
                    break;
                }
                Next::LookAt(when) => {
                    prop_assert!(when > at(elapsed) && when <= at(elapsed) + LONGEST_PAUSE);
                    if elapsed < grace && !members.is_empty() {
                        prop_assert!(when <= at(grace));
                    }
                }
            }
            empty_before = members.is_empty();
        }
    }
}
