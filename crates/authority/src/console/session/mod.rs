//! Who is signed in to the console. In memory: a restart signs everybody out, and with several servers on one database a
//! proxy keeps each browser at one of them.
//!
//! | file | concept |
//! |---|---|
//! | `sessions` | open sessions: how they begin, last and end |
//! | `results` | what came of a form, for the page that shows it |
//! | `links` | addresses that sign an operator in, once |
//!
//! All are told the time. The pages are in `pages`.

mod links;
mod results;
mod sessions;

pub(crate) use links::Links;
pub(crate) use results::{Done, Outcome, Results};
pub(crate) use sessions::{Holder, Session, Sessions};

/// The console's state, and where it is.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) sessions: Sessions,
    pub(crate) links: Links,
    pub(crate) results: Results,
    /// The path before every page's, as browsers see it: `/console`, behind the path of the public URL.
    pub(crate) base: String,
    /// `https://authority.example.com`, where browsers are told to reach it.
    pub(crate) origin: String,
    /// Browsers reach it over HTTPS alone, so cookies need not go any other way.
    pub(crate) secure: bool,
}

impl Console {
    /// For browsers that reach this authority at `public_url`, which has no slash at the end.
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

    /// Ends the session of this id, if there is one, and forgets the keys that it was not shown yet.
    pub(crate) fn end(&self, id: &str) {
        self.results.end(self.sessions.end(id).as_slice());
    }

    /// The same of every session of the same holder.
    pub(crate) fn end_all(&self, of: &Session) {
        self.results.end(&self.sessions.end_all(of));
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
