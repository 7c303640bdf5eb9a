//! `GET /org/keys`, `POST /org/keys/create`, `…/revoke`, `…/rotate`: the organisation's keys with roles.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::api::path;
use tracing::error;

use super::answer::Answer;
use super::approvals;
use super::ask::{self, SMALL_BODY};
use super::openapi::{BAD_KEY, LATE, LIMITED, MALFORMED, NO, NO_ORG, Route, UNAVAILABLE, WAITS};
use super::wire::{KeyEnded, KeyList, KeyMade, KeyNamed, KeyRotation, KeyWanted, UnwrittenFields, Word};

use crate::access::Permission;
use crate::admin::OVERLAP;
use crate::app::App;
use crate::audit::Call;
use crate::org::OrgId;
use crate::role_keys::{self, KeyError, MadeKey, WantedKey};
use crate::store::{KeyRefusal, WhichKey};
use crate::unwritten::InForce;

const NO_KEY: AnswerDoc = AnswerDoc(404, JSON, NO, "there is no such valid key, or no such organisation any more");
const CONFLICT: AnswerDoc =
    AnswerDoc(409, JSON, NO, "the request contradicts itself, or another key stands in the way; `error` says how");

pub(super) const KEYS: Route = Route::needing(
    Permission::Administer,
    Operation {
        path: path::KEYS,
        method: "get",
        summary: "The organisation's keys with their roles, never their texts. An extension",
        parameters: &[],
        body: None,
        answers: &[AnswerDoc(200, JSON, Some("KeyList"), "the keys"), BAD_KEY, NO_ORG, LIMITED, UNAVAILABLE],
    },
);

pub(super) async fn list(State(app): State<Arc<App>>, head: Parts) -> Result<Answer, Answer> {
    let caller = ask::manager(&app, &head).await?;
    let org = caller.whole()?.id;
    let keys = role_keys::list(&app.store, org, super::now()).await.map_err(refused)?;
    Ok(Answer::of(StatusCode::OK, &KeyList { status: Word::Ok, handler: "org/keys", keys }).to(org))
}

pub(super) const CREATE: Route = Route::needing(
    Permission::Administer,
    Operation {
        path: path::KEY_CREATE,
        method: "post",
        summary: "Makes a key with a role. An extension",
        parameters: &[],
        body: Some("KeyWanted"),
        answers: &[
            AnswerDoc(200, JSON, Some("KeyMade"), "made; its text is in this answer and nowhere else"),
            WAITS,
            MALFORMED,
            BAD_KEY,
            NO_ORG,
            LATE,
            CONFLICT,
            LIMITED,
            UNAVAILABLE,
        ],
    },
);

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let (caller, body) = ask::after_body(&app, &head, ask::object(body, SMALL_BODY)).await?;
    let org = caller.whole()?.id;
    let KeyWanted { role, devices, name, expires_in_seconds, reason } = body?;
    let invalid = |error| Answer::error(StatusCode::BAD_REQUEST, error);
    let wanted = WantedKey {
        role: role.parse().map_err(|_| invalid("invalid_role"))?,
        devices: devices.map(|text| text.parse().map_err(|_| invalid("invalid_devices"))).transpose()?,
        name: name.map(|text| text.parse().map_err(|_| invalid("invalid_name"))).transpose()?,
        expires: expires_in_seconds.map(Duration::from_secs),
    };
    let call = Call { reason: ask::reason(reason)?, ..caller.call(&head) };
    let made = role_keys::create(&app.store, org, wanted, caller.author(), &call).await.map_err(refused)?;
    if let Some(approval) = &made.waits {
        return Ok(approvals::waits(approval, Some(made.key.expose())).to(org));
    }
    Ok(shown(&made, "org/keys/create", org))
}

