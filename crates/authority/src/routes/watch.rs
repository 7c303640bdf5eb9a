//! `GET /devices/watch?deviceId=…&deviceId=…`, the same by `POST` with `{"deviceIds":[…]}`, and `GET /org/events`.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{RawQuery, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use machineid_openapi::Operation;
use machineid_protocol::api::{LARGEST_WATCH, path};
use machineid_protocol::{Code, DeviceId};

use super::answer::Answer;
use super::ask::{self, BodyError, PermittedCaller};
use super::openapi::{BAD_KEY, LIMITED, NO_ORG, Route, STREAM, UNAVAILABLE, WATCH, WATCHED};
use super::wire::DevicesNamed;

use crate::access::Permission;
use crate::app::App;
use crate::org::Org;
use crate::plan;
use crate::watch::{self, Interest};

/// The largest body, in bytes: the maximum number of ids, each of 128 characters with quotes and comma, and some space.
const LARGEST_BODY: usize = LARGEST_WATCH * 160;

/// How many devices a watch may name that are not registered: a sidecar watches first and registers then, and a start of
/// an agent registers its device while the sidecar watches.
const UNREGISTERED: usize = 256;

/// The retry delay in seconds after a refusal for lack of places.
const LATER: HeaderValue = HeaderValue::from_static("30");

pub(super) const DEVICES_OF_QUERY: Route = Route::needing(
    Permission::Work,
    Operation {
        path: path::WATCH,
        method: "get",
        summary: "Events `validate` when something about these devices changes. A hint to validate, never a decision. An extension",
        parameters: &[WATCHED],
        body: None,
        answers: WATCH,
    },
);

/// For use with curl, and for few devices.
pub(super) async fn devices_of_query(
    State(app): State<Arc<App>>,
    head: Parts,
    RawQuery(query): RawQuery,
) -> Result<Response, Answer> {
    let caller = ask::caller(&app, &head).await?;
    let ids = ask::device_ids(query.as_deref().unwrap_or(""));
    devices(&app, &caller, &ids).await
}

pub(super) const DEVICES_OF_BODY: Route = Route::needing(
    Permission::Work,
    Operation {
        path: path::WATCH,
        method: "post",
        summary: "The same by POST, for more devices than fit into a URL",
        parameters: &[],
        body: Some("DevicesNamed"),
        answers: WATCH,
    },
);

/// For many devices, which do not fit into a URL.
pub(super) async fn devices_of_body(State(app): State<Arc<App>>, request: Request) -> Result<Response, Answer> {
    let (head, body) = request.into_parts();
    let body = ask::object(body, LARGEST_BODY).await;
    let caller = ask::caller(&app, &head).await?;
    let wanted: DevicesNamed = body?;
    let ids: Vec<String> = wanted.device_ids.into_iter().map(|id| id.0).collect();
    devices(&app, &caller, &ids).await
}

pub(super) const ORG_EVENTS: Route = Route::needing(
    Permission::Read,
    Operation {
        path: path::EVENTS,
        method: "get",
        summary: "Events `changed` when anything in the organisation does. An extension",
        parameters: &[],
        body: None,
        answers: &[STREAM, BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
);

/// Everything that changes in the organisation, for consoles and command lines.
pub(super) async fn events(State(app): State<Arc<App>>, head: Parts) -> Result<Response, Answer> {
    let caller = ask::caller(&app, &head).await?;
    stream(&app, &caller, caller.whole()?, Interest::Everything, "changed").await
}

async fn devices(app: &App, caller: &PermittedCaller, ids: &[String]) -> Result<Response, Answer> {
    if ids.is_empty() {
        return Err(BodyError::Malformed.into());
    }
    let refused = |error| Answer::error(StatusCode::BAD_REQUEST, error).with("handler", "devices/watch");
    let ids: Result<Vec<DeviceId>, _> = ids.iter().map(|id| id.parse()).collect();
    let mut ids = ids.map_err(|_| refused("invalid_device_id").with_code(Code::InvalidDeviceId))?;
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > LARGEST_WATCH {
        return Err(refused("too_many_device_ids"));
    }
    // Those outside the key's pattern are left out: refused whole, one foreign device would end the push for all.
    if let Some(pattern) = caller.pattern().filter(|pattern| ids.iter().any(|id| pattern.matches(id))) {
        ids.retain(|id| pattern.matches(id));
    }
    let org = caller.about(&ids)?;
    let registered = app.store.registered(org.id, &ids).await?;
    let ids = worth_watching(ids, &registered);
    stream(app, caller, org, Interest::Devices(ids), "validate").await
}

/// Of these ids the registered ones, and a few of the others: names that mean nothing must not fill the memory. A device that
/// is left out is polled, and watched from the sidecar's next subscription on.
fn worth_watching(ids: Vec<DeviceId>, registered: &HashSet<DeviceId>) -> Vec<DeviceId> {
    let mut others = 0;
    let mut worth = |id: &DeviceId| {
        let known = registered.contains(id);
        others += usize::from(!known);
        known || others <= UNREGISTERED
    };
    ids.into_iter().filter(|id| worth(id)).collect()
}

async fn stream(
    app: &App,
    caller: &PermittedCaller,
    org: &Org,
    interest: Interest,
    event: &'static str,
) -> Result<Response, Answer> {
    let Ok(watcher) = app.hints.watch(org.id, interest, plan::watch_places(org.limit())) else {
        let mut response = Answer::error(StatusCode::SERVICE_UNAVAILABLE, "too_many_watchers").into_response();
        response.headers_mut().insert(header::RETRY_AFTER, LATER);
        return Ok(response);
    };
    caller.still(app).await?;
    Ok(Answer::event_stream(org.id, watch::body(watcher, event)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_device_is_always_watched_and_only_a_few_others_are() {
        let ids: Vec<DeviceId> = (0..1_000).map(|number| format!("d{number:04}").parse().unwrap()).collect();
        let registered: HashSet<DeviceId> = ids.iter().skip(1).step_by(2).cloned().collect();
        let watched = worth_watching(ids, &registered);
        assert_eq!(watched.len(), 500 + UNREGISTERED);
        assert!(registered.iter().all(|id| watched.contains(id)));
    }
}
