//! The places of one pool, shared among users by demand. Pure: the caller says which connections are idle.
//!
//! No user gets more than half. While a quarter of the places is free, that is the only bound: after a restart the wrappers of
//! a thousand agents come back at once, and must not be refused places that no other user wants. Of the last quarter, each user
//! gets a place only below its share, which is 1/(n + 1) of all with n users present, so there is always room for another. Users who came early may hold more than their share is by now. When
//! no place is free, a user who holds fewer gets the place of a connection that waits for its client: of the user who holds the
//! most, the one that has waited for the longest. So no number of idle connections keeps a user out, however many user numbers
//! they come from.

use std::collections::{HashMap, HashSet};

/// One connection's place.
pub(super) type SeatId = u64;

#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    /// Places that only privileged users get.
    reserved: usize,
    all: usize,
    held: HashMap<u32, Held>,
}

#[derive(Debug, Default)]
struct Held {
    privileged: bool,
    seats: HashSet<SeatId>,
}

/// How a place was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    Free,
    /// This connection has lost its place and must be closed.
    InsteadOf(SeatId),
}

impl Shares {
    pub(super) fn new(most: usize, reserved: usize) -> Self {
        Self { most, reserved, all: 0, held: HashMap::new() }
    }

    /// The number of places.
    #[cfg(test)]
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// Takes a place for a connection of this user; `None` when there is none for it. `idle_since` says since when a connection
    /// has been waiting for its client; `None` while it is being answered.
    pub(super) fn take(
        &mut self,
        seat: SeatId,
        uid: u32,
        privileged: bool,
        idle_since: impl Fn(SeatId) -> Option<u64>,
    ) -> Option<Granted> {
        let own = self.held.get(&uid).map_or(0, |held| held.seats.len());
        let bound = if self.has_plenty() { self.half() } else { self.share(own) };
        if !privileged && own >= bound {
            return None;
        }
        let free = if privileged { self.all < self.most } else { self.all + self.reserved < self.most };
        let granted = if free {
            Granted::Free
        } else {
            let more_than = if privileged { 0 } else { own };
            let (greedy, victim) = self.longest_idle(uid, more_than, idle_since)?;
            self.give_back(victim, greedy);
            Granted::InsteadOf(victim)
        };
        let held = self.held.entry(uid).or_default();
        held.privileged = privileged;
        held.seats.insert(seat);
        self.all += 1;
        Some(granted)
    }

    /// Gives a place back; nothing happens when the connection has lost it already.
    pub(super) fn give_back(&mut self, seat: SeatId, uid: u32) {
        let Some(held) = self.held.get_mut(&uid) else { return };
        if held.seats.remove(&seat) {
            self.all -= 1;
        }
        if held.seats.is_empty() {
            self.held.remove(&uid);
        }
    }

    /// Whether a quarter of the places is free.
    fn has_plenty(&self) -> bool {
        self.all < self.most - self.most / 4
    }

    /// The most places of one user, while there are plenty.
    fn half(&self) -> usize {
        (self.most / 2).max(1)
    }

    /// The most places of one user otherwise, with a further one present when it has none yet.
    fn share(&self, own: usize) -> usize {
        let users = self.held.values().filter(|held| !held.privileged).count() + usize::from(own == 0);
        (self.most / (users + 1)).max(1)
    }

    /// The connection that has waited for its client for the longest, of the user who holds the most places and has such a
    /// connection; only of users other than `uid` who hold more than `more_than`.
    fn longest_idle(
        &self,
        uid: u32,
        more_than: usize,
        idle_since: impl Fn(SeatId) -> Option<u64>,
    ) -> Option<(u32, SeatId)> {
        let mut users: Vec<_> = self.held.iter().filter(|(other, held)| **other != uid && !held.privileged).collect();
        users.retain(|(_, held)| held.seats.len() > more_than);
        users.sort_by_key(|(other, held)| (std::cmp::Reverse(held.seats.len()), **other));
        users.into_iter().find_map(|(other, held)| {
            let idle = held.seats.iter().filter_map(|seat| Some((idle_since(*seat)?, *seat)));
            idle.min().map(|(_, seat)| (*other, seat))
        })
    }

