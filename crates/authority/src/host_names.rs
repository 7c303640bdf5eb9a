//! The names under which browsers may reach the console and the metrics. Pure.
//!
//! Against DNS rebinding; see [`machineid_protocol::host_name`]. The API is not concerned: it answers holders of a key, which a
//! foreign page does not have, and a check of names would stop every host that uses another one.

use machineid_protocol::host_name::{belongs_to_no_site, without_port};

/// What the server accepts as its own name.
#[derive(Clone, Debug)]
pub(crate) struct HostNames {
    names: Vec<String>,
    /// Whether the listener for metrics is one of loopback: beyond it, scrapers use names that the server does not know, and
    /// every host of that network can read the metrics anyway.
    metrics_on_loopback: bool,
}

impl HostNames {
    /// The name in `public_url`, and more of them.
    pub(crate) fn new(public_url: &str, more: &[String], metrics_on_loopback: bool) -> Self {
        let origin = public_url.split_once("://").map_or(public_url, |(_, rest)| rest);
        let public = origin.split('/').next().unwrap_or_default();
        let names = std::iter::once(public).chain(more.iter().map(String::as_str)).map(without_port).collect();
        Self { names, metrics_on_loopback }
    }

    /// Whether a request for this path may be answered under this name. Browsers always send one.
    pub(crate) fn accept(&self, path: &str, header: Option<&str>) -> bool {
        let concerned = match path {
            "/metrics" => self.metrics_on_loopback,
            _ => path == "/console" || path.starts_with("/console/") || path.starts_with("/checkout/"),
        };
        let Some(header) = header.filter(|_| concerned) else { return true };
        let host = without_port(header);
        belongs_to_no_site(&host) || self.names.contains(&host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_has_the_names_of_its_public_url_and_the_allowed_ones() {
        let names = HostNames::new("https://authority.example.com/x", &["inner.lan".to_owned()], true);
        for host in
            ["authority.example.com", "Authority.example.com:443", "inner.lan:8424", "127.0.0.1:8424", "localhost"]
        {
            assert!(names.accept("/console", Some(host)), "{host}");
        }
        for path in ["/console", "/console/org/x", "/checkout/abc", "/metrics"] {
            assert!(!names.accept(path, Some("evil.example:8424")), "{path}");
        }
        assert!(names.accept("/console", None), "no browser");
        assert!(names.accept("/api/v1/devices/validate", Some("evil.example")));
        assert!(HostNames::new("http://10.0.0.1:8424", &[], false).accept("/metrics", Some("authority.lan:9100")));
    }
}
