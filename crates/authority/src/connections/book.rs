//! Which connections are open, and which one is closed for another. Pure: told the time.
//!
//! A connection is anonymous until it has presented a valid key. An anonymous one may be closed at any time for a newcomer:
//! an honest client presents its key at once, an attacker's connection stays anonymous. One that is recognised is closed only
//! while nothing runs on it, and only when there is no anonymous one left to close.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use machineid_clock::BootTime;

use crate::forwarded::ClientAddress;
use crate::limits::network;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Origin {
    /// An address, the network that counts as one client, or a user of this host.
    Client(ClientAddress),
    /// A trusted proxy. It stands for any number of clients, so it has no share and is recognised from the start.
    Proxy,
}

impl Origin {
    pub(crate) fn of(client: ClientAddress) -> Self {
        let local = match client {
            // A local user has all of 127.0.0.0/8.
            ClientAddress::Host(address) => address.to_canonical().is_loopback(),
            ClientAddress::User(_) => false,
        };
        Self::Client(if local { ClientAddress::Host(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { network(client) })
    }
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionBounds {
    /// Of all.
    pub(crate) all: usize,
    /// Of those that are anonymous: the other places are kept for keys.
    pub(crate) anonymous: usize,
    /// Of the anonymous ones of one origin.
    pub(crate) share: usize,
    /// Of all of one origin.
    pub(crate) of_origin: usize,
}

impl ConnectionBounds {
    /// The smallest number of connections that a server can be told to serve.
    pub(crate) const FEWEST: usize = 16;

    /// A quarter is kept for keys; one origin has at most an eighth without a key and half in all.
    pub(crate) fn new(all: usize) -> Self {
        let all = all.max(Self::FEWEST);
        Self { all, anonymous: all - all / 4, share: all / 8, of_origin: all / 2 }
    }

    /// Those of a listener that asks for no key: when all places are taken, a new connection replaces the oldest one.
    pub(crate) fn of_strangers(all: usize) -> Self {
        Self { all, anonymous: all, share: all, of_origin: all }
    }
}

/// Since when a connection is as it is, and its number.
type BookOrder = (BootTime, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Since it was accepted, or since its last request began.
    Anonymous,
    /// It presented a valid key, and no request runs on it.
    Idle,
    /// It presented a valid key, and a request runs on it. One that watches stays so.
    Busy,
}

#[derive(Clone, Copy, Debug)]
struct BookEntry {
    origin: Origin,
    since: BootTime,
    standing: Standing,
}

/// The connections of one origin.
#[derive(Debug, Default)]
struct OfOrigin {
    anonymous: BTreeSet<BookOrder>,
    idle: BTreeSet<BookOrder>,
    busy: usize,
}

impl OfOrigin {
    fn count(&self) -> usize {
        self.anonymous.len() + self.idle.len() + self.busy
    }

    /// The place among the origins of which one has to lose an anonymous connection: the last is the one with the most, and
    /// of several the one with the oldest.
    fn rank(&self) -> Option<(usize, Reverse<BootTime>)> {
        self.anonymous.first().map(|(since, _)| (self.anonymous.len(), Reverse(*since)))
    }
}

/// All open connections.
#[derive(Debug)]
pub(crate) struct Book {
    bounds: ConnectionBounds,
    next: u64,
    open: HashMap<u64, BookEntry>,
    origins: HashMap<Origin, OfOrigin>,
    ranks: BTreeSet<(usize, Reverse<BootTime>, Origin)>,
    idle: BTreeSet<BookOrder>,
    anonymous: usize,
}

/// A newcomer that got a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) number: u64,
    /// The connection to close for it.
    pub(crate) closed: Option<u64>,
}

/// There is no place, and none that could be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoPlace;

impl Book {
    pub(crate) fn new(bounds: ConnectionBounds) -> Self {
        Self {
            bounds,
            next: 0,
            open: HashMap::new(),
            origins: HashMap::new(),
            ranks: BTreeSet::new(),
            idle: BTreeSet::new(),
            anonymous: 0,
        }
    }

    /// Gives a newcomer a place, which may cost another connection its own.
    pub(crate) fn admit(&mut self, origin: Origin, now: BootTime) -> Result<Admitted, NoPlace> {
        let closed = self.in_the_way(origin)?;
        if let Some(number) = closed {
            self.leave(number);
        }
        let number = self.next;
        self.next += 1;
        let standing = match origin {
            Origin::Client(_) => Standing::Anonymous,
            Origin::Proxy => Standing::Idle,
        };
        self.enter(number, BookEntry { origin, since: now, standing });
        Ok(Admitted { number, closed })
    }

    /// The connection to close for a newcomer from there; `None` while there is room.
    fn in_the_way(&self, origin: Origin) -> Result<Option<u64>, NoPlace> {
        let number = |place: Option<&BookOrder>| place.map(|(_, number)| *number);
        let limited = match origin {
            Origin::Client(_) => true,
            Origin::Proxy => false,
        };
        if limited && let Some(own) = self.origins.get(&origin) {
            if own.anonymous.len() >= self.bounds.share {
                return number(own.anonymous.first()).map(Some).ok_or(NoPlace);
            }
            if own.count() >= self.bounds.of_origin {
                let anonymous = number(own.anonymous.first());
                // The newcomer is anonymous: one that is not can make room for it only below that bound.
                let idle = number(own.idle.first()).filter(|_| self.anonymous < self.bounds.anonymous);
                return anonymous.or(idle).map(Some).ok_or(NoPlace);
            }
        }
        if self.open.len() >= self.bounds.all || (limited && self.anonymous >= self.bounds.anonymous) {
            let largest = self.ranks.last().and_then(|(_, _, origin)| self.origins.get(origin));
            let anonymous = number(largest.and_then(|of_origin| of_origin.anonymous.first()));
            return anonymous.or_else(|| number(self.idle.first())).map(Some).ok_or(NoPlace);
        }
        Ok(None)
    }

    /// A request of this connection begins.
    pub(crate) fn asked(&mut self, number: u64, now: BootTime) {
        self.change(number, |entry| match entry.standing {
            Standing::Anonymous => entry.since = now,
            Standing::Idle => entry.standing = Standing::Busy,
            Standing::Busy => {}
        });
    }

    /// The connection presented a valid key.
    pub(crate) fn recognised(&mut self, number: u64) {
        self.change(number, |entry| match entry.standing {
            Standing::Anonymous => entry.standing = Standing::Busy,
            Standing::Idle | Standing::Busy => {}
        });
    }

    /// Its request was answered, by an answer that is not a stream.
    pub(crate) fn answered(&mut self, number: u64, now: BootTime) {
        self.change(number, |entry| match entry.standing {
            Standing::Busy => (entry.standing, entry.since) = (Standing::Idle, now),
            Standing::Anonymous | Standing::Idle => {}
        });
    }

    /// Gives up the place of a connection that has ended.
    pub(crate) fn leave(&mut self, number: u64) {
        self.remove(number);
    }

    /// How many there may be.
    pub(crate) fn bound(&self) -> usize {
        self.bounds.all
    }

    /// How many are open.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    /// How many of them are anonymous.
    pub(crate) fn anonymous(&self) -> usize {
        self.anonymous
    }

    /// Changes an entry, unless its connection was closed for another.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut BookEntry)) {
        if let Some(mut entry) = self.remove(number) {
            change(&mut entry);
            self.enter(number, entry);
        }
    }

    fn enter(&mut self, number: u64, entry: BookEntry) {
        self.open.insert(number, entry);
        let place = (entry.since, number);
        let of_origin = self.origins.entry(entry.origin).or_default();
        let rank = of_origin.rank();
        match entry.standing {
            Standing::Anonymous => {
                of_origin.anonymous.insert(place);
                self.anonymous += 1;
            }
            Standing::Idle => {
                of_origin.idle.insert(place);
                self.idle.insert(place);
            }
            Standing::Busy => of_origin.busy += 1,
        }
        let new_rank = of_origin.rank();
        self.rank(entry.origin, rank, new_rank);
    }

    fn remove(&mut self, number: u64) -> Option<BookEntry> {
        let entry = self.open.remove(&number)?;
        let place = (entry.since, number);
        let of_origin = self.origins.entry(entry.origin).or_default();
        let rank = of_origin.rank();
        match entry.standing {
            Standing::Anonymous => {
                of_origin.anonymous.remove(&place);
                self.anonymous -= 1;
            }
            Standing::Idle => {
                of_origin.idle.remove(&place);
                self.idle.remove(&place);
            }
            Standing::Busy => of_origin.busy -= 1,
        }
        let (new_rank, left) = (of_origin.rank(), of_origin.count());
        if left == 0 {
            self.origins.remove(&entry.origin);
        }
        self.rank(entry.origin, rank, new_rank);
        Some(entry)
    }

    fn rank(
        &mut self,
        origin: Origin,
        old: Option<(usize, Reverse<BootTime>)>,
        new: Option<(usize, Reverse<BootTime>)>,
    ) {
        if old != new {
            if let Some((count, since)) = old {
                self.ranks.remove(&(count, since, origin));
            }
            if let Some((count, since)) = new {
                self.ranks.insert((count, since, origin));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_millis(millis)
    }

    fn from(last: u8) -> Origin {
        Origin::of(ClientAddress::Host(Ipv4Addr::new(192, 0, 2, last).into()))
    }

    const SMALL: ConnectionBounds = ConnectionBounds { all: 16, anonymous: 12, share: 4, of_origin: 8 };

    #[test]
    fn the_bounds_follow_from_the_number_of_connections() {
        assert_eq!(ConnectionBounds::new(16), ConnectionBounds { all: 16, anonymous: 12, share: 2, of_origin: 8 });
        assert_eq!(
            ConnectionBounds::new(65_536),
            ConnectionBounds { all: 65_536, anonymous: 49_152, share: 8_192, of_origin: 32_768 }
        );
        assert_eq!(ConnectionBounds::new(1), ConnectionBounds::new(16));
    }

    #[test]
    fn an_origin_is_a_network_or_a_user_and_loopback_is_one() {
        let of = |text: &str| Origin::of(ClientAddress::Host(text.parse().unwrap()));
        let same = |one: &str, two: &str| of(one) == of(two);
        assert!(same("2001:db8::1", "2001:db8::ffff:1") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("127.0.0.1", "127.9.9.9") && same("::1", "127.0.0.1") && !same("192.0.2.1", "192.0.2.2"));
        assert_ne!(Origin::of(ClientAddress::User(1)), Origin::of(ClientAddress::User(2)));
    }

    #[test]
    fn a_flood_from_one_address_closes_its_own_connections_alone() {
        let mut book = Book::new(SMALL);
        let other = book.admit(from(1), at(0)).unwrap().number;
        let flood: Vec<u64> = (0..4).map(|millis| book.admit(from(9), at(millis)).unwrap().number).collect();
        for millis in 4..8 {
            let admitted = book.admit(from(9), at(millis)).unwrap();
            assert_eq!(admitted.closed, Some(flood[usize::try_from(millis).unwrap() - 4]), "its oldest");
        }
        assert!(book.open.contains_key(&other) && book.count() == 5);
    }

    #[test]
    fn a_flood_from_many_addresses_closes_those_of_the_largest_and_then_the_oldest() {
        let mut book = Book::new(SMALL);
        let honest = book.admit(from(250), at(0)).unwrap().number;
        book.recognised(honest);
        book.answered(honest, at(0));
        let pair = book.admit(from(1), at(1)).unwrap().number;
        book.admit(from(1), at(2)).unwrap();
        let single: Vec<u64> = (2..12).map(|last| book.admit(from(last), at(2)).unwrap().number).collect();
        assert_eq!(book.anonymous(), SMALL.anonymous);
        assert_eq!(book.admit(from(99), at(3)).unwrap().closed, Some(pair), "one address has two");
        let fresh = book.admit(from(251), at(4)).unwrap();
        assert!(fresh.closed != Some(honest) && fresh.closed.is_some());
        assert!(
            single.contains(&book.admit(from(98), at(5)).unwrap().closed.unwrap()),
            "not the newest, which is honest"
        );
    }

    #[test]
    fn a_recognised_connection_goes_when_there_is_no_other_and_never_while_it_is_busy() {
        let mut book = Book::new(SMALL);
        let numbers: Vec<u64> = (0..16)
            .map(|last| {
                let number = book.admit(from(last), at(u64::from(last))).unwrap().number;
                book.recognised(number);
                number
            })
            .collect();
        assert_eq!(book.admit(from(99), at(20)), Err(NoPlace), "all are busy");
        book.answered(numbers[7], at(21));
        book.answered(numbers[3], at(22));
        assert_eq!(book.admit(from(99), at(23)).unwrap().closed, Some(numbers[7]));
    }

    #[test]
    fn a_proxy_has_no_share() {
        let mut book = Book::new(SMALL);
        for _ in 0..16 {
            assert_eq!(book.admit(Origin::Proxy, at(0)).unwrap().closed, None);
        }
        assert_eq!(book.anonymous(), 0);
        assert!(book.admit(Origin::Proxy, at(1)).unwrap().closed.is_some());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit(u8),
        AdmitProxy,
        Asked(usize),
        Recognised(usize),
        Answered(usize),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..6).prop_map(Step::Admit),
            1 => Just(Step::AdmitProxy),
            2 => (0_usize..64).prop_map(Step::Asked),
            2 => (0_usize..64).prop_map(Step::Recognised),
            2 => (0_usize..64).prop_map(Step::Answered),
            1 => (0_usize..64).prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_no_key_holder_is_closed_for_a_stranger(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut book = Book::new(SMALL);
            let mut numbers = Vec::new();
            for (millis, step) in (0_u64..).zip(steps) {
                let pick = |which: usize| numbers.get(which % numbers.len().max(1)).copied().unwrap_or(u64::MAX);
                let now = at(millis);
                let before = book.open.clone();
                match step {
                    Step::Admit(_) | Step::AdmitProxy => {
                        let origin = if let Step::Admit(last) = step { from(last) } else { Origin::Proxy };
                        if let Ok(Admitted { number, closed }) = book.admit(origin, now) {
                            numbers.push(number);
                            if let Some(closed) = closed {
                                let gone = before[&closed];
                                prop_assert!(gone.standing != Standing::Busy);
                                let of = |one: &BookEntry| one.origin == gone.origin && one.standing == Standing::Anonymous;
                                let full = before.len() >= SMALL.all;
                                if gone.standing == Standing::Idle {
                                    prop_assert!(full || origin == gone.origin);
                                    prop_assert!(!before.values().any(of) || gone.origin == Origin::Proxy);
                                }
                            }
                        } else {
                            let own = |one: &&BookEntry| one.origin == origin;
                            let busy = before.values().filter(own).all(|one| one.standing == Standing::Busy);
                            prop_assert!(busy || book.anonymous == SMALL.anonymous);
                        }
                    }
                    Step::Asked(which) => book.asked(pick(which), now),
                    Step::Recognised(which) => book.recognised(pick(which)),
                    Step::Answered(which) => book.answered(pick(which), now),
                    Step::Leave(which) => book.leave(pick(which)),
                }
                let anonymous = |one: &&BookEntry| one.standing == Standing::Anonymous;
                prop_assert_eq!(book.anonymous, book.open.values().filter(anonymous).count());
                prop_assert!(book.open.len() <= SMALL.all && book.anonymous <= SMALL.anonymous);
                prop_assert_eq!(book.origins.values().map(OfOrigin::count).sum::<usize>(), book.open.len());
                for (origin, of_origin) in &book.origins {
                    let limited = *origin != Origin::Proxy;
                    prop_assert!(!limited || of_origin.anonymous.len() <= SMALL.share);
                    prop_assert!(!limited || of_origin.count() <= SMALL.of_origin);
                }
                prop_assert_eq!(book.ranks.len(), book.origins.values().filter(|one| one.rank().is_some()).count());
            }
        }
    }
}
