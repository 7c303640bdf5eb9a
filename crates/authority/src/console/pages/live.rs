//! The hints that a page is outdated: server-sent events, as long as the session lasts.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use futures_util::StreamExt;

use super::refused::Refused;
use super::visit;
use crate::access::Permission;
use crate::app::App;
use crate::plan;
use crate::routes::answer::Answer;
use crate::watch::{self, Interest};

/// The retry delay after a refusal for lack of places.
const LATER: std::time::Duration = std::time::Duration::from_secs(30);

/// `changed` events, like those of `GET /api/v1/org/events`.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Path(org): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let (_, account) = visit::at(&app, &head, &org, Permission::Read).await?;
    let org = account.org.id;
    let places = plan::watch_places(account.org.limit());
    let watcher = app.hints.watch(org, Interest::Everything, places).map_err(|_| Refused::TooMany(LATER))?;
    // Each hint and each heartbeat checks whether the session may still see the organisation.
    let lasting = watch::body(watcher, "changed").into_data_stream().take_while(move |_| {
        let (app, headers) = (Arc::clone(&app), head.headers.clone());
        async move { visit::still(&app, &headers, org).await }
    });
    Ok(Answer::event_stream(org, Body::from_stream(lasting)))
}
