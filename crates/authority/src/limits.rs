//! Rate limits for an address or a key. Receives the time; no clock, no I/O.
//!
//! The limits protect other clients: they apply to requests with failed keys and to sign-ups (by address), and to
//! management (by key). Validations and registrations with a valid key are never limited: they are the authority's
//! purpose, and a fleet that boots all at once is no attack. A failed key is looked up all the same, so that a good key
//! is never refused because of a bad one from the same address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use machineid_clock::BootTime;

use super::access::Permission;
use super::forwarded::ClientAddress;
use super::keys::KeyMark;

/// The maximum number of askers remembered for each limit. Further ones share one allowance.
const REMEMBERED: usize = 10_000;

/// A burst, and one more request each `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) burst: u32,
    pub(super) every: Duration,
}

impl Rate {
    /// A rate of `per_minute` on average and as many at once; `None` for 0, which means no limit.
    pub(super) fn per_minute(per_minute: u32) -> Option<Self> {
        Some(Self { burst: per_minute, every: Duration::from_mins(1).checked_div(per_minute)? })
    }
}

/// One limit with the remaining allowance of each asker. An asker is stored as one time: when it will have its whole
/// burst again.
#[derive(Debug)]
struct Limit<K> {
    rate: Rate,
    whole_at: HashMap<K, Duration>,
    others: Others,
}

/// The askers beyond [`REMEMBERED`].
#[derive(Debug)]
enum Others {
    /// They share one allowance: when it will be whole again.
    Share(Duration),
    /// They are not limited.
    Pass,
}

impl<K: Eq + Hash> Limit<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, whole_at: HashMap::new(), others: Others::Share(Duration::ZERO) }
    }

    /// One that limits only the askers it remembers.
    fn of_the_remembered(rate: Rate) -> Self {
        Self { others: Others::Pass, ..Self::new(rate) }
    }

    /// Takes one from the allowance of `asker`. When it is used up, fails with the time until the next, and takes
    /// nothing.
    fn take(&mut self, asker: K, now: Duration) -> Result<(), Duration> {
        if self.whole_at.len() >= REMEMBERED && !self.whole_at.contains_key(&asker) {
            self.whole_at.retain(|_, whole_at| *whole_at > now);
        }
        let room = self.whole_at.len() < REMEMBERED || self.whole_at.contains_key(&asker);
        let whole_at = match (room, &mut self.others) {
            (true, _) => self.whole_at.entry(asker).or_insert(now),
            (false, Others::Share(whole_at)) => whole_at,
            (false, Others::Pass) => return Ok(()),
        };
        let after = (*whole_at).max(now) + self.rate.every;
        let most = now + self.rate.every * self.rate.burst;
        if after > most {
            return Err(after.saturating_sub(most));
        }
        *whole_at = after;
        Ok(())
    }
}

/// Who manages: what one of them asks for takes nothing from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// A key, used from this address: the holders of a copied key do not wait for each other.
    Key(KeyMark, ClientAddress),
    /// The console session of a user of the server.
    Operator(u32),
}

impl Asker {
    fn of_network(self) -> Self {
        match self {
            Self::Key(mark, address) => Self::Key(mark, network(address)),
            Self::Operator(uid) => Self::Operator(uid),
        }
    }
}

/// What for: a stop has an allowance of its own, so that nothing that is read, and nothing that is given back, makes it wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Stop,
    Other,
}

impl Purpose {
    pub(super) fn of(needs: Permission, reads: bool) -> Self {
        match needs {
            Permission::Stop | Permission::Administer if !reads => Self::Stop,
            Permission::Stop | Permission::Administer => Self::Other,
            Permission::Public | Permission::Work | Permission::Remove | Permission::Read | Permission::GiveBack => {
                Self::Other
            }
        }
    }
}

/// The configured limits; `None` for no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// Requests with a key of no organisation, for one address.
    pub(super) failed_keys: Option<Rate>,
    /// New organisations, for one address.
    pub(super) sign_ups: Option<Rate>,
    /// Management requests, for one key.
    pub(super) management: Option<Rate>,
}

/// The limits with their state.
#[derive(Debug)]
pub(super) struct Limits {
    // Std mutexes: each is held for one look into a map, never across an await.
    failed_keys: Option<Mutex<Limit<ClientAddress>>>,
    sign_ups: Option<Mutex<Limit<ClientAddress>>>,
    management: Option<Mutex<Limit<Asker>>>,
    /// Of the remembered alone: a stop must not wait for strangers.
    stops: Option<Mutex<Limit<Asker>>>,
}

impl Limits {
    pub(super) fn new(rates: &Rates) -> Self {
        Self {
            failed_keys: rates.failed_keys.map(Limit::new).map(Mutex::new),
            sign_ups: rates.sign_ups.map(Limit::new).map(Mutex::new),
            management: rates.management.map(Limit::new).map(Mutex::new),
            stops: rates.management.map(Limit::of_the_remembered).map(Mutex::new),
        }
    }

