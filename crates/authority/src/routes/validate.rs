//! `POST /devices/validate`: the answer is always a decision, or says that there is none; an ALLOW is always read from
//! the store for this request.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use machineid_clock::BootTime;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::api::path;

use super::answer::{Answer, Facts};
use super::ask::{self, Named, Prover};
use super::now;
use super::openapi::{DECISION, Route};
use crate::access::{self, Permission};
use crate::app::App;
use crate::connections;
use crate::decide::{Asker, Subject, ValidationVerdict, decide};
use crate::org::HeldKey;
use crate::proofs::Pair;
use crate::repeated::rarely;

pub(super) const VALIDATE: Route = Route::needing(
    Permission::Work,
    Operation {
        path: path::VALIDATE,
        method: "post",
        summary: "May this device execute? Whatever the status, the answer is a decision, and only `allowed` counts",
        parameters: &[],
        body: Some("DeviceNamed"),
        answers: &[
            AnswerDoc(200, JSON, DECISION, "a whole decision: ALLOW, or why not"),
            AnswerDoc(400, JSON, DECISION, "INVALID_DEVICE_ID"),
            AnswerDoc(401, JSON, DECISION, "INVALID_ORG_KEY"),
            AnswerDoc(
                403,
                JSON,
                DECISION,
                "INVALID_ORG_KEY: the key's role may not validate this device; `error` is `not_permitted`",
            ),
            AnswerDoc(404, JSON, DECISION, "ORG_NOT_FOUND: the key is that of a deleted organisation"),
            AnswerDoc(429, JSON, DECISION, "INVALID_ORG_KEY, and too often; Retry-After says when to retry"),
            AnswerDoc(503, JSON, DECISION, "SYSTEM_UNAVAILABLE: no decision could be completed"),
        ],
    },
);

/// How long before its end the holder of a key is told of it.
const TOLD_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 7);

pub(super) async fn validate(State(app): State<Arc<App>>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let named = ask::named(body).await;
    let missing = named == Named::Missing;
    let device = match named {
        Named::Device(id) => Some(id),
        Named::Invalid | Named::Missing => None,
        // A stalled network must not make the device invalid, which would stop its agents for good.
        Named::Late => return Answer::unavailable_decision(None),
    };
    let key = ask::key(&head.headers);
    let found = match key {
        None => None,
        Some(key) => match app.store.look_up(key, device.as_ref()).await {
            Ok(found) => found,
            Err(error) => {
                rarely!(error, %error, "the store failed; the validation is not decided");
                return Answer::unavailable_decision(device);
            }
        },
    };
    let now = now();
    let found = found.and_then(|found| found.at(now));
    if found.is_some() {
        connections::recognise(&head.extensions);
    }
    let known = found.as_ref().and_then(|found| found.device.clone());
    let org = found.as_ref().map(|found| found.org.id);
    let role = found.as_ref().map(|found| found.key.role);
    let key_ends = found.as_ref().and_then(|found| told_end(&found.key, now));
    let asker = match found {
        None => Asker::Unknown,
        // That its organisation is gone is said of every key.
        Some(found) if found.org.deleted => Asker::Org(found.org),
        Some(found) if access::may_work(found.key.role, found.key.devices.as_ref(), device.as_ref()) => {
            Asker::Org(found.org)
        }
        Some(_) => Asker::NotPermitted,
    };
    let subject = match (&device, &known) {
        (None, _) => Subject::Invalid,
        (Some(_), None) => Subject::Absent,
        (Some(_), Some(known)) => Subject::Known(known.status),
    };
    let verdict = decide(&asker, subject, now);
    let known = known.filter(|_| verdict != ValidationVerdict::NotPermitted);
    let revoked_at = known.as_ref().and_then(|known| known.revoked_at).filter(|_| verdict != ValidationVerdict::Allow);
    match (&known, key, role) {
        (Some(known), Some(key), _) => app.seen.note(known.seq, now, key.mark()),
        (None, Some(key), Some(_)) => app.seen.used(key.mark(), now),
        (_, None, _) | (None, Some(_), None) => {}
    }
    if let (Some(_), Some(device), Some(org), Prover::Sidecar(sidecar)) =
        (&known, &device, org, ask::prover(&head.headers))
    {
        app.proofs.note(Pair { org, sidecar, device: device.clone() }, now, revoked_at);
    }
    let missing = missing && verdict == ValidationVerdict::InvalidDeviceId;
    let said = known.and_then(|known| known.revoke_reason).filter(|_| verdict == ValidationVerdict::DeviceRevoked);
    let not_permitted = (verdict == ValidationVerdict::NotPermitted).then_some("not_permitted");
    let error = not_permitted.or(missing.then_some("missing_params"));
    let facts = Facts { device, said, revoked_at, error };
    let mut answer = Answer::decision(verdict, facts);
    answer.org = org;
    answer.key_ends = key_ends.map(Box::new);
    answer.key_role = role;
    if verdict == ValidationVerdict::InvalidOrgKey
        && let Err(again) = app.limits.failed_key(ask::address(&head), BootTime::now())
    {
        // The same denial as without the limit, since the key stays invalid.
        return answer.later(again);
    }
    answer
}

/// When the key ends, where its holder should know: another key has taken its place, or its time comes soon.
fn told_end(key: &HeldKey, now: Timestamp) -> Option<Timestamp> {
    let soon = now.saturating_add(TOLD_BEFORE).unwrap_or(Timestamp::MAX);
    key.ends.filter(|ends| key.replaced || *ends < soon)
}

/// A validation by any other method is answered too, with a no.
pub(super) async fn wrong_method() -> Response {
    let answer = Answer::decision(
        ValidationVerdict::WrongMethod,
        Facts { error: Some("method_not_allowed"), ..Facts::default() },
    );
    let mut response = answer.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}
