//! Finds the client's address of a request that a proxy passed on. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

/// The proxies whose `X-Forwarded-For` is trusted.
#[derive(Clone, Debug, Default)]
pub(super) struct Trusted(Vec<IpNet>);

impl Trusted {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address: the peer's, unless the peer is a trusted proxy. Then it is the last address in
    /// `X-Forwarded-For` that is not a trusted proxy: each proxy appends the address of its peer, so the client can
    /// invent everything before that. An unreadable entry ends the search, and the proxy that passed it on counts as
    /// the client.
    pub(super) fn client<'a>(&self, peer: IpAddr, forwarded_for: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        for hop in forwarded_for.flat_map(|line| line.split(',')).collect::<Vec<_>>().into_iter().rev() {
            if !self.contains(client) {
                break;
            }
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_address_counts_only_from_a_proxy_that_is_trusted() {
        let trusted = Trusted::new(["10.0.0.0/8", "::1/128"].map(|text| text.parse().unwrap()).to_vec());
        for (peer, lines, client) in [
            ("192.0.2.9", &["203.0.113.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.1"], "203.0.113.1"),
            ("::ffff:10.0.0.1", &["203.0.113.1"], "203.0.113.1"),
            ("::1", &["forged, 203.0.113.1, 10.2.3.4"], "203.0.113.1"),
            ("::1", &["198.51.100.7", "203.0.113.1 ", "10.2.3.4"], "203.0.113.1"),
            ("10.0.0.1", &["203.0.113.1, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ] {
            let found = trusted.client(peer.parse().unwrap(), lines.iter().copied());
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
        let nobody = Trusted::default();
        assert_eq!(nobody.client([127, 0, 0, 1].into(), ["203.0.113.1"].into_iter()), IpAddr::from([127, 0, 0, 1]));
    }
}
