//! The session of a request, and the organisation that it is about.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::Response;
use cookie::{Cookie, SameSite};
use machineid_clock::BootTime;
use machineid_org_key::OrgKey;

use super::refused::Refused;
use super::rights::SessionRights;
use crate::access::{Grant, Permission};
use crate::app::App;
use crate::audit::{Actor, Call, CallReason, KeyLabel};
use crate::connections;
use crate::console::session::{Console, Holder, Session};
use crate::keys::{KeyMark, SecretHash};
use crate::limits::{Asker, Purpose};
use crate::org::{HeldKey, OrgId};
use crate::plan::Account;
use crate::role_keys::KeyAuthor;
use crate::routes::{ask, now};

/// The header of a request made by a page's script: it does not keep the session from going idle.
const LIVE: &str = "x-console-live";

/// A request with a session.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) session: Session,
    /// The key that the session began with, where it is known what that may do: not on the pages of no organisation.
    key: Option<HeldKey>,
}

impl Visit {
    pub(super) fn is_operator(&self) -> bool {
        matches!(self.session.holder, Holder::Operator(_))
    }

    /// Whether the session began with the organisation's own key, and not with one of its keys with roles.
    pub(super) fn is_of_own_key(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.own)
    }

    /// The management call made by this request.
    pub(super) fn call(&self, head: &Parts, reason: Option<CallReason>) -> Call {
        let actor = match self.session.holder {
            Holder::Key(_, key) => {
                let name = self.key.as_ref().and_then(|key| key.name.clone());
                Actor::ConsoleKey(KeyLabel::new(key.mark(), name))
            }
            Holder::Operator(uid) => Actor::ConsoleUid(uid),
        };
        Call { at: now(), request_id: ask::request_id(head), actor, reason }
    }

    /// What the session may do.
    pub(super) fn rights(&self) -> SessionRights {
        match (self.session.holder, &self.key) {
            (Holder::Operator(_), _) => SessionRights::Operator,
            (Holder::Key(..), Some(key)) => SessionRights::Key { role: key.role, name: key.name.clone() },
            (Holder::Key(..), None) => SessionRights::Unknown,
        }
    }

    /// Finds out what the session may do in this organisation. Fails when it may not even see it.
    async fn learn(&mut self, app: &App, head: &Parts, org: OrgId) -> Result<(), Refused> {
        let id = session_id(&app.console, &head.headers).ok_or(Refused::SignIn)?;
        match held(app, id, &self.session, org).await? {
            Held::All => {}
            Held::Key(key) => self.key = Some(key),
            Held::Nothing => return Err(Refused::NotFound),
        }
        Ok(())
    }

    /// Finds out what the session may do in its own organisation.
    pub(super) async fn learn_own(&mut self, app: &App, head: &Parts) -> Result<(), Refused> {
        match self.session.holder {
            Holder::Key(own, _) => self.learn(app, head, own).await,
            Holder::Operator(_) => Ok(()),
        }
    }

    /// Fails unless the session may do that.
    pub(super) fn must(&self, needs: Permission) -> Result<(), Refused> {
        let rights = self.rights();
        if rights.may(needs) { Ok(()) } else { Err(Refused::NotPermitted(rights.role(), needs)) }
    }

    /// What makes or replaces a key in this session.
    pub(super) fn author(&self) -> KeyAuthor {
        match (self.session.holder, &self.key) {
            (Holder::Operator(_), _) => KeyAuthor::Operator,
            (Holder::Key(..), Some(key)) => KeyAuthor::of(key),
            // Not reached: without a key nothing may be administered.
            (Holder::Key(..), None) => KeyAuthor::Key { ends: None, replaced: true },
        }
    }

    /// Whether the session began with this key.
    pub(super) fn began_with(&self, key: KeyMark) -> bool {
        match self.session.holder {
            Holder::Key(_, own) => own.mark() == key,
            Holder::Operator(_) => false,
        }
    }

    /// Goes on with a key that has taken the place of the session's own, in a session under another id, which is
    /// returned for the cookie. If there is no new session, the old one lasts as long as its key.
    pub(super) fn go_on_with(&mut self, app: &App, head: &Parts, org: OrgId, key: &OrgKey) -> Option<String> {
        let holder = Holder::Key(org, SecretHash::of_key(key));
        let id = app.console.sessions.begin(holder, BootTime::now()).ok()?;
        let session = app.console.sessions.find(&id, BootTime::now(), true)?;
        if let Some(old) = session_id(&app.console, &head.headers) {
            app.console.end(old);
        }
        self.session = session;
        Some(id)
    }
}