    #[cfg(test)]
    fn of(&self, uid: u32) -> usize {
        self.held.get(&uid).map_or(0, |held| held.seats.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes up to so many places, all of idle connections.
    fn fill(shares: &mut Shares, next: &mut SeatId, uid: u32, count: usize) -> usize {
        (0..count)
            .filter(|_| {
                *next += 1;
                shares.take(*next, uid, false, Some).is_some()
            })
            .count()
    }

    #[test]
    fn two_users_who_take_all_they_can_leave_a_third_its_share() {
        let (mut shares, mut next) = (Shares::new(120, 12), 0);
        assert_eq!(fill(&mut shares, &mut next, 1, 1000), 60, "alone: half");
        assert_eq!(fill(&mut shares, &mut next, 2, 1000), 40, "a third");
        assert_eq!(fill(&mut shares, &mut next, 3, 1000), 30, "a quarter");
        assert_eq!((shares.of(1), shares.of(2), shares.of(3)), (39, 39, 30), "the greediest have made room");
        assert_eq!(shares.all, 108, "the rest is kept");
        assert!(shares.take(9999, 0, true, |_| None).is_some(), "for the operator");
    }

    #[test]
    fn while_a_quarter_is_free_other_users_take_nothing_from_a_users_half() {
        let mut shares = Shares::new(4096, 16);
        for (uid, count) in [(2, 1), (3, 1), (4, 1), (1, 1000)] {
            for number in 0..count {
                let seat = u64::from(uid) * 10_000 + number;
                assert_eq!(shares.take(seat, uid, false, |_| None), Some(Granted::Free), "{uid}: {number}");
            }
        }
    }

    #[test]
    fn as_many_user_numbers_as_there_are_places_do_not_keep_another_out() {
        let (mut shares, mut next) = (Shares::new(120, 12), 0);
        for uid in 1000..2000 {
            fill(&mut shares, &mut next, uid, 1);
        }
        assert_eq!(shares.take(9999, 1, false, Some).map(|granted| granted != Granted::Free), Some(true));
        // Nothing is idle: a connection that is being answered is not interrupted.
        assert_eq!(shares.take(10_000, 2, false, |_| None), None);
    }

    #[test]
    fn the_longest_idle_connection_of_the_greediest_goes_first() {
        let mut shares = Shares::new(10, 2);
        for seat in 0..5 {
            assert_eq!(shares.take(seat, 1, false, |_| None), Some(Granted::Free));
        }
        for seat in 5..8 {
            assert_eq!(shares.take(seat, 2, false, |_| None), Some(Granted::Free));
        }
        // The first and third of the greedy user's are being answered.
        let idle = |seat| {
            [None, Some(70), None, Some(50), Some(60), Some(1), Some(2), Some(3)][usize::try_from(seat).unwrap()]
        };
        assert_eq!(shares.take(8, 3, false, idle), Some(Granted::InsteadOf(3)));
        shares.give_back(3, 1);
        assert_eq!((shares.all, shares.of(1)), (8, 4), "it had lost its place already");
    }

    proptest! {
        #[test]
        fn every_place_is_counted_and_the_user_with_the_fewest_comes_in_while_another_one_idles(
            most in 4_usize..40,
            reserved in 0_usize..4,
            steps in proptest::collection::vec((0_u32..6, 0_u8..4, any::<bool>()), 0..200),
        ) {
            let mut shares = Shares::new(most, reserved);
            // Each connection with its user, and whether it is idle.
            let mut open: Vec<(SeatId, u32, bool)> = Vec::new();
            for (number, (uid, step, idle)) in steps.into_iter().enumerate() {
                let seat = number as SeatId;
                if step == 0 && !open.is_empty() {
                    let (gone, of, _) = open.remove(number % open.len());
                    shares.give_back(gone, of);
                } else {
                    let privileged = uid == 0;
                    let own = shares.of(uid);
                    let share = if shares.all < most - most / 4 { (most / 2).max(1) } else { shares.share(own) };
                    let richer = open.iter().any(|(_, other, idle)| {
                        *idle && *other != uid && *other != 0 && (privileged || shares.of(*other) > own)
                    });
                    let free = if privileged { shares.all < most } else { shares.all + reserved < most };
                    let idles = |wanted: SeatId| open.iter().find(|(seat, ..)| *seat == wanted).filter(|(.., idle)| *idle).map(|_| 0);
                    let granted = shares.take(seat, uid, privileged, idles);
                    prop_assert_eq!(granted.is_some(), (privileged || own < share) && (free || richer));
                    if let Some(Granted::InsteadOf(lost)) = granted {
                        open.retain(|(seat, ..)| *seat != lost);
                    }
                    if granted.is_some() {
                        open.push((seat, uid, idle));
                        prop_assert!(privileged || shares.of(uid) <= most.div_ceil(2).max(1));
                    }
                }
                prop_assert_eq!(shares.all, open.len());
                prop_assert!(shares.all <= most);
                for uid in 0..6 {
                    prop_assert_eq!(shares.of(uid), open.iter().filter(|(_, of, _)| *of == uid).count());
                }
            }
        }
    }
}
