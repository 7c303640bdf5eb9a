//! Reads forms, and checks that a page of this console sent them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use machineid_protocol::span;

use super::refused::Refused;
use super::visit::{self, Visit};
use crate::access::Permission;
use crate::app::App;
use crate::audit::{Call, CallReason};
use crate::console::session::Console;
use crate::plan::Account;

/// The maximum size of a form, in bytes: a page of selected devices, with each character of their ids escaped.
const LARGEST: usize = 128 * 1024;

/// How long a form may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// The fields of a form, in order.
#[derive(Debug)]
pub(super) struct ConsoleForm(Vec<(String, String)>);

impl ConsoleForm {
    /// Reads a form without a session; it must still come from a page of this console.
    pub(super) async fn without_session(console: &Console, head: &Parts, body: Body) -> Result<Self, Refused> {
        if !same_origin(console, &head.headers) {
            return Err(Refused::Foreign);
        }
        let bytes = tokio::time::timeout(PATIENCE, to_bytes(body, LARGEST)).await.map_err(|_| Refused::Late)?;
        let bytes = bytes.map_err(|_| Refused::Malformed("The form is too large or incomplete.".to_owned()))?;
        Self::parsed(&bytes).ok_or_else(|| Refused::Malformed("A field contains a NUL.".to_owned()))
    }

    /// Reads the bytes of a form. `None` when a field contains a NUL, which `PostgreSQL` cannot store.
    fn parsed(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        if bytes.contains(&0) || text.contains("%00") {
            return None;
        }
        // The parser needs an origin; it is ignored.
        let parsed = url::Url::parse(&format!("http://localhost/?{text}"));
        Some(Self(parsed.iter().flat_map(|url| url.query_pairs().into_owned()).collect()))
    }

    /// Reads a form of this session.
    pub(super) async fn of(console: &Console, visit: &Visit, head: &Parts, body: Body) -> Result<Self, Refused> {
        let form = Self::without_session(console, head, body).await?;
        if visit.session.wrote(form.one("csrf")) { Ok(form) } else { Err(Refused::Foreign) }
    }

    #[cfg(test)]
    pub(super) fn with(fields: &[(&str, &str)]) -> Self {
        Self(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The first field of that name, trimmed; empty when there is none.
    pub(super) fn one(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.trim())
    }

    /// Every field of that name.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(field, _)| field == name).map(|(_, value)| value.clone()).collect()
    }

    /// The value in the field of that name, if one is given.
    pub(super) fn read<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, Refused> {
        match self.one(name) {
            "" => Ok(None),
            text => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(Refused::Malformed(format!("The {name} cannot be used: {error}."))),
            },
        }
    }

    /// The duration in the field of that name, if one is given.
    pub(super) fn span(&self, name: &str) -> Result<Option<Duration>, Refused> {
        match self.one(name) {
            "" => Ok(None),
            text => match span::parse(text) {
                Ok(span) => Ok(Some(span)),
                Err(error) => Err(Refused::Malformed(format!("The {name} is not valid: {error}."))),
            },
        }
    }

    /// The reason, if one is given.
    pub(super) fn reason(&self) -> Result<Option<CallReason>, Refused> {
        let text = self.one("reason");
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error: crate::audit::ReasonError| {
            Refused::Malformed(format!("The reason is not valid: {error}."))
        })
    }
}

/// The fields of a form, tried with any bytes (`crate::fuzzing`).
pub(crate) fn fuzz(data: &[u8]) {
    let Some(form) = ConsoleForm::parsed(data) else { return };
    for (name, value) in &form.0 {
        assert!(!name.contains('\0') && !value.contains('\0'), "no database stores a NUL");
        let all = form.all(name);
        assert_eq!(all[0].trim(), form.one(name));
        assert!(all.len() <= form.0.len());
    }
    if let Ok(Some(reason)) = form.reason() {
        let text = reason.as_str();
        assert!(text.chars().count() <= crate::audit::LONGEST_REASON && !text.chars().any(char::is_control));
    }
    for name in ["overlap", "expires"] {
        if let Ok(Some(read)) = form.span(name) {
            assert_eq!(span::parse(&span::format(read)), Ok(read));
        }
    }
    let _ = form.read::<machineid_protocol::DevicePattern>("devices");
    let _ = form.read::<machineid_protocol::KeyRole>("role");
    if let Ok(Some(name)) = form.read::<crate::org::KeyName>("name") {
        assert!((1..=64).contains(&name.as_str().len()));
    }
    if let Ok(batch) = crate::batch::distinct(form.all("id")) {
        assert!(!batch.is_empty());
    }
}

/// A form about an organisation.
#[derive(Debug)]
pub(super) struct OrgForm {
    pub(super) head: Parts,
    pub(super) visit: Visit,
    pub(super) account: Account,
    pub(super) form: ConsoleForm,
    /// The management call that the form makes.
    pub(super) call: Call,
}

/// A form with the session that sent it and the organisation. The session is looked up when the form has arrived: one that
/// stalls until its key was revoked must not be acted on.
pub(super) async fn sent(
    app: &App,
    head: &Parts,
    org: &str,
    needs: Permission,
    body: Body,
) -> Result<(Visit, Account, ConsoleForm), Refused> {
    let form = ConsoleForm::without_session(&app.console, head, body).await;
    let (visit, account) = visit::at(app, head, org, needs).await?;
    let form = form?;
    if visit.session.wrote(form.one("csrf")) { Ok((visit, account, form)) } else { Err(Refused::Foreign) }
}

/// Reads a form about an organisation, from a session that may do what it asks for.
pub(super) async fn asked(app: &App, org: &str, request: Request, needs: Permission) -> Result<OrgForm, Refused> {
    let (head, body) = request.into_parts();
    let (visit, account, form) = sent(app, &head, org, needs, body).await?;
    let call = visit.call(&head, form.reason()?);
    Ok(OrgForm { head, visit, account, form, call })
}

/// Whether a page of this origin sent the request. Browsers say so in headers; a client that is no browser sends
/// neither header, and has no cookie that another website could abuse.
fn same_origin(console: &Console, headers: &HeaderMap) -> bool {
    let value = |name| headers.get(name).map(|value: &axum::http::HeaderValue| value.to_str().unwrap_or("?"));
    match (value("sec-fetch-site"), value(header::ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            origin == console.origin || (authority.is_some() && authority == value(header::HOST.as_str()))
        }
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_origin_send_forms() {
        let console = Console::new("https://a.example/base");
        for (headers, same) in [
            (&[][..], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://b.example")], true),
            (&[("sec-fetch-site", "same-site"), ("origin", "https://a.example")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("origin", "https://a.example")], true),
            (&[("origin", "http://10.0.0.1:8424"), ("host", "10.0.0.1:8424")], true),
            (&[("origin", "https://b.example"), ("host", "a.example")], false),
            (&[("origin", "null"), ("host", "a.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "https://a.example.b.example")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            assert_eq!(same_origin(&console, &map), same, "{headers:?}");
        }
    }
}
