//! The page of an organisation's keys, and the form that makes one. Everything goes through `role_keys`, as the API and
//! the admin socket do.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use machineid_protocol::KeyRole;
use tracing::error;

use super::form::{ConsoleForm, OrgForm, asked};
use super::frame::{Frame, Section};
use super::refused::Refused;
use super::{page, result, visit};
use crate::access::Permission;
use crate::app::App;
use crate::console::session::Outcome;
use crate::console::words::{State as Shown, When, grouped};
use crate::role_keys::{self, KeyError, KeyReport, KeyState, WantedKey};
use crate::routes::now;
use crate::store::{KEPT_KEYS, KeyRefusal};

/// How many ended keys are shown, the newest first. The audit has all of them.
const ENDED: usize = 100;

/// A key, as shown.
pub(super) struct KeyDetails {
    pub(super) fingerprint: String,
    pub(super) name: Option<String>,
    pub(super) role: KeyRole,
    pub(super) devices: Option<String>,
    pub(super) state: Shown,
    pub(super) ended: bool,
    /// Another key has taken its place.
    pub(super) replaced: bool,
    /// It is the organisation's own key, or the one before it.
    pub(super) own: bool,
    pub(super) created: Option<When>,
    pub(super) ends: Option<When>,
    pub(super) used: Option<When>,
    pub(super) used_by: u64,
    pub(super) used_by_text: String,
}

impl KeyDetails {
    pub(super) fn new(report: KeyReport, now: Timestamp) -> Self {
        let (word, shape, class) = match report.state {
            KeyState::Valid => ("Valid", "●", "allowed"),
            KeyState::Old => ("Rotated, still valid", "◷", "halted"),
            KeyState::Ended => ("Ended", "■", "revoked"),
        };
        let when = |at: Option<Timestamp>| at.map(|at| When::new(at, now));
        Self {
            state: Shown { word, shape, class },
            ended: report.state == KeyState::Ended,
            replaced: report.state == KeyState::Old,
            created: when(report.created_at),
            ends: when(report.ends),
            used: when(report.last_used_at),
            used_by: report.used_by_devices,
            used_by_text: grouped(report.used_by_devices),
            fingerprint: report.fingerprint,
            name: report.name,
            role: report.role,
            devices: report.devices,
            own: report.own,
        }
    }

    /// The devices that it works for, in words.
    pub(super) fn scope(&self) -> &str {
        self.devices.as_deref().unwrap_or("all")
    }
}

#[derive(Template)]
#[template(path = "console/keys.html")]
struct Page {
    frame: Frame,
    place: String,
    /// Whether a key was just revoked.
    revoked: bool,
    valid: Vec<KeyDetails>,
    ended: Vec<KeyDetails>,
    /// How many ended keys are not shown.
    more: usize,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (visit, account) = visit::at(&app, &head, &org, Permission::Administer).await?;
    let now = now();
    let all = role_keys::list(&app.store, account.org.id, now).await?;
    let keys = all.into_iter().map(|report| KeyDetails::new(report, now));
    let (mut ended, valid): (Vec<_>, Vec<_>) = keys.partition(|key| key.ended);
    let more = ended.len().saturating_sub(ENDED);
    ended.truncate(ENDED);
    page(
        StatusCode::OK,
        &Page {
            frame: Frame::inside(&app, &visit, &account.org, Section::Keys, "Keys"),
            place: format!("{}/org/{}", app.console.base, account.org.id),
            revoked: query.as_deref() == Some("done=revoked"),
            valid,
            ended,
            more,
        },
    )
}

/// Makes a key, which is shown once.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let OrgForm { visit, account, form, call, .. } = asked(&app, &org, request, Permission::Administer).await?;
    let org = account.org.id;
    let made = role_keys::create(&app.store, org, wanted(&form)?, visit.author(), &call).await?;
    let waits = made.waits.map(|approval| approval.id);
    let outcome = Outcome::RoleKey { key: Some(made.key), made: Box::new(made.report), old_key_ends: None, waits };
    Ok(result::shown(&app, &visit, org, outcome, call.at))
}

/// The key that a form asks for.
fn wanted(form: &ConsoleForm) -> Result<WantedKey, Refused> {
    Ok(WantedKey {
        role: form.one("role").parse().map_err(|_| Refused::Malformed("Choose one of the roles.".to_owned()))?,
        devices: form.read("devices")?,
        name: form.read("name")?,
        expires: form.span("lifetime")?,
    })
}

