//! Reads requests: the organisation of the key, and the content.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use machineid_clock::BootTime;
use machineid_org_key::OrgKey;
use machineid_org_key::sidecar::SidecarSecret;
use machineid_protocol::api::{KEY_HEADER, SIDECAR_HEADER};
use machineid_protocol::report::SidecarId;
use machineid_protocol::{Code, DeviceId, DevicePattern};
use serde::de::DeserializeOwned;

use super::answer::Answer;
use super::large::LargeAnswer;
use super::wire::{DeviceManaged, DeviceNamed, DeviceRegistered, DeviceRemoved, ReasonText};
use super::{Client, HttpRequestId, now};
use crate::access::{self, Grant, Permission};
use crate::app::App;
use crate::audit::{Actor, Call, CallReason, KeyLabel};
use crate::connections;
use crate::forwarded::ClientAddress;
use crate::keys::SecretHash;
use crate::limits::{Asker, Purpose};
use crate::org::{HeldKey, Org};
use crate::role_keys::KeyAuthor;

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

/// The sidecar that sent a request, when it proves which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prover {
    /// No header: not a sidecar, or one of an earlier version.
    None,
    Sidecar(SidecarId),
    /// The header is not one secret.
    Malformed,
}

/// The sidecar that the headers prove.
pub(super) fn prover(headers: &HeaderMap) -> Prover {
    let mut values = headers.get_all(SIDECAR_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Prover::None,
        (Some(value), None) => {
            let secret = value.to_str().ok().and_then(|text| text.parse::<SidecarSecret>().ok());
            secret.map_or(Prover::Malformed, |secret| Prover::Sidecar(SidecarId::random(secret.id_bits())))
        }
        (Some(_), Some(_)) => Prover::Malformed,
    }
}

/// The holder of a key that has the permission its route needs.
#[derive(Debug)]
pub(crate) struct PermittedCaller {
    org: Org,
    key: HeldKey,
    hash: SecretHash,
    needs: Permission,
}

impl PermittedCaller {
    fn grant(&self) -> Grant {
        self.needs.of(self.key.role)
    }

    /// The organisation, for a request about all of it.
    pub(crate) fn whole(&self) -> Result<&Org, Answer> {
        match self.grant() {
            Grant::Whole => Ok(&self.org),
            Grant::OwnDevices | Grant::No => Err(self.not_permitted()),
        }
    }

    /// The organisation, for a request about these devices and no other.
    pub(crate) fn about<'a>(&self, devices: impl IntoIterator<Item = &'a DeviceId>) -> Result<&Org, Answer> {
        let own = |device| access::covers(self.key.devices.as_ref(), device);
        match self.grant() {
            Grant::Whole => Ok(&self.org),
            Grant::OwnDevices if devices.into_iter().all(own) => Ok(&self.org),
            Grant::OwnDevices | Grant::No => Err(self.not_permitted()),
        }
    }

    /// The organisation, for the removal of this device.
    pub(crate) fn removing(&self, device: &DeviceId, only_active: bool) -> Result<&Org, Answer> {
        match self.grant() {
            // What a host could remove while it is revoked, it could register again.
            Grant::OwnDevices if !only_active => Err(self.not_permitted().with(
                "reason",
                "A host key removes a device only while it is active: say \"ifActive\": true, or use a key of the role operate.",
            )),
            Grant::OwnDevices | Grant::Whole | Grant::No => self.about([device]),
        }
    }

    /// Fails unless the key is still valid. A stream subscribes first and is checked then, so that no revocation falls in
    /// between.
    pub(super) async fn still(&self, app: &App) -> Result<(), Answer> {
        let found = app.store.look_up(self.hash, None).await?.and_then(|found| found.at(now()));
        if found.is_some_and(|found| !found.org.deleted) {
            return Ok(());
        }
        Err(Answer::error(StatusCode::UNAUTHORIZED, "invalid_org_key").with_code(Code::InvalidOrgKey))
    }

    /// The right to one large answer. Fails with the refusal while the key has too many under way.
    pub(super) fn large_answer(&self, app: &App) -> Result<LargeAnswer, Answer> {
        app.large.begin(self.hash.mark()).ok_or_else(|| Answer::too_many(Duration::ZERO))
    }

    /// What makes or replaces a key by this request.
    pub(super) fn author(&self) -> KeyAuthor {
        KeyAuthor::of(&self.key)
    }

    /// The devices that the key may work for; `None` for all.
    pub(super) fn pattern(&self) -> Option<&DevicePattern> {
        match self.grant() {
            Grant::OwnDevices => self.key.devices.as_ref(),
            Grant::Whole | Grant::No => None,
        }
    }

    /// The organisation, for a request that says itself what is outside the pattern.
    pub(super) fn within_pattern(&self) -> &Org {
        &self.org
    }

    /// The management call that this request is.
    pub(crate) fn call(&self, head: &Parts) -> Call {
        let name = self.key.name.clone();
        Call {
            at: now(),
            request_id: request_id(head),
            actor: Actor::Key(KeyLabel::new(self.hash.mark(), name)),
            reason: None,
        }
    }

    fn not_permitted(&self) -> Answer {
        not_permitted(&self.key, self.needs)
    }
}

/// The refusal of a key whose role does not have the permission, or whose pattern does not name the devices.
pub(crate) fn not_permitted(key: &HeldKey, needs: Permission) -> Answer {
    let role = key.role;
    let reason = match (needs.of(role), &key.devices) {
        (Grant::OwnDevices, Some(devices)) => format!("This key may do that only for devices that match {devices}."),
        (Grant::OwnDevices | Grant::Whole | Grant::No, _) => {
            format!("A key of the role {role} may not do that; one of the role {} may.", needs.roles())
        }
    };
    let answer = Answer::error(StatusCode::FORBIDDEN, "not_permitted").with("role", role.as_str());
    answer.with("needs", needs.as_str()).with("reason", reason)
}

