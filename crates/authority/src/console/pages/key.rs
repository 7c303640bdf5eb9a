//! The page of one key: what it may do and who uses it, and the forms that rotate and revoke it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::form::{OrgForm, asked};
use super::frame::{Frame, Section};
use super::keys::KeyDetails;
use super::refused::Refused;
use super::{page, redirect, result, visit};
use crate::access::Permission;
use crate::admin::OVERLAP;
use crate::app::App;
use crate::console::session::Outcome;
use crate::keys::KeyMark;
use crate::role_keys;
use crate::routes::now;
use crate::store::WhichKey;

#[derive(Template)]
#[template(path = "console/key.html")]
struct Page {
    frame: Frame,
    place: String,
    key: KeyDetails,
    /// Whether this session began with it.
    session: bool,
}

/// The key that a fingerprint in an address names.
pub(super) fn named(text: &str) -> Option<KeyMark> {
    match text.parse() {
        Ok(WhichKey::Mark(mark)) => Some(mark),
        Ok(WhichKey::Name(_)) | Err(_) => None,
    }
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path((org, key)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Administer).await?;
    let mark = named(&key).ok_or(Refused::NotFound)?;
    let fingerprint = hex::encode(mark);
    let now = now();
    let all = role_keys::list(&app.store, account.org.id, now).await?;
    let report = all.into_iter().find(|report| report.fingerprint == fingerprint).ok_or(Refused::NotFound)?;
    let title = report.name.clone().map_or_else(|| format!("Key {fingerprint}"), |name| format!("Key {name}"));
    page(
        StatusCode::OK,
        &Page {
            frame: Frame::inside(&app, &visit, &account.org, Section::Keys, &title),
            place: format!("{}/org/{}", app.console.base, account.org.id),
            key: KeyDetails::new(report, now),
            session: visit.began_with(mark),
        },
    )
}

/// Makes a key in the place of this one, which stays valid for a while. The new one is shown once. A session that began
/// with this key goes on with the new one, under another id: with this one it could end before it has shown the key.
pub(super) async fn rotate(
    State(app): State<Arc<App>>,
    Path((org, key)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    let OrgForm { head, mut visit, account, form, call } = asked(&app, &org, request, Permission::Administer).await?;
    let mark = named(&key).ok_or(Refused::NotFound)?;
    let overlap = form.span("overlap")?.unwrap_or(OVERLAP);
    if form.one("confirm") != "rotate" {
        return Err(Refused::Malformed("To rotate the key, type the word rotate.".to_owned()));
    }
    let org = account.org.id;
    let made = role_keys::rotate(&app.store, org, &WhichKey::Mark(mark), overlap, visit.author(), &call).await?;
    let own = visit.began_with(mark);
    let renewed = if own { visit.go_on_with(&app, &head, org, &made.key) } else { None };
    let outcome = Outcome::RoleKey {
        key: Some(made.key),
        old_key_ends: made.old_key_ends,
        made: Box::new(made.report),
        waits: None,
    };
    let mut response = result::shown(&app, &visit, org, outcome, call.at);
    if let Some(id) = renewed {
        visit::set_cookie(&app.console, &mut response, Some(&id));
    }
    Ok(response)
}

/// Ends this key, now.
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Path((org, key)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    let OrgForm { account, form, call, .. } = asked(&app, &org, request, Permission::Administer).await?;
    let mark = named(&key).ok_or(Refused::NotFound)?;
    if form.one("confirm") != "revoke" {
        return Err(Refused::Malformed("To revoke the key, type the word revoke.".to_owned()));
    }
    let org = account.org.id;
    role_keys::revoke(&app.store, org, &WhichKey::Mark(mark), &call).await?;
    Ok(redirect(&format!("{}/org/{org}/keys?done=revoked", app.console.base)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_key_by_its_fingerprint_alone() {
        assert_eq!(named("ab01020304ff"), Some([0xab, 1, 2, 3, 4, 0xff]));
        for text in ["", "oncall", "ab01020304f", "ab01020304fff", "ab01020304fg"] {
            assert_eq!(named(text), None, "{text}");
        }
    }
}
