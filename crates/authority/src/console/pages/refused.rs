//! Refused requests, and their pages.

use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::http::{Method, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use machineid_protocol::KeyRole;

use super::frame::Frame;
use super::redirect;
use crate::access::Permission;
use crate::app::App;
use crate::approvals::Approval;
use crate::console::words::encoded;
use crate::repeated::rarely;
use crate::routes::answer::Answer;
use crate::store::StoreError;

/// A refusal. [`super::dress`] turns it into a page.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    /// There is no session, or it has ended.
    SignIn,
    /// The page does not exist, or the session may not see it.
    NotFound,
    /// The session's key has this role, if it is known, and that does not have the permission.
    NotPermitted(Option<KeyRole>, Permission),
    /// The result of a form is not stored any more, or belongs to another session.
    NotKept,
    /// The form belongs to no page of this session.
    Foreign,
    /// The form or address is invalid; the text says what is expected.
    Malformed(String),
    /// Nothing was done yet: a request with this number waits for a second key.
    Waits(String),
    /// The form did not arrive in time.
    Late,
    TooMany(Duration),
    /// The database cannot take changes; the text says what that means for what was asked.
    NotWritten(String),
    /// The database or this program failed.
    Failed,
}

#[derive(Template)]
#[template(path = "console/refused.html")]
struct Page<'a> {
    frame: Frame,
    text: &'a str,
    next: &'a str,
}

impl Refused {
    #[expect(clippy::too_many_lines, reason = "a table of texts, one for each refusal")]
    pub(super) fn page(self, app: &App, method: &Method, uri: &Uri) -> Response<Body> {
        let base = &app.console.base;
        if matches!(self, Self::SignIn) {
            // Only a page can be returned to after signing in.
            let back = uri.path_and_query().filter(|_| *method == Method::GET).map_or("", |uri| uri.as_str());
            let back = back.strip_prefix("/console").filter(|back| !back.is_empty() && *back != "/");
            return redirect(&match back {
                Some(back) => format!("{base}/sign-in?next={}", encoded(back)),
                None => format!("{base}/sign-in"),
            });
        }
        let not_permitted;
        let (status, title, text, next) = match &self {
            Self::SignIn | Self::NotFound => (
                StatusCode::NOT_FOUND,
                "There is nothing here",
                "The address is wrong, or what it named is gone, or this session may not see it.",
                "Go to the start and look for it there.",
            ),
            Self::NotPermitted(role, needs) => {
                not_permitted = match role {
                    Some(role) => format!(
                        "This session began with a key of the role {role}. It takes one of the role {}.",
                        needs.roles()
                    ),
                    None => format!("It takes a key of the role {}.", needs.roles()),
                };
                (
                    StatusCode::FORBIDDEN,
                    "This key may not do that",
                    not_permitted.as_str(),
                    "Sign in with a key that may, or ask the holder of one. Nothing was changed.",
                )
            }
            Self::NotKept => (
                StatusCode::GONE,
                "This result is not shown any more",
                "The result of a form is shown only to the session that sent it, for some hours. Nothing was repeated.",
                "The audit shows what was done, and each device's page shows its current state.",
            ),
            Self::Foreign => (
                StatusCode::FORBIDDEN,
                "Nothing was changed",
                "That form did not come from a page of this session: it was open since before you signed in, or another \
                 website sent it.",
                "Open the page again and repeat what you did there. If you did not send anything, another website \
                 did; close its page.",
            ),
            Self::Malformed(text) => (
                StatusCode::BAD_REQUEST,
                "Nothing was changed",
                text.as_str(),
                "Go back, correct it, and send it again.",
            ),
            Self::Waits(text) => (
                StatusCode::ACCEPTED,
                "It waits for a second key",
                text.as_str(),
                "The holder of another key confirms it on the page Approvals: of the role admin for execution and keys, else also of the role operate.",
            ),
            Self::Late => (
                StatusCode::REQUEST_TIMEOUT,
                "Nothing was changed",
                "What your browser sent did not arrive in time.",
                "Go back and send it again.",
            ),
            Self::TooMany(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests",
                "This request was refused so that the server stays available to others.",
                "Wait a moment, then open the page again. Agents are not affected: validations are never limited.",
            ),
            Self::NotWritten(text) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The database takes no changes",
                text.as_str(),
                "Stops are carried out all the same. Everything else can be repeated when the operator of this server has \
                 mended the database.",
            ),
            Self::Failed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The authority could not do that",
                "Its database failed or did not answer in time. While that lasts every validation is denied, and agents \
                 stop at the ends of their leases.",
                "Nothing was changed as far as is known. Open the page again to see; the log of the authority says what \
                 went wrong.",
            ),
        };
        let page = Page { frame: Frame::bare(app, title), text, next };
        let answer = Answer::html(status, page.render().unwrap_or_else(|_| text.to_owned()));
        match self {
            Self::TooMany(again) => answer.later(again),
            Self::SignIn
            | Self::NotFound
            | Self::NotPermitted(..)
            | Self::NotKept
            | Self::Foreign
            | Self::Malformed(_)
            | Self::Waits(_)
            | Self::Late
            | Self::NotWritten(_)
            | Self::Failed => answer,
        }
        .into_response()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Waits(approval) => return Self::Waits(waiting_text(&approval)),
            StoreError::NotApproved(refusal) => return Self::Malformed(sentence(&refusal)),
            StoreError::KeyRefused(refusal) => return Self::Malformed(sentence(&refusal)),
            StoreError::NoRoom { .. } | StoreError::StopsWait(_) | StoreError::OnlyStopped(_) => {
                rarely!(error, %error, "the database takes no changes; a page of the console is refused");
                return Self::NotWritten(sentence(&error));
            }
            StoreError::Sqlite(_)
            | StoreError::Postgres(_)
            | StoreError::Undone
            | StoreError::Late
            | StoreError::Down
            | StoreError::Standby
            | StoreError::ReadOnly
            | StoreError::Superseded
            | StoreError::Unconfirmed
            | StoreError::Closed
            | StoreError::Corrupt(_)
            | StoreError::Unwritable { .. }
            | StoreError::NotHere => {}
        }
        rarely!(error, %error, "the store failed; a page of the console is refused");
        Self::Failed
    }
}

/// What a request that waits asks for.
pub(super) fn waiting_text(approval: &Approval) -> String {
    format!(
        "Nothing was done yet. The request {} asks to {}, and waits for 24 hours.",
        approval.id,
        approval.action.words()
    )
}

/// An error as a sentence.
pub(super) fn sentence(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let whole = format!("{first}{}", letters.as_str());
    if whole.ends_with('.') { whole } else { format!("{whole}.") }
}
