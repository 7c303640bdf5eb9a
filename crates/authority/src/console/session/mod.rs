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
}

impl Console {
    /// A console at `public_url`, which has no slash at the end.
    pub(crate) fn new(public_url: &str) -> Self {
        let path =
            public_url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap_or("");
        Self {
            sessions: Sessions::default(),
            links: Links::default(),
            results: Results::default(),
            base: format!("{path}/console"),
            origin: public_url.strip_suffix(path).unwrap_or(public_url).to_owned(),
            secure: public_url.starts_with("https://"),
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
        for (url, base, origin, secure) in [
            ("http://127.0.0.1:8424", "/console", "http://127.0.0.1:8424", false),
            ("https://a.example", "/console", "https://a.example", true),
            ("https://a.example:8/x/y", "/x/y/console", "https://a.example:8", true),
        ] {
            let console = Console::new(url);
            assert_eq!((console.base.as_str(), console.origin.as_str(), console.secure), (base, origin, secure));
        }
    }
}
