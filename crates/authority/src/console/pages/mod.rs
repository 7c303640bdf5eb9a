//! The web console: pages for an operator who is woken at night. A page shows the current state of the store, and
//! changes things through the store's methods, like the API; there is no other way.
//!
//! | file | concept |
//! |---|---|
//! | `visit` | the session and the organisation of a request |
//! | `rights` | pure: what a session may do |
//! | `form` | forms, and the check that a page of this console sent them |
//! | `frame` | the frame of each page |
//! | `refused` | pages for refused requests |
//! | `files` | the style sheet and the script |
//! | `words` | times, states and addresses as people read them |
//! | `sign_in` | signing in and out |
//! | `fleet`, `devices` | the list of devices, and the actions on selected ones |
//! | `result` | results of forms |
//! | `device` | one device |
//! | `told`, `past` | the reports of its sidecars, and its history |
//! | `settings` | the organisation: its switch, plan, key, and deletion |
//! | `keys`, `key` | the keys with roles: making, replacing and revoking them |
//! | `approvals` | restores that wait for a second key |
//! | `audit` | who did what, when and why |
//! | `stop` | the kill switch, and undoing it |
//! | `orgs` | the operator's list of organisations |
//! | `checkout` | the page that confirms a plan, without a session |
//! | `board` | the progress of a stop of many devices |
//! | `pictures` | SVG pictures |
//! | `live` | hints that a page is outdated |
//!
//! Every form is answered with a redirect, or with the reason for a refusal: reloading the page of a result repeats
//! nothing.
//!
//! The templates are in `templates/console`. Each page works without the script, which only fetches the same page again
//! after a hint and replaces its parts.

mod approvals;
mod audit;
mod board;
mod checkout;
mod device;
mod devices;
mod files;
mod fleet;
mod form;
mod frame;
mod key;
mod keys;
mod live;
mod orgs;
mod past;
mod refused;
mod result;
mod rights;
mod settings;
mod sign_in;
mod stop;
mod told;
mod visit;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use utoipa_axum::router::OpenApiRouter;

pub(crate) use self::form::fuzz as fuzz_form;
use self::refused::Refused;
use crate::app::App;
use crate::console::session::Holder;
use crate::routes::answer::Answer;
use crate::routes::openapi::described;

/// The routes of all pages.
pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/console", get(home))
        .route("/console/", get(home))
        .route("/console/files/{name}", get(files::file))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::with_key))
        .route("/console/sign-out", post(sign_in::out))
        .route("/console/operator/{secret}", get(sign_in::show_link).post(sign_in::with_link))
        .route("/console/orgs", get(orgs::show).post(orgs::create))
        .route("/console/org/{org}", get(fleet::show))
        .route("/console/org/{org}/device", get(device::show))
        .route("/console/org/{org}/devices", post(devices::act))
        .route("/console/org/{org}/result/{name}", get(result::show))
        .route("/console/org/{org}/settings", get(settings::show))
        .route("/console/org/{org}/settings/execution", post(settings::execution))
        .route("/console/org/{org}/settings/rotate-key", post(settings::rotate_key))
        .route("/console/org/{org}/settings/end-old-key", post(settings::end_old_key))
        .route("/console/org/{org}/settings/checkout", post(settings::checkout))
        .route("/console/org/{org}/settings/operate", post(settings::operate))
        .route("/console/org/{org}/keys", get(keys::show).post(keys::create))
        .route("/console/org/{org}/keys/{key}", get(key::show))
        .route("/console/org/{org}/keys/{key}/rotate", post(key::rotate))
        .route("/console/org/{org}/keys/{key}/revoke", post(key::revoke))
        .route("/console/org/{org}/approvals", get(approvals::show).post(approvals::decide))
        .route("/console/org/{org}/audit", get(audit::show))
        .route("/console/org/{org}/audit.jsonl", get(audit::export))
        .route("/console/org/{org}/stop", get(stop::show).post(stop::everything))
        .route("/console/org/{org}/stop/{at}/restore", get(stop::ask_restore).post(stop::restore))
        .route("/console/org/{org}/stop/{at}", get(board::show))
        .route("/console/org/{org}/events", get(live::events))
        .merge(public().split_for_parts().0)
        .route("/console/{*rest}", any(nothing_here))
        .layer(middleware::from_fn_with_state(Arc::clone(app), dress))
}

/// The pages that need no session; the description of the API lists them.
pub(crate) fn public() -> OpenApiRouter<Arc<App>> {
    let page = get(checkout::show).post(checkout::confirm);
    OpenApiRouter::new().routes(described(&[&checkout::SHOW, &checkout::CONFIRM], page))
}

/// The start page of the session.
async fn home(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let visit = visit::enter(&app, &head)?;
    let base = &app.console.base;
    Ok(redirect(&match visit.session.holder {
        Holder::Key(org, _) => format!("{base}/org/{org}"),
        Holder::Operator(_) => format!("{base}/orgs"),
    }))
}

async fn nothing_here() -> Refused {
    Refused::NotFound
}

/// Turns refusals into pages, and adds headers that isolate the pages from other sites.
async fn dress(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut response = next.run(request).await;
    if let Some(refused) = response.extensions_mut().remove::<Refused>() {
        response = refused.page(&app, &method, &uri);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // Not `no-referrer`: browsers would then send forms with `Origin: null`, and the origin could not be checked.
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

/// The content policy: nothing is loaded from elsewhere, pages contain no script or style, no page frames them, and
/// forms are sent only here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Renders a page.
fn page(status: StatusCode, template: &impl Template) -> Result<Response, Refused> {
    let text = template.render().map_err(|error| {
        tracing::error!(%error, "cannot render a page of the console");
        Refused::Failed
    })?;
    Ok(Answer::html(status, text).into_response())
}

/// Redirects to another page, by GET.
fn redirect(to: &str) -> Response {
    let mut response = Answer::html(StatusCode::SEE_OTHER, String::new()).into_response();
    // Addresses consist of ids and percent-encoded text.
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}
