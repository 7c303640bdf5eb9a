//! The hint that a page is old: server-sent events, for as long as the session lasts.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use futures_util::StreamExt;

use super::refused::Refused;
use super::visit;
use crate::access::Permission;
use crate::app::App;
use crate::routes::answer::Answer;
use crate::watch::{self, Interest};

/// When to ask again for a place.
const LATER: std::time::Duration = std::time::Duration::from_secs(30);

/// `changed` events, as of `GET /api/v1/org/events`.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (_, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let org = account.org.id;
    let watcher = app.hints.watch(org, Interest::Everything).map_err(|_| Refused::TooMany(LATER))?;
    // Each hint, and each heartbeat between them, asks whether anybody may still know.
    let lasting = watch::body(watcher, "changed").into_data_stream().take_while(move |_| {
        let (app, headers) = (Arc::clone(&app), head.headers.clone());
        async move { visit::still(&app, &headers, org).await }
    });
    Ok(Answer::event_stream(org, Body::from_stream(lasting)))
}