/// Who makes this request. Fails with the refusal: a bad key, too many of them, a deleted organisation, a key whose role
/// may not do this, or a store that cannot say.
pub(crate) async fn caller(app: &App, head: &Parts) -> Result<PermittedCaller, Answer> {
    let key = key(&head.headers);
    // A route that was added without a permission would be one for administrators.
    let needs = head.extensions.get::<Permission>().copied().unwrap_or(Permission::Administer);
    let found = match (key, Purpose::of(needs, head.method == Method::GET)) {
        (Some(key), Purpose::Stop) => app.store.look_up_to_stop(key).await?,
        (Some(key), Purpose::Other) => app.store.look_up(key, None).await?,
        (None, _) => None,
    };
    let found = found.and_then(|found| found.at(now()));
    let (Some(key), Some(found)) = (key, found) else {
        let refusal = Answer::error(StatusCode::UNAUTHORIZED, "invalid_org_key").with_code(Code::InvalidOrgKey);
        return Err(match app.limits.failed_key(address(head), BootTime::now()) {
            Ok(()) => refusal,
            Err(again) => refusal.later(again),
        });
    };
    if found.org.deleted {
        return Err(org_not_found());
    }
    app.seen.used(key.mark(), now());
    connections::recognise(&head.extensions);
    if needs.of(found.key.role) == Grant::No {
        return Err(not_permitted(&found.key, needs).to(found.org.id));
    }
    if Permission::Stop.of(found.key.role) != Grant::No {
        app.store.may_stop(key);
    }
    Ok(PermittedCaller { org: found.org, key: found.key, hash: key, needs })
}

/// The same for management requests, which have a limit.
pub(crate) async fn manager(app: &App, head: &Parts) -> Result<PermittedCaller, Answer> {
    let caller = caller(app, head).await?;
    let asker = Asker::Key(caller.hash.mark(), address(head));
    app.limits
        .management(asker, Purpose::of(caller.needs, head.method == Method::GET), BootTime::now())
        .map_err(Answer::too_many)?;
    Ok(caller)
}

/// The manager of a request, looked up when its body has arrived: a body that stalls until its key was revoked must not be
/// acted on. The key is judged first all the same, so that only its holder learns what is wrong with a body.
pub(super) async fn after_body<T>(
    app: &App,
    head: &Parts,
    body: impl Future<Output = T>,
) -> Result<(PermittedCaller, T), Answer> {
    let body = body.await;
    Ok((manager(app, head).await?, body))
}

/// The client's address.
pub(crate) fn address(head: &Parts) -> ClientAddress {
    head.extensions.get::<Client>().map_or(ClientAddress::UNKNOWN, |Client(address)| *address)
}

/// The request id, set by [`super::finish`].
pub(crate) fn request_id(head: &Parts) -> String {
    head.extensions.get::<HttpRequestId>().map_or_else(String::new, |HttpRequestId(id)| id.clone())
}

/// The operator's reason, if one is given. Fails with the refusal.
pub(super) fn reason(sent: Option<ReasonText>) -> Result<Option<CallReason>, Answer> {
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
    parsed(&bytes.map_err(|_| BodyError::Malformed)?)
}

/// Reads a JSON object from the bytes of a body.
pub(super) fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    // A derived struct would also accept an array.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(BodyError::Malformed);
    }
    if holds_nul(bytes) {
        return Err(BodyError::Malformed);
    }
    // JSON is UTF-8, also in fields that nothing reads; serde_json skips those as bytes.
    let text = str::from_utf8(bytes).map_err(|_| BodyError::Malformed)?;
    serde_json::from_str(text).map_err(|_| BodyError::Malformed)
}

/// Whether a string of this JSON holds a NUL, which `PostgreSQL` cannot store. JSON writes it in one way only.
fn holds_nul(json: &[u8]) -> bool {
    const ESCAPE: &[u8] = br"\u0000";
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[at..];
        if rest.starts_with(ESCAPE) {
            return true;
        }
        // What follows a backslash is escaped, also another one.
        rest = rest.get(2..).unwrap_or_default();
    }
    false
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
pub(crate) async fn removed(body: Body) -> Result<(DeviceId, Option<CallReason>, bool), Answer> {
    let DeviceRemoved { device_id, reason, if_active } = object(body, SMALL_BODY).await?;
    let id = device_id.0.parse().map_err(|_| invalid_device_id())?;
    Ok((id, self::reason(reason)?, if_active.unwrap_or(false)))
}

/// The device that an operator manages, and the reason. Fails with the refusal.
pub(crate) async fn managed(body: Body) -> Result<(DeviceId, Option<CallReason>), Answer> {
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
    use super::{device_ids, holds_nul};

    #[test]
    fn a_nul_is_found_however_many_backslashes_are_before_it() {
        for (json, found) in [
            (r#"{"a":"\u0000"}"#, true),
            (r#"{"a":"x\\\u0000"}"#, true),
            (r#"{"a":"\\u0000"}"#, false),
            (r#"{"a":"\n\\"}"#, false),
            (r#"{"a":"\u0001"}"#, false),
            (r"\", false),
        ] {
            assert_eq!(holds_nul(json.as_bytes()), found, "{json}");
        }
    }

    #[test]
    fn ids_are_read_from_a_query_and_decoded_once() {
        assert_eq!(device_ids("deviceId=a&x=y&deviceId=worker%3Aprod%2F1"), ["a", "worker:prod/1"]);
        assert!(device_ids("").is_empty() && device_ids("device=a").is_empty());
    }
}
