//! A browser without a script: keeps one cookie, follows nothing by itself, reads the hidden fields of forms.

use crate::harness::authority::{Authority, Org};
use crate::harness::http::{self, Reply};

pub(crate) struct Visitor<'a> {
    pub(crate) authority: &'a Authority,
    /// `name=value`.
    pub(crate) cookie: Option<String>,
    /// Of the last page that had one.
    pub(crate) csrf: Option<String>,
}

impl<'a> Visitor<'a> {
    pub(crate) fn new(authority: &'a Authority) -> Self {
        Self { authority, cookie: None, csrf: None }
    }

    /// One that has signed in with the organisation's key and has its first page before it.
    pub(crate) fn signed_in(org: &Org<'a>) -> Self {
        let mut browser = Self::new(org.authority);
        let reply = browser.post_raw("/console/sign-in", &[("key", &org.key)], &[]);
        assert_eq!(reply.status, 303, "{}", reply.text);
        browser.follow(&reply);
        browser
    }

    pub(crate) fn get(&mut self, path: &str) -> Reply {
        let reply = self.send("GET", path, &[], b"");
        if let Some((_, rest)) = reply.text.split_once(r#"name="csrf" value=""#) {
            self.csrf = rest.split('"').next().map(str::to_owned);
        }
        reply
    }

    /// The page that a redirect leads to.
    pub(crate) fn follow(&mut self, reply: &Reply) -> Reply {
        let to = reply.header("location").unwrap_or_else(|| panic!("no redirect: {}", reply.text)).to_owned();
        self.get(&to)
    }

    /// A form of the last page, from that page.
    pub(crate) fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let csrf = self.csrf.clone().unwrap_or_default();
        let fields = [&[("csrf", csrf.as_str())], fields].concat();
        let origin = format!("origin: {}", self.authority.url());
        self.post_raw(path, &fields, &["sec-fetch-site: same-origin", &origin])
    }

    /// The page that such a form leads to, which it must.
    pub(crate) fn sent(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let reply = self.post(path, fields);
        assert_eq!(reply.status, 303, "{path}: {}", reply.text);
        self.follow(&reply)
    }

    /// A form with these fields alone, sent with these headers.
    pub(crate) fn post_raw(&mut self, path: &str, fields: &[(&str, &str)], headers: &[&str]) -> Reply {
        let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.send("POST", path, headers, pairs.join("&").as_bytes())
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Reply {
        let mut lines: Vec<String> = headers.iter().map(|line| (*line).to_owned()).collect();
        lines.push("content-type: application/x-www-form-urlencoded".to_owned());
        lines.extend(self.cookie.iter().map(|cookie| format!("cookie: {cookie}")));
        let reply = http::request(self.authority.address(), method, path, &lines, body);
        if let Some(set) = reply.header("set-cookie") {
            let pair = set.split(';').next().unwrap_or_default();
            self.cookie = (!pair.ends_with('=')).then(|| pair.to_owned());
        }
        reply
    }
}

/// Every character that is no letter or digit as `%xx`.
pub(crate) fn encoded(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut safe, byte| {
        if byte.is_ascii_alphanumeric() {
            safe.push(char::from(byte));
        } else {
            write!(safe, "%{byte:02X}").unwrap();
        }
        safe
    })
}