pub(super) const REVOKE: Route = Route::needing(
    Permission::Administer,
    Operation {
        path: path::KEY_REVOKE,
        method: "post",
        summary: "Makes a key invalid from now on. An extension",
        parameters: &[],
        body: Some("KeyNamed"),
        answers: &[
            AnswerDoc(200, JSON, Some("KeyEnded"), "it is invalid"),
            AnswerDoc(202, JSON, Some("KeyEnded"), "it is invalid at this server, and not in the database yet"),
            MALFORMED,
            BAD_KEY,
            NO_KEY,
            LATE,
            CONFLICT,
            LIMITED,
            UNAVAILABLE,
        ],
    },
)
.stopping("those of hosts that use the key");

pub(super) async fn revoke(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let (caller, body) = ask::after_body(&app, &head, ask::object(body, SMALL_BODY)).await?;
    let org = caller.whole()?.id;
    let KeyNamed { key, reason } = body?;
    let call = Call { reason: ask::reason(reason)?, ..caller.call(&head) };
    let stopped = role_keys::revoke(&app.store, org, &which(&key)?, &call).await.map_err(refused)?;
    let InForce { done: fingerprints, unwritten } = stopped;
    let fields = UnwrittenFields::of(unwritten.as_ref());
    let body = KeyEnded { status: Word::Ok, handler: "org/keys/revoke", fingerprints, unwritten: fields };
    Ok(Answer::of(StatusCode::OK, &body).to(org).unless_written(unwritten.as_ref()))
}

pub(super) const ROTATE: Route = Route::needing(
    Permission::Administer,
    Operation {
        path: path::KEY_ROTATE,
        method: "post",
        summary: "Makes a key in the place of one, which stays valid for a day unless something else is said. An extension",
        parameters: &[],
        body: Some("KeyRotation"),
        answers: &[
            AnswerDoc(200, JSON, Some("KeyMade"), "made; its text is in this answer and nowhere else"),
            MALFORMED,
            BAD_KEY,
            NO_KEY,
            LATE,
            CONFLICT,
            LIMITED,
            UNAVAILABLE,
        ],
    },
)
.stopping("those of hosts that still use the old key when it ends");

pub(super) async fn rotate(State(app): State<Arc<App>>, request: Request) -> Result<Answer, Answer> {
    let (head, body) = request.into_parts();
    let (caller, body) = ask::after_body(&app, &head, ask::object(body, SMALL_BODY)).await?;
    let org = caller.whole()?.id;
    let KeyRotation { key, overlap_seconds, reason } = body?;
    let overlap = overlap_seconds.map_or(OVERLAP, Duration::from_secs);
    let call = Call { reason: ask::reason(reason)?, ..caller.call(&head) };
    let made =
        role_keys::rotate(&app.store, org, &which(&key)?, overlap, caller.author(), &call).await.map_err(refused)?;
    Ok(shown(&made, "org/keys/rotate", org))
}

fn which(text: &str) -> Result<WhichKey, Answer> {
    text.parse().map_err(|_| Answer::error(StatusCode::BAD_REQUEST, "invalid_key_name"))
}

fn shown(made: &MadeKey, handler: &'static str, org: OrgId) -> Answer {
    let body = KeyMade { status: Word::Ok, handler, org_api_key: made.key.expose(), key: made.report.clone() };
    Answer::of(StatusCode::OK, &body).to(org)
}

fn refused(error: KeyError) -> Answer {
    let refusal = match error {
        KeyError::Store(error) => return error.into(),
        KeyError::NoRandomness(error) => {
            error!(%error, "a key could not be made");
            return Answer::unavailable();
        }
        KeyError::Refused(refusal) => refusal,
    };
    let status = match refusal {
        KeyRefusal::NoOrg => return ask::org_not_found(),
        KeyRefusal::Unknown => StatusCode::NOT_FOUND,
        KeyRefusal::Devices
        | KeyRefusal::Own
        | KeyRefusal::Several
        | KeyRefusal::Replaced
        | KeyRefusal::Taken
        | KeyRefusal::Full => StatusCode::CONFLICT,
        KeyRefusal::OldAuthor | KeyRefusal::OthersKey => StatusCode::FORBIDDEN,
        KeyRefusal::Expiry | KeyRefusal::Overlap => StatusCode::BAD_REQUEST,
    };
    Answer::error(status, refusal.as_str()).with("reason", refusal.to_string())
}