    /// Counts a request with an unknown key from this address. Fails with the time to wait.
    pub(super) fn failed_key(&self, address: ClientAddress, now: BootTime) -> Result<(), Duration> {
        take(self.failed_keys.as_ref(), network(address), now)
    }

    /// Counts a sign-up from this address. Fails with the time to wait.
    pub(super) fn sign_up(&self, address: ClientAddress, now: BootTime) -> Result<(), Duration> {
        take(self.sign_ups.as_ref(), network(address), now)
    }

    /// Counts a management request of this asker. Fails with the time to wait.
    pub(super) fn management(&self, asker: Asker, purpose: Purpose, now: BootTime) -> Result<(), Duration> {
        let limit = match purpose {
            Purpose::Other => &self.management,
            Purpose::Stop => &self.stops,
        };
        take(limit.as_ref(), asker.of_network(), now)
    }
}

fn take<K: Eq + Hash>(limit: Option<&Mutex<Limit<K>>>, asker: K, now: BootTime) -> Result<(), Duration> {
    limit.map_or(Ok(()), |limit| limit.lock().unwrap_or_else(PoisonError::into_inner).take(asker, now.since_boot()))
}

/// The network that counts as one client: a host with one IPv6 address usually has 2^64 of them.
pub(super) fn network(client: ClientAddress) -> ClientAddress {
    let address = match client {
        ClientAddress::Host(address) => address.to_canonical(),
        ClientAddress::User(_) => return client,
    };
    ClientAddress::Host(match address {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { burst: 3, every: Duration::from_secs(10) };

    #[test]
    fn a_burst_passes_then_one_each_period_and_no_asker_pays_for_another() {
        let mut limit = Limit::new(RATE);
        let at = Duration::from_secs;
        for _ in 0..3 {
            assert_eq!(limit.take("a", at(100)), Ok(()));
        }
        assert_eq!(limit.take("a", at(100)), Err(at(10)));
        assert_eq!(limit.take("a", at(103)), Err(at(7)));
        assert_eq!(limit.take("b", at(103)), Ok(()));
        assert_eq!(limit.take("a", at(110)), Ok(()));
        assert_eq!(limit.take("a", at(110)), Err(at(10)));
        assert_eq!(limit.take("a", at(500)), Ok(()));
    }

    #[test]
    fn so_many_askers_are_remembered_and_no_more() {
        let mut limit = Limit::new(RATE);
        let now = Duration::from_secs(1);
        for asker in 0..REMEMBERED + 3 {
            assert_eq!(limit.take(asker, now), Ok(()), "{asker}");
        }
        assert_eq!(limit.whole_at.len(), REMEMBERED);
        assert_eq!(limit.take(REMEMBERED + 9, now), Err(RATE.every), "the newcomers share one allowance");
        assert_eq!(limit.take(0, now), Ok(()), "a remembered asker has its own");
        assert_eq!(limit.take(REMEMBERED + 9, Duration::from_mins(1)), Ok(()), "an idle asker is forgotten");
    }

    #[test]
    fn a_stop_passes_where_there_is_no_room_to_remember_its_asker() {
        let mut limit = Limit::of_the_remembered(RATE);
        let now = Duration::from_secs(1);
        for asker in 0..REMEMBERED {
            assert_eq!(limit.take(asker, now), Ok(()), "{asker}");
        }
        for _ in 0..20 {
            assert_eq!(limit.take(REMEMBERED + 1, now), Ok(()));
        }
        let refused = (0..20).filter(|_| limit.take(0, now).is_err()).count();
        assert_eq!(refused, 18, "a remembered asker has its own allowance");
    }

    #[test]
    fn an_ipv6_network_is_one_asker() {
        let of = |text: &str| network(ClientAddress::Host(text.parse().unwrap()));
        let same = |one: &str, two: &str| of(one) == of(two);
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert_ne!(
            network(ClientAddress::User(1)),
            network(ClientAddress::User(2)),
            "each user of a unix socket is one"
        );
    }

    #[test]
    fn a_rate_of_none_is_no_limit() {
        assert_eq!(Rate::per_minute(0), None);
        assert_eq!(Rate::per_minute(6), Some(Rate { burst: 6, every: Duration::from_secs(10) }));
    }

    proptest! {
        #[test]
        fn no_asker_ever_gets_more_than_its_burst_and_its_rate(steps in proptest::collection::vec(0_u64..30, 1..60)) {
            let mut limit = Limit::new(RATE);
            let (mut now, mut taken) = (0, 0_u64);
            for step in steps {
                now += step;
                match limit.take((), Duration::from_secs(now)) {
                    Ok(()) => taken += 1,
                    Err(wait) => prop_assert!(!wait.is_zero() && wait <= RATE.every),
                }
                prop_assert!(taken <= 3 + now / 10);
            }
        }
    }
}
