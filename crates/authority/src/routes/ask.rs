//! Reads requests: the organisation of the key, and the content.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use machineid_clock::BootTime;
use machineid_org_key::OrgKey;
use machineid_protocol::api::KEY_HEADER;
use machineid_protocol::{Code, DeviceId};
use serde::de::DeserializeOwned;

use super::answer::Answer;
use super::wire::{DeviceManaged, DeviceNamed, DeviceRegistered, DeviceRemoved, ReasonText};
use super::{Client, RequestId, now};
use crate::app::App;
use crate::audit::{Actor, Call, Reason};
use crate::keys::SecretHash;
use crate::org::Org;

/// The largest body of a request about one device, in bytes.
pub(crate) const SMALL_BODY: usize = 64 * 1024;

/// The largest body of a batch, in bytes: 500 ids of 128 characters are 66 kB, and a batch may contain repetitions,
/// indentation, and escapes for every character.
pub(crate) const BATCH_BODY: usize = 512 * 1024;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The body did not arrive in time. That says nothing about its content.
    Late,
    /// The body is not what the endpoint accepts, or is too large.
    Malformed,
}

impl From<BodyError> for Answer {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Late => Self::error(StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            BodyError::Malformed => Self::missing_params(),
        }
    }
}

/// The device that a body names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Device(DeviceId),
    /// The body names something that is not a device id.
    Invalid,
    /// The body is malformed, or names nothing.
    Missing,
    /// The body did not arrive in time.
    Late,
}

/// The key of a request, when it has exactly one that is well-formed.
pub(crate) fn key(headers: &HeaderMap) -> Option<SecretHash> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    let (first, second) = (values.next()?, values.next());
    if second.is_some() {
        return None;
    }
    first.to_str().ok()?.parse::<OrgKey>().ok().map(|key| SecretHash::of_key(&key))
}

/// The organisation of the request's key. Fails with the refusal: a bad key, too many failed keys, a deleted
/// organisation, or a failing store.
pub(crate) async fn caller(app: &App, head: &Parts) -> Result<Org, Answer> {
    let found = match key(&head.headers) {
        Some(key) => app.store.look_up(key, None).await?.and_then(|found| found.at(now())),
        None => None,
    };
    match found {
        None => {
            let refusal = Answer::error(StatusCode::UNAUTHORIZED, "invalid_org_key").with_code(Code::InvalidOrgKey);
            Err(match app.limits.failed_key(address(head), BootTime::now()) {
                Ok(()) => refusal,
                Err(again) => refusal.later(again),
            })
        }
        Some(found) if found.org.deleted => Err(org_not_found()),
        Some(found) => Ok(found.org),
    }
}

/// The organisation of a management request, for which there is a rate limit.
pub(crate) async fn manager(app: &App, head: &Parts) -> Result<Org, Answer> {
    let org = caller(app, head).await?;
    app.limits.management(org.id, BootTime::now()).map_err(Answer::too_many)?;
    Ok(org)
}

/// The management call that this request of a key holder makes.
pub(crate) fn call(head: &Parts) -> Call {
    let fingerprint = key(&head.headers).map_or_else(String::new, |key| key.fingerprint());
    Call { at: now(), request_id: request_id(head), actor: Actor::Key(fingerprint), reason: None }
}

/// The client's address.
pub(crate) fn address(head: &Parts) -> IpAddr {
    head.extensions.get::<Client>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Client(address)| *address)
}

/// The request id, set by [`super::finish`].
pub(crate) fn request_id(head: &Parts) -> String {
    head.extensions.get::<RequestId>().map_or_else(String::new, |RequestId(id)| id.clone())
}

/// The operator's reason, if one is given. Fails with the refusal.
pub(super) fn reason(sent: Option<ReasonText>) -> Result<Option<Reason>, Answer> {
    sent.map(|text| text.0.parse()).transpose().map_err(|error: crate::audit::ReasonError| {
        Answer::error(StatusCode::BAD_REQUEST, "invalid_reason").with("reason", error.to_string())
    })
}

/// The organisation was deleted, before or during the request.
pub(crate) fn org_not_found() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "org_not_found").with_code(Code::OrgNotFound)
}

/// Reads a JSON object. The media type is ignored: anything but JSON fails anyway.
pub(crate) async fn object<T: DeserializeOwned>(body: Body, largest: usize) -> Result<T, BodyError> {
    let bytes = tokio::time::timeout(BODY_TIME, to_bytes(body, largest)).await.map_err(|_| BodyError::Late)?;
    let bytes = bytes.map_err(|_| BodyError::Malformed)?;
    // A derived struct would also accept an array.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(BodyError::Malformed);
    }
    serde_json::from_slice(&bytes).map_err(|_| BodyError::Malformed)
}

/// The device that the body names.
pub(crate) async fn named(body: Body) -> Named {
    match object::<DeviceNamed>(body, SMALL_BODY).await {
        Err(BodyError::Malformed) => Named::Missing,
        Err(BodyError::Late) => Named::Late,
        Ok(names) => names.device_id.0.parse().map_or(Named::Invalid, Named::Device),
    }
}

/// The device of a registration, and whether it is ephemeral. Fails with the refusal.
pub(crate) async fn registered(body: Body) -> Result<(DeviceId, Option<bool>), Answer> {
    let DeviceRegistered { device_id, ephemeral } = object(body, SMALL_BODY).await?;
    Ok((device_id.0.parse().map_err(|_| invalid_device_id())?, ephemeral))
}

/// The device of a removal, the reason, and whether only an active device is meant. Fails with the refusal.
pub(crate) async fn removed(body: Body) -> Result<(DeviceId, Option<Reason>, bool), Answer> {
    let DeviceRemoved { device_id, reason, if_active } = object(body, SMALL_BODY).await?;
    let id = device_id.0.parse().map_err(|_| invalid_device_id())?;
    Ok((id, self::reason(reason)?, if_active.unwrap_or(false)))
}

/// The device that an operator manages, and the reason. Fails with the refusal.
pub(crate) async fn managed(body: Body) -> Result<(DeviceId, Option<Reason>), Answer> {
    let DeviceManaged { device_id, reason } = object(body, SMALL_BODY).await?;
    let id = device_id.0.parse().map_err(|_| invalid_device_id())?;
    Ok((id, self::reason(reason)?))
}

fn invalid_device_id() -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, "invalid_device_id").with_code(Code::InvalidDeviceId)
}

/// The values of the `deviceId` parameters of a query, unchecked.
pub(crate) fn device_ids(query: &str) -> Vec<String> {
    // The parser needs an origin; it is ignored.
    let parsed = url::Url::parse(&format!("http://localhost/?{query}"));
    let pairs = parsed.iter().flat_map(|url| url.query_pairs());
    pairs.filter(|(name, _)| name == "deviceId").map(|(_, id)| id.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::device_ids;

    #[test]
    fn ids_are_read_from_a_query_and_decoded_once() {
        assert_eq!(device_ids("deviceId=a&x=y&deviceId=worker%3Aprod%2F1"), ["a", "worker:prod/1"]);
        assert!(device_ids("").is_empty() && device_ids("device=a").is_empty());
    }
}
