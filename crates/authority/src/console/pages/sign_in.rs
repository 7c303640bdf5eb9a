//! Signing in, with an org key or an operator's link, and signing out.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use machineid_clock::BootTime;
use machineid_org_key::OrgKey;
use tracing::info;

use super::form::ConsoleForm;
use super::frame::Frame;
use super::key;
use super::refused::Refused;
use super::{page, redirect, visit};
use crate::access::{Grant, Permission};
use crate::app::App;
use crate::console::session::{Holder, SignOutReach};
use crate::keys::SecretHash;
use crate::org::OrgId;
use crate::repeated::rarely;
use crate::routes::answer::Answer;
use crate::routes::{ask, now};

#[derive(Template)]
#[template(path = "console/sign_in.html")]
struct Page {
    frame: Frame,
    next: String,
    problem: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "console/operator_link.html")]
struct LinkPage {
    frame: Frame,
    /// The form's target; `None` when the link is invalid.
    action: Option<String>,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    if visit::enter(&app, &head).is_ok() {
        return Ok(redirect(&app.console.base));
    }
    let next = next(query.as_deref().unwrap_or("")).unwrap_or_default();
    page(StatusCode::OK, &Page { frame: Frame::bare(&app, "Sign in"), next, problem: None })
}

pub(super) async fn with_key(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let form = ConsoleForm::without_session(&app.console, &head, body).await?;
    let key: Option<OrgKey> = form.one("key").parse().ok();
    // An invalid key is looked up as well, as a hash that is never found, so that the answer takes the same time.
    let hash = key.as_ref().map_or_else(|| SecretHash::of_session(form.one("key")), SecretHash::of_key);
    let found = app.store.look_up(hash, None).await?.and_then(|found| found.at(now()));
    let found = found.filter(|found| !found.org.deleted);
    let next = allowed(form.one("next"));
    let Some(found) = found else {
        let frame = Frame::bare(&app, "Sign in");
        let address = ask::address(&head);
        let (status, problem, again) = match app.limits.failed_key(address, BootTime::now()) {
            Ok(()) => (StatusCode::UNAUTHORIZED, "No organisation of this authority has that key.", None),
            Err(again) => {
                rarely!(warn, %address, "too many failed sign-ins");
                (StatusCode::TOO_MANY_REQUESTS, "Too many keys failed from your address. Wait a minute.", Some(again))
            }
        };
        let page = Page { frame, next: next.unwrap_or_default(), problem: Some(problem) };
        let answer = Answer::html(status, page.render().map_err(|_| Refused::Failed)?);
        return Ok(match again {
            Some(again) => answer.later(again),
            None => answer,
        }
        .into_response());
    };
    if Permission::Read.of(found.key.role) != Grant::Whole {
        let problem =
            "That is a host's key, which cannot sign in. Sign in with a key of the role stop, read, operate or admin.";
        let frame = Frame::bare(&app, "Sign in");
        return page(StatusCode::FORBIDDEN, &Page { frame, next: next.unwrap_or_default(), problem: Some(problem) });
    }
    app.seen.used(hash.mark(), now());
    let org = found.org.id;
    info!(%org, key = hash.fingerprint(), "signed in to the console");
    begin(&app, &head, Holder::Key(org, hash), &next.unwrap_or_else(|| format!("/org/{org}")))
}

/// Ends any previous session and begins one under a new id, so that an id planted by an attacker is useless.
fn begin(app: &App, head: &axum::http::request::Parts, holder: Holder, next: &str) -> Result<Response, Refused> {
    if let Some(old) = visit::session_id(&app.console, &head.headers) {
        app.console.end(old);
    }
    let id = app.console.sessions.begin(holder, BootTime::now()).map_err(|error| {
        tracing::error!(%error, "cannot create a session id");
        Refused::Failed
    })?;
    let mut response = redirect(&format!("{}{next}", app.console.base));
    visit::set_cookie(&app.console, &mut response, Some(&id));
    Ok(response)
}

