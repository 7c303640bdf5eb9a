//! The name in a `Host` header: whether a browser may have been led to this server under a foreign name.
//!
//! DNS rebinding: a page of a foreign site has its own name resolve to this machine, and can then read what a server here
//! answers, since for the browser it is the same site. Such a request carries the foreign name. A request to an address carries
//! no name that another party could point here.

use std::net::IpAddr;

/// The host of a `Host` header without its port, in lower case.
#[must_use]
pub fn without_port(header: &str) -> String {
    let host = match header.rsplit_once(':') {
        // In an address of version 6 without a port, the last group is no port.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => {
            if host.contains(':') && !host.ends_with(']') { header } else { host }
        }
        Some(_) | None => header,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether no foreign site can have this host: an address, or `localhost`.
#[must_use]
pub fn belongs_to_no_site(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_localhost_belong_to_no_site() {
        for header in
            ["127.0.0.1:8424", "127.0.0.1", "[::1]:8424", "[::1]", "::1", "LocalHost:1", "a.localhost", "10.0.0.1"]
        {
            assert!(belongs_to_no_site(&without_port(header)), "{header}");
        }
        for header in ["evil.example:8424", "127.0.0.1.evil.example", "localhost.evil.example", "", "evil.example.:1"] {
            assert!(!belongs_to_no_site(&without_port(header)), "{header}");
        }
    }

    #[test]
    fn the_port_and_the_last_dot_are_no_part_of_the_name() {
        for (header, host) in
            [("A.example:8424", "a.example"), ("a.example.", "a.example"), ("[::1]:1", "[::1]"), ("a:b", "a:b")]
        {
            assert_eq!(without_port(header), host);
        }
    }
}
