//! The sessions of the console. Kept in memory: a restart signs every user out, and with several servers on one
//! database a proxy must route each browser to the same server.
//!
//! | file | concept |
//! |---|---|
//! | `sessions` | open sessions: their start, duration and end |
//! | `results` | results of forms, for the pages that show them |
//! | `links` | links that sign an operator in, once |
//!
//! All functions receive the time. The pages are in `pages`.

mod links;
mod results;
mod sessions;

pub(crate) use links::Links;
pub(crate) use results::{Done, Outcome, Results};
pub(crate) use sessions::{Holder, Session, Sessions, SignOutReach};

/// The console's state and its address.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) sessions: Sessions,
    pub(crate) links: Links,
    pub(crate) results: Results,
    /// The path in front of every page's path, as browsers see it: `/console`, after the path of the public URL.
    pub(crate) base: String,
    /// The origin for browsers, such as `https://authority.example.com`.
    pub(crate) origin: String,
    /// Whether browsers use HTTPS only, so that cookies can be restricted to it.
    pub(crate) secure: bool,
    /// The name of the session cookie. Browsers send a cookie to every port of a host, so the port is part of the name: another
    /// server on this machine neither overwrites the session nor gets it under a name that it would use itself.
    pub(crate) cookie: String,
}

impl Console {
    /// A console at `public_url`, which has no slash at the end.
    pub(crate) fn new(public_url: &str) -> Self {
        let path =
            public_url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap_or("");
        let origin = public_url.strip_suffix(path).unwrap_or(public_url);
        let secure = public_url.starts_with("https://");
        let written = origin.rsplit_once(':').map(|(_, port)| port).filter(|port| port.parse::<u16>().is_ok());
        let port = written.unwrap_or(if secure { "443" } else { "80" });
        // With the prefix, a browser accepts the cookie only from this host over HTTPS.
        let prefix = if secure { "__Host-" } else { "" };
        Self {
            sessions: Sessions::default(),
            links: Links::default(),
            results: Results::default(),
            base: format!("{path}/console"),
            origin: origin.to_owned(),
            secure,
            cookie: format!("{prefix}machineid-console-{port}"),
        }
    }

    /// Ends the session with this id, if there is one, and deletes the keys that were not shown to it yet.
    pub(crate) fn end(&self, id: &str) {
        self.results.end(self.sessions.end(id).as_slice());
    }

    /// Ends every session of the same holder in the same way, within this reach.
    pub(crate) fn end_all(&self, of: &Session, reach: SignOutReach) {
        self.results.end(&self.sessions.end_all(of, reach));
    }
}

#[cfg(test)]
mod tests {
    use super::Console;

    #[test]
    fn a_public_url_says_where_browsers_find_the_console() {
        for (url, base, origin, cookie) in [
            ("http://127.0.0.1:8424", "/console", "http://127.0.0.1:8424", "machineid-console-8424"),
            ("http://[::1]:8424", "/console", "http://[::1]:8424", "machineid-console-8424"),
            ("http://a.example", "/console", "http://a.example", "machineid-console-80"),
            ("https://a.example", "/console", "https://a.example", "__Host-machineid-console-443"),
            ("https://a.example:8/x/y", "/x/y/console", "https://a.example:8", "__Host-machineid-console-8"),
        ] {
            let console = Console::new(url);
            let found = (console.base.as_str(), console.origin.as_str(), console.cookie.as_str(), console.secure);
            assert_eq!(found, (base, origin, cookie, url.starts_with("https")));
        }
    }
}