impl From<KeyError> for Refused {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Store(error) => error.into(),
            KeyError::NoRandomness(error) => {
                error!(%error, "a key could not be made");
                Self::Failed
            }
            KeyError::Refused(KeyRefusal::NoOrg) => Self::NotFound,
            KeyError::Refused(refusal) => Self::Malformed(sentence(refusal)),
        }
    }
}

/// What is wrong with a request about keys, and what to do instead.
fn sentence(refusal: KeyRefusal) -> String {
    let text = match refusal {
        KeyRefusal::NoOrg => "There is no such organisation any more.",
        KeyRefusal::Unknown => "That key is not valid any more: it was revoked, or it has expired.",
        KeyRefusal::Own => {
            "That is the organisation's own key. It is rotated on the page of the organisation, and never revoked."
        }
        KeyRefusal::Several => {
            "Several valid keys have that fingerprint. Name the key instead, with machineid-authority org key."
        }
        KeyRefusal::Replaced => {
            "That key was rotated already, and a newer key has taken its place. Rotate the newer one."
        }
        KeyRefusal::Taken => "Another valid key has that name. Choose another name, or leave it empty.",
        KeyRefusal::Full => {
            return format!(
                "The organisation has {} valid keys, and that is the most. Revoke one that is not needed.",
                grouped(KEPT_KEYS)
            );
        }
        KeyRefusal::Devices => {
            "Only a key of the role host is limited to devices. Choose the role host, or leave the devices empty."
        }
        KeyRefusal::Expiry => "A key can be valid for 1 second to 10 years (87840h).",
        KeyRefusal::OldAuthor => {
            "This session began with a key that another one has taken the place of. Sign in with the newer key."
        }
        KeyRefusal::OthersKey => {
            "Restores need two keys here. A key that may restore is rotated by its own holder, or by the operator of this server."
        }
        KeyRefusal::Overlap => "An old key can stay valid for 90 days (2160h) at most.",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ALL: [KeyRefusal; 12] = [
        KeyRefusal::NoOrg,
        KeyRefusal::Unknown,
        KeyRefusal::Own,
        KeyRefusal::Several,
        KeyRefusal::Replaced,
        KeyRefusal::Taken,
        KeyRefusal::Full,
        KeyRefusal::Devices,
        KeyRefusal::Expiry,
        KeyRefusal::Overlap,
        KeyRefusal::OldAuthor,
        KeyRefusal::OthersKey,
    ];

    #[test]
    fn each_refusal_is_a_sentence_and_none_is_a_word_of_the_api() {
        for refusal in ALL {
            let text = sentence(refusal);
            assert!(text.ends_with('.') && text.contains(' ') && !text.contains(refusal.as_str()), "{text}");
            let refused = Refused::from(KeyError::Refused(refusal));
            if refusal == KeyRefusal::NoOrg {
                assert!(matches!(refused, Refused::NotFound));
            } else {
                assert!(matches!(&refused, Refused::Malformed(shown) if *shown == text), "{refused:?}");
            }
        }
        assert!(sentence(KeyRefusal::Full).contains("1,000"));
    }

    #[test]
    fn a_form_asks_for_a_key_in_words_that_are_checked() {
        let form = |fields: &[(&str, &str)]| wanted(&ConsoleForm::with(fields));
        let host = form(&[("role", "host"), ("devices", "k8s:*"), ("name", " pool-1 "), ("lifetime", "720h")]).unwrap();
        assert_eq!((host.role, host.expires), (KeyRole::Host, Some(Duration::from_hours(720))));
        assert_eq!(host.devices.unwrap().as_str(), "k8s:*");
        assert_eq!(host.name.unwrap().as_str(), "pool-1");
        let plain = form(&[("role", "stop"), ("devices", " "), ("name", ""), ("lifetime", "")]).unwrap();
        assert!(plain.role == KeyRole::Stop && plain.devices.is_none() && plain.name.is_none());
        assert!(plain.expires.is_none());
        for wrong in [
            &[("role", "")][..],
            &[("role", "root")],
            &[("role", "host"), ("devices", "a b")],
            &[("role", "stop"), ("name", "on call")],
            &[("role", "stop"), ("lifetime", "soon")],
        ] {
            let said = form(wrong).unwrap_err();
            assert!(matches!(&said, Refused::Malformed(text) if text.ends_with('.')), "{wrong:?}: {said:?}");
        }
    }
}
