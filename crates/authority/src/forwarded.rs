//! Where a request came from, also one that a proxy passed on. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The origin of a request, as far as the kernel or a trusted proxy tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientAddress {
    /// The address of a host.
    Host(IpAddr),
    /// A user of this host, on a unix socket.
    User(u32),
}

impl ClientAddress {
    /// The origin of a request about which nothing is known.
    pub(super) const UNKNOWN: Self = Self::Host(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    fn canonical(self) -> Self {
        match self {
            Self::Host(address) => Self::Host(address.to_canonical()),
            Self::User(uid) => Self::User(uid),
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(address) => address.fmt(f),
            Self::User(uid) => write!(f, "uid:{uid}"),
        }
    }
}

/// A proxy whose `X-Forwarded-For` is trusted, or a network of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrustedProxy {
    Network(IpNet),
    /// A proxy on this host that runs as this user and comes by a unix socket.
    User(u32),
}

/// The text names no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an address or a network, as in 10.0.0.1 or 10.0.0.0/8, or a user of this host, as in uid:33")]
pub(super) struct TrustedProxyError;

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        if let Some(uid) = text.strip_prefix("uid:") {
            return uid.parse().map(Self::User).map_err(|_| TrustedProxyError);
        }
        let one = |_| text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(one).map(Self::Network).map_err(|_| TrustedProxyError)
    }
}

/// The proxies whose `X-Forwarded-For` is trusted.
#[derive(Clone, Debug, Default)]
pub(super) struct Trusted(Vec<TrustedProxy>);

impl Trusted {
    pub(super) fn new(proxies: Vec<TrustedProxy>) -> Self {
        Self(proxies)
    }

    pub(super) fn contains(&self, client: ClientAddress) -> bool {
        self.0.iter().any(|proxy| match (proxy, client.canonical()) {
            (TrustedProxy::Network(network), ClientAddress::Host(address)) => network.contains(&address),
            (TrustedProxy::User(trusted), ClientAddress::User(uid)) => *trusted == uid,
            (TrustedProxy::Network(_), ClientAddress::User(_)) | (TrustedProxy::User(_), ClientAddress::Host(_)) => {
                false
            }
        })
    }

    /// The client's address: the peer's, unless the peer is a trusted proxy. Then it is the last address in
    /// `X-Forwarded-For` that is not a trusted proxy: each proxy appends the address of its peer, so the client can
    /// invent everything before that. An unreadable entry ends the search, and the proxy that passed it on counts as
    /// the client.
    pub(super) fn client<'a>(
        &self,
        peer: ClientAddress,
        forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    ) -> ClientAddress {
        let mut client = peer.canonical();
        for hop in forwarded_for.flat_map(|line| line.split(',')).collect::<Vec<_>>().into_iter().rev() {
            if !self.contains(client) {
                break;
            }
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = ClientAddress::Host(address).canonical();
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> ClientAddress {
        let user = text.strip_prefix("uid:").map(|uid| ClientAddress::User(uid.parse().unwrap()));
        user.unwrap_or_else(|| ClientAddress::Host(text.parse().unwrap()))
    }

    #[test]
    fn a_forwarded_address_counts_only_from_a_proxy_that_is_trusted() {
        let trusted = Trusted::new(["10.0.0.0/8", "::1/128", "uid:33"].map(|text| text.parse().unwrap()).to_vec());
        for (peer, lines, expected) in [
            ("192.0.2.9", &["203.0.113.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.1"], "203.0.113.1"),
            ("::ffff:10.0.0.1", &["203.0.113.1"], "203.0.113.1"),
            ("::1", &["forged, 203.0.113.1, 10.2.3.4"], "203.0.113.1"),
            ("::1", &["198.51.100.7", "203.0.113.1 ", "10.2.3.4"], "203.0.113.1"),
            ("10.0.0.1", &["203.0.113.1, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ("uid:33", &["203.0.113.1"], "203.0.113.1"),
            ("uid:33", &["uid:34"], "uid:33"),
            ("uid:34", &["203.0.113.1"], "uid:34"),
        ] {
            let found = trusted.client(client(peer), lines.iter().copied());
            assert_eq!(found, client(expected), "{peer} {lines:?}");
        }
        let nobody = Trusted::default();
        assert_eq!(nobody.client(client("127.0.0.1"), ["203.0.113.1"].into_iter()), client("127.0.0.1"));
    }
}
