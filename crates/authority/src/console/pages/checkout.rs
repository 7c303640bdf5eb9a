//! The page of a checkout: `GET /checkout/<secret>` shows it, and `POST` confirms the checkout once. It needs no
//! session.
//!
//! There are two secrets. The one in the address that `POST /billing/checkout` returns to a holder of the org key only
//! shows the page: otherwise each holder of a key could set its own plan. The other is printed through the admin socket
//! (`machineid-authority org confirm-checkout NUMBER --link`) and confirms the checkout. Both end with the
//! confirmation, or after an hour.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use machineid_openapi::Operation;
use tracing::info;

use super::frame::Frame;
use super::refused::Refused;
use super::{page, redirect};
use crate::routes::openapi::{PAGE, Route, TOKEN};

use crate::access::Permission;
use crate::app::App;
use crate::audit::{Actor, Call};
use crate::console::words::{When, encoded};
use crate::keys::SecretHash;
use crate::routes::{ask, now};
use crate::store::{Checkout, CheckoutKey};

#[derive(Template)]
#[template(path = "console/checkout.html")]
struct Page {
    frame: Frame,
    /// `None` when there is nothing to confirm.
    offer: Option<Offer>,
    done: bool,
}

/// The plan change to be confirmed, or just confirmed.
struct Offer {
    checkout: Checkout,
    name: String,
    until: When,
    confirmable: bool,
}

pub(super) const SHOW: Route = Route::needing(
    Permission::Public,
    Operation {
        path: "/checkout/{token}",
        method: "get",
        summary: "The page of a checkout, for a browser",
        parameters: &[TOKEN],
        body: None,
        answers: PAGE,
    },
);

pub(super) async fn show(State(app): State<Arc<App>>, Path(token): Path<String>) -> Result<Response, Refused> {
    let open = |checkout: &Checkout| checkout.open(now());
    let shown = app.store.checkout(&CheckoutKey::Address(SecretHash::of_token(&token))).await?.filter(open);
    let confirmable = match &shown {
        Some(_) => None,
        // A confirmed checkout is shown as confirmed for the rest of its hour: a confirmation redirects here.
        None => app.store.checkout(&link(&token)).await?.filter(|checkout| now() < checkout.expires_at),
    };
    match (confirmable, shown) {
        (Some(checkout), _) if checkout.used => {
            said(&app, StatusCode::OK, "The plan is changed", Some((checkout, false)), true)
        }
        (Some(checkout), _) => said(&app, StatusCode::OK, "Confirm the plan", Some((checkout, true)), false),
        (None, Some(checkout)) => {
            said(&app, StatusCode::OK, "This plan waits for confirmation", Some((checkout, false)), false)
        }
        (None, None) => said(&app, StatusCode::GONE, "Nothing to confirm here", None, false),
    }
}

pub(super) const CONFIRM: Route = Route::needing(
    Permission::Public,
    Operation {
        path: "/checkout/{token}",
        method: "post",
        summary: "Confirms a checkout, if the address is one that an operator printed",
        parameters: &[TOKEN],
        body: None,
        answers: PAGE,
    },
);

pub(super) async fn confirm(
    State(app): State<Arc<App>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let actor = Actor::Address(ask::address(&head));
    let call = Call { at: now(), request_id: ask::request_id(&head), actor, reason: None };
    match app.store.confirm_checkout(&link(&token), &call).await? {
        Some(checkout) => {
            info!(org = %checkout.org.id, plan = %checkout.wanted, "a plan was confirmed");
            let path = app.console.base.trim_end_matches("/console");
            let mut response = redirect(&format!("{path}/checkout/{}", encoded(&token)));
            response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            Ok(response)
        }
        None => said(&app, StatusCode::GONE, "Nothing to confirm here", None, false),
    }
}

fn link(secret: &str) -> CheckoutKey {
    CheckoutKey::Link(SecretHash::of_confirmation(secret))
}

fn said(
    app: &App,
    status: StatusCode,
    title: &str,
    offer: Option<(Checkout, bool)>,
    done: bool,
) -> Result<Response, Refused> {
    let offer = offer.map(|(checkout, confirmable)| Offer {
        name: checkout.org.name.clone().unwrap_or_else(|| checkout.org.id.to_string()),
        until: When::new(checkout.expires_at, now()),
        checkout,
        confirmable,
    });
    let mut response = page(status, &Page { frame: Frame::bare(app, title), offer, done })?;
    // The address is the secret.
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}