/// Whether a page's script made the request.
pub(super) fn is_live(head: &Parts) -> bool {
    head.headers.contains_key(LIVE)
}

/// The session of this request.
pub(super) fn enter(app: &App, head: &Parts) -> Result<Visit, Refused> {
    let id = session_id(&app.console, &head.headers).ok_or(Refused::SignIn)?;
    let by_person = !is_live(head);
    let session = app.console.sessions.find(id, BootTime::now(), by_person).ok_or(Refused::SignIn)?;
    connections::recognise(&head.extensions);
    Ok(Visit { session, key: None })
}

/// The session of the server's operator.
pub(super) fn operator(app: &App, head: &Parts) -> Result<Visit, Refused> {
    enter(app, head).and_then(|visit| if visit.is_operator() { Ok(visit) } else { Err(Refused::NotFound) })
}

/// The session, and the organisation that the address names, if this session may see it and do what the page does.
pub(super) async fn at(app: &App, head: &Parts, org: &str, needs: Permission) -> Result<(Visit, Account), Refused> {
    let mut visit = enter(app, head)?;
    let org: OrgId = org.parse().map_err(|_| Refused::NotFound)?;
    visit.learn(app, head, org).await?;
    visit.must(needs)?;
    let asker = match visit.session.holder {
        Holder::Key(_, key) => Asker::Key(key.mark(), ask::address(head)),
        Holder::Operator(uid) => Asker::Operator(uid),
    };
    app.limits
        .management(asker, Purpose::of(needs, head.method == Method::GET), BootTime::now())
        .map_err(Refused::TooMany)?;
    let account = app.store.account(org).await?.ok_or(Refused::NotFound)?;
    Ok((visit, account))
}

/// What a session has of an organisation.
enum Held {
    /// It is the server's operator's.
    All,
    Key(HeldKey),
    /// It is another organisation's.
    Nothing,
}

/// What the session with this id has of that organisation. When its key was revoked or has expired, the session ends
/// and this fails.
async fn held(app: &App, id: &str, session: &Session, org: OrgId) -> Result<Held, Refused> {
    match session.holder {
        Holder::Operator(_) => Ok(Held::All),
        Holder::Key(own, key) => match app.store.look_up(key, None).await?.and_then(|found| found.at(now())) {
            Some(found) if found.org.id == own && !found.org.deleted => {
                Ok(if own == org { Held::Key(found.key) } else { Held::Nothing })
            }
            Some(_) | None => {
                app.console.end(id);
                Err(Refused::SignIn)
            }
        },
    }
}

/// Whether the session in these headers is still valid and may see that organisation. A page that is open and visible is
/// being watched (the script of a hidden one closes its stream), so this keeps the session from going idle.
pub(super) async fn still(app: &App, headers: &HeaderMap, org: OrgId) -> bool {
    let Some(id) = session_id(&app.console, headers) else { return false };
    let Some(session) = app.console.sessions.find(id, BootTime::now(), true) else { return false };
    match held(app, id, &session, org).await {
        Ok(Held::All) => true,
        Ok(Held::Key(key)) => Permission::Read.of(key.role) == Grant::Whole,
        Ok(Held::Nothing) | Err(_) => false,
    }
}

/// The session's id in the cookie.
pub(super) fn session_id<'a>(console: &Console, headers: &'a HeaderMap) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == console.cookie)?.value_raw()
}

/// Sets the session cookie, which the browser keeps until it is closed; `None` deletes it.
pub(super) fn set_cookie(console: &Console, response: &mut Response, id: Option<&str>) {
    let mut cookie = Cookie::new(console.cookie.as_str(), id.unwrap_or_default());
    cookie.set_path("/");
    cookie.set_http_only(true);
    cookie.set_same_site(SameSite::Strict);
    cookie.set_secure(console.secure);
    if id.is_none() {
        cookie.set_max_age(cookie::time::Duration::ZERO);
    }
    // An id is hex.
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie.to_string()) {
        cookie.set_sensitive(true);
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}