pub(super) async fn out(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let mut visit = visit::enter(&app, &head)?;
    let form = ConsoleForm::of(&app.console, &visit, &head, body).await?;
    if form.one("everywhere") == "yes" {
        visit.learn_own(&app, &head).await?;
        let whole = visit.rights().may(Permission::Administer);
        app.console.end_all(&visit.session, if whole { SignOutReach::Organisation } else { SignOutReach::Key });
    }
    if let Some(id) = visit::session_id(&app.console, &head.headers) {
        app.console.end(id);
    }
    let mut response = redirect(&format!("{}/sign-in", app.console.base));
    visit::set_cookie(&app.console, &mut response, None);
    Ok(response)
}

pub(super) async fn show_link(
    State(app): State<Arc<App>>,
    Path(secret): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    if !app.console.links.is_good(&secret, BootTime::now()) {
        return bad_link(&app, &head);
    }
    let action = Some(format!("{}/operator/{secret}", app.console.base));
    page(StatusCode::OK, &LinkPage { frame: Frame::bare(&app, "Sign in as the operator"), action })
}

pub(super) async fn with_link(
    State(app): State<Arc<App>>,
    Path(secret): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    ConsoleForm::without_session(&app.console, &head, body).await?;
    let Some(link) = app.console.links.take(&secret, BootTime::now()) else { return bad_link(&app, &head) };
    info!(uid = link.uid, "an operator signed in to the console");
    let next = link.org.map_or_else(|| "/orgs".to_owned(), |org| format!("/org/{org}"));
    begin(&app, &head, Holder::Operator(link.uid), &next)
}

fn bad_link(app: &App, head: &axum::http::request::Parts) -> Result<Response, Refused> {
    app.limits.failed_key(ask::address(head), BootTime::now()).map_err(Refused::TooMany)?;
    page(StatusCode::GONE, &LinkPage { frame: Frame::bare(app, "This link cannot sign you in"), action: None })
}

/// The page to open after signing in, from the query, if it is allowed.
fn next(query: &str) -> Option<String> {
    let url = url::Url::parse(&format!("http://localhost/?{query}")).ok()?;
    let (_, next) = url.query_pairs().find(|(name, _)| name == "next")?;
    allowed(&next)
}

/// The pages that may follow a sign-in, relative to the base: an organisation's pages, with their queries, and the list
/// of all organisations. Any other value may be an attempt to redirect a user to another site.
fn allowed(next: &str) -> Option<String> {
    let (path, query) = next.split_once('?').map_or((next, None), |(path, query)| (path, Some(query)));
    let inside = || {
        let (org, rest) = path.strip_prefix("/org/").map(|rest| rest.split_once('/').unwrap_or((rest, "")))?;
        org.parse::<OrgId>().ok().filter(|id| id.to_string() == org)?;
        let known = ["", "device", "settings", "keys", "audit", "stop"].contains(&rest)
            || rest.strip_prefix("stop/").is_some_and(|at| at.parse::<u64>().is_ok())
            || rest.strip_prefix("keys/").is_some_and(|key| key::named(key).is_some());
        known.then_some(())
    };
    let tame = query.unwrap_or("").bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%=&+-._~".contains(&byte));
    (tame && (path == "/orgs" || inside().is_some())).then(|| next.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_to_pages_of_the_console_and_nowhere_else() {
        let org = OrgId::random();
        for good in [
            "",
            "?q=web%20&state=revoked",
            "/device?id=a%2Fb",
            "/settings",
            "/keys",
            "/keys/0123456789ab",
            "/audit",
            "/stop",
            "/stop/17",
        ] {
            let next = format!("/org/{org}{good}");
            assert_eq!(allowed(&next), Some(next.clone()));
        }
        assert_eq!(allowed("/orgs").as_deref(), Some("/orgs"));
        let own = |rest: &str| format!("/org/{org}{rest}");
        for bad in [
            "",
            "/",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "evil",
            "/org",
            "/org/x",
            "/sign-out",
            "/orgs/../..",
            "/orgs\r\nset-cookie:x",
            "/files/x",
            &own("/events"),
            &own("//evil.example"),
            &own("?x=\n"),
            &own("/stop/-1"),
            &own("/keys/oncall"),
            &own("/keys/0123456789ab/rotate"),
            &own("?<"),
            &own("/device/../../x"),
        ] {
            assert_eq!(allowed(bad), None, "{bad:?}");
        }
        assert_eq!(next(&format!("x=1&next=%2Forg%2F{org}%3Fq%3Da")), Some(format!("/org/{org}?q=a")));
        assert_eq!(next("next=//evil"), None);
    }
}
