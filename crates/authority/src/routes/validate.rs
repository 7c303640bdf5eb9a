//! `POST /devices/validate`: the answer is always a decision, or says that there is none; an ALLOW is always read from
//! the store for this request.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use machineid_clock::BootTime;
use machineid_openapi::{AnswerDoc, JSON, Operation};
use machineid_protocol::api::path;

use super::answer::{Answer, Facts};
use super::ask::{self, Named};
use super::now;
use super::openapi::DECISION;
use crate::app::App;
use crate::decide::{Asker, Subject, Verdict, decide};
use crate::repeated::rarely;

pub(super) const VALIDATE: Operation = Operation {
    path: path::VALIDATE,
    method: "post",
    summary: "May this device execute? Whatever the status, the answer is a decision, and only `allowed` counts",
    parameters: &[],
    body: Some("DeviceNamed"),
    answers: &[
        AnswerDoc(200, JSON, DECISION, "a whole decision: ALLOW, or why not"),
        AnswerDoc(400, JSON, DECISION, "INVALID_DEVICE_ID"),
        AnswerDoc(401, JSON, DECISION, "INVALID_ORG_KEY"),
        AnswerDoc(404, JSON, DECISION, "ORG_NOT_FOUND: the key is that of a deleted organisation"),
        AnswerDoc(429, JSON, DECISION, "INVALID_ORG_KEY, and too often; Retry-After says when to retry"),
        AnswerDoc(503, JSON, DECISION, "SYSTEM_UNAVAILABLE: no decision could be completed"),
    ],
};

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
    let known = found.as_ref().and_then(|found| found.device.clone());
    let org = found.as_ref().map(|found| found.org.id);
    let key_ends = found.as_ref().and_then(|found| found.key.ends());
    let asker = found.map_or(Asker::Unknown, |found| Asker::Org(found.org));
    let subject = match (&device, &known) {
        (None, _) => Subject::Invalid,
        (Some(_), None) => Subject::Absent,
        (Some(_), Some(known)) => Subject::Known(known.status),
    };
    let verdict = decide(&asker, subject, now);
    let revoked_at = known.as_ref().and_then(|known| known.revoked_at).filter(|_| verdict != Verdict::Allow);
    if let (Some(known), Some(key)) = (&known, key) {
        app.seen.note(known.seq, now, key.mark());
    }
    let missing = missing && verdict == Verdict::InvalidDeviceId;
    let said = known.and_then(|known| known.revoke_reason).filter(|_| verdict == Verdict::DeviceRevoked);
    let facts = Facts { device, said, revoked_at, error: missing.then_some("missing_params") };
    let mut answer = Answer::decision(verdict, facts);
    answer.org = org;
    answer.key_ends = key_ends.map(Box::new);
    if verdict == Verdict::InvalidOrgKey
        && let Err(again) = app.limits.failed_key(ask::address(&head), BootTime::now())
    {
        // The same denial as without the limit, since the key stays invalid.
        return answer.later(again);
    }
    answer
}

/// A validation by any other method is answered with a deny, too.
pub(super) async fn wrong_method() -> Response {
    let answer =
        Answer::decision(Verdict::WrongMethod, Facts { error: Some("method_not_allowed"), ..Facts::default() });
    let mut response = answer.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}
