//! The client of the authority, with one method for each endpoint.
//!
//! Every request has one timeout for all of it, and a limit on the size of its answer. The key is sent only in its
//! header, and no redirect is followed, since it would pass the key on. On this host it is sent only to a process of
//! root, of the client's own user or of a user that is named. HTTP/1.1 only: each request in flight then has
//! its own connection, and abandoning the request closes it. On HTTP/2 a connection that died silently would fail every
//! later request until the kernel gives it up, far beyond a lease.
//!
//! The result is either a typed answer or a [`Failure`], which is never an ALLOW.

#![forbid(unsafe_code)]

mod approvals;
mod authority_user;
mod base_url;
mod connection;
mod exchange;
mod failure;
mod key_facts;
mod keys;
mod reports;
mod retry_after;
mod sse;
mod stream;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use url::Url;

pub use authority_user::{PACKAGED_USER, user_id};
pub use base_url::{BaseUrl, BaseUrlError};
pub use connection::{ForeignListener, KEY_NOT_SENT};
pub use exchange::body;
pub use failure::{Failure, Fault, Refusal, SharedError, TlsFault, Waiting};
pub use retry_after::LONGEST_RETRY_AFTER;
pub use retry_after::fuzz as fuzz_retry_after;
pub use sse::ServerSentEvent;
pub use stream::{EventStream, Extensions};
pub use tls::install_provider;
pub use tls::without_encryption;

use connection::{AuthorityPlace, Connections, Proxies, TrustedUsers, Way};
use exchange::{Exchange, Question, RawAnswer, Repeat};
pub use key_facts::KeyFacts;
use key_facts::KnownKey;
pub use keys::NewKey;
use machineid_org_key::OrgKey;
use machineid_org_key::sidecar::SidecarSecret;
use machineid_protocol::api::{BatchRequest, BatchResponse, DevicePage, DeviceStatus, PlanUsage, Registration, path};
use machineid_protocol::decision::{self, Unusable};
use machineid_protocol::{Decision, DeviceId};
use tls::Trust;

/// The maximum size of an answer about one device, in bytes.
const SMALL_ANSWER: usize = 64 * 1024;

/// The maximum size of an answer about a fleet, in bytes: enough for some 300,000 devices.
const LARGE_ANSWER: usize = 64 * 1024 * 1024;

/// The options of a client.
#[derive(Clone, Debug)]
pub struct Options {
    /// The base URL of the authority.
    pub base_url: BaseUrl,
    /// The time limit for one request and its whole answer.
    pub timeout: Duration,
    /// Certificates (PEM) to trust instead of the host's own store.
    pub ca_pem: Option<Vec<u8>>,
    /// The `User-Agent`, as in `machineid-sidecar/1.2.3`.
    pub user_agent: String,
    /// The user who may run an authority on this host, beside root and this process's own user. The key is sent to no other
    /// user's process there, unless a certificate tells whose it is.
    pub authority_user: Option<u32>,
}

/// Why a client could not be made.
#[derive(Clone, Debug)]
pub enum SetupError {
    /// The CA file holds no certificate.
    NoCertificate,
    /// The CA file holds something that is not a certificate.
    BadCertificate(SharedError),
    /// The URL, the user agent or the host's own certificates cannot be used.
    Unusable(SharedError),
}

/// A client of one authority. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct AuthorityClient {
    exchange: Arc<Exchange>,
    options: Arc<Options>,
    /// The extensions announced with the newest decision.
    announced: Arc<watch::Sender<Extensions>>,
    /// What the newest decision told of its key.
    known_key: Arc<KnownKey>,
    /// The secret of the sidecar that asks; `None` in a program that is no sidecar.
    sidecar: Option<Arc<SidecarSecret>>,
}

/// A filter for the list of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only devices with this status.
    pub status: Option<DeviceStatus>,
    /// Only ids that contain this text, literally.
    pub search: Option<String>,
}

impl Options {
    /// Prepares the connections; connects to nothing yet.
    fn connections(&self, proxies: Proxies) -> Result<Connections, SetupError> {
        let trust = match &self.ca_pem {
            Some(pem) => Trust::Only(pem),
            None if self.base_url.is_loopback() && !self.base_url.is_https() => Trust::Nothing,
            None => Trust::Host,
        };
        let place = match (&proxies, self.base_url.socket()) {
            (_, Some(path)) => AuthorityPlace::Socket(path.into()),
            (Proxies::None, None) if self.base_url.is_loopback() && !self.base_url.is_https() => AuthorityPlace::Port,
            _ => AuthorityPlace::Elsewhere,
        };
        let user_agent = HeaderValue::from_str(&self.user_agent).map_err(SetupError::unusable)?;
        let trusted = TrustedUsers::of_this_process(self.authority_user);
        let way = Way { place, trusted, proxies, tls: trust.configure()?, user_agent, timeout: self.timeout };
        Connections::new(way).map_err(SetupError::unusable)
    }
}

impl AuthorityClient {
    /// Makes a client; connects to nothing yet. Uses the proxy from the environment, unless the authority is on this
    /// host. Fails with a [`SetupError`] when certificates are unusable.
    pub fn new(options: Options) -> Result<Self, SetupError> {
        let proxies = if options.base_url.is_loopback() { Proxies::None } else { Proxies::Environment };
        Self::by_way_of(proxies, options)
    }

    fn by_way_of(proxies: Proxies, options: Options) -> Result<Self, SetupError> {
        let exchange = Arc::new(Exchange::new(options.connections(proxies)?, options.timeout));
        let announced = Arc::new(watch::channel(Extensions::default()).0);
        Ok(Self { exchange, options: Arc::new(options), announced, known_key: Arc::default(), sidecar: None })
    }

    /// The client of the sidecar with this secret: it proves to an authority that accepts reports which sidecar validates and
    /// reports.
    #[must_use]
    pub fn of_sidecar(self, secret: Arc<SidecarSecret>) -> Self {
        Self { sidecar: Some(secret), ..self }
    }

    /// The secret that this client proves itself with.
    #[must_use]
    pub fn sidecar(&self) -> Option<Arc<SidecarSecret>> {
        self.sidecar.clone()
    }

    /// Uses new connections from now on: after a suspend earlier connections may have died silently, and the first
    /// request on one would wait for its whole timeout.
    pub fn forget_connections(&self) {
        self.exchange.forget_connections();
    }

    /// The base URL of the authority.
    #[must_use]
    pub fn base_url(&self) -> &BaseUrl {
        &self.options.base_url
    }

    /// The certificates (PEM) that it trusts instead of the host's own store.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&[u8]> {
        self.options.ca_pem.as_deref()
    }

    /// Asks whether this device may execute. This is the only request whose answer is a decision.
    ///
    /// Fails with a [`Failure`] for every answer that is neither an ALLOW in its exact form nor a deny.
    pub async fn validate(&self, key: &OrgKey, device: &DeviceId) -> Result<Decision, Failure> {
        // No other authority learns the secret. So the first validation proves nothing, and every later one does.
        let sidecar = self.sidecar.as_deref().filter(|_| self.announced.borrow().report);
        let answer = self.post_as(sidecar, path::VALIDATE, key, &one(device), Repeat::Harmless, SMALL_ANSWER).await?;
        let decision = decision::read(&answer.head(), &answer.body, device);
        if decision.is_ok() {
            // An answer without a decision may come from a proxy.
            self.known_key.note(key, &answer.headers);
            let now = Extensions::announced(&answer.headers);
            self.announced.send_if_modified(|known| std::mem::replace(known, now) != now);
        }
        decision.map_err(|unusable| match unusable {
            Unusable::Status(_) => answer.bare_status(),
            Unusable::Undecided => Failure::Undecided { retry_after: answer.retry_after() },
            Unusable::NotJson
            | Unusable::Encoded
            | Unusable::Malformed
            | Unusable::NoAnswer
            | Unusable::Contradictory
            | Unusable::OtherDevice
            | Unusable::Stale => Failure::Unusable(unusable),
        })
    }

    /// The authority's extensions of the service's API: none before its first decision.
    #[must_use]
    pub fn extensions(&self) -> watch::Receiver<Extensions> {
        self.announced.subscribe()
    }

    /// What the newest decision for this key told of it.
    #[must_use]
    pub fn key_facts(&self, key: &OrgKey) -> KeyFacts {
        self.known_key.of(key)
    }

    /// Registers the device. Safe to repeat. A refusal is an answer here, not a failure.
    ///
    /// Fails with a [`Failure`] when the authority could not be asked or gave no usable answer.
    pub async fn register(&self, key: &OrgKey, device: &DeviceId) -> Result<Registration, Failure> {
        self.register_as(key, device, None).await
    }

    /// Registers the device and sets whether it is ephemeral: removed when it has not been seen for a while, which only
    /// our own authority does. With `None` a known device keeps its setting.
    ///
    /// Fails like [`Self::register`].
    pub async fn register_as(
        &self,
        key: &OrgKey,
        device: &DeviceId,
        ephemeral: Option<bool>,
    ) -> Result<Registration, Failure> {
        let mut body = json!({ "deviceId": device });
        if let Some(ephemeral) = ephemeral {
            body["ephemeral"] = ephemeral.into();
        }
        let answer = self.post(path::REGISTER, key, &body, Repeat::Harmless, SMALL_ANSWER).await?;
        let envelope = answer.envelope();
        let words = [envelope.error.as_deref(), envelope.status.as_deref()];
        let says = |word: &str| words.contains(&Some(word));
        let refused_or_ok = answer.status == StatusCode::OK || answer.status.is_client_error();
        if refused_or_ok && (says("device_limit_reached") || says("limit_reached")) {
            return Ok(Registration::LimitReached);
        }
        if refused_or_ok && (says("device_revoked") || says("revoked")) {
            return Ok(Registration::Revoked);
        }
        if answer.status == StatusCode::OK && envelope.error.is_none() {
            match envelope.status.as_deref() {
                Some("ok") => return Ok(Registration::New),
                // Older servers undo a revoke by registering; the device is registered in either case.
                Some("exists" | "restored") => return Ok(Registration::Exists),
                Some(_) | None => {}
            }
        }
        let explanation = answer.explanation();
        if explanation.is_some() || (answer.status.is_client_error() && !answer.is_passing()) {
            let error = explanation.and_then(|said| said.code.map(|code| code.to_string()).or(said.error));
            return Ok(Registration::Refused { status: answer.status.as_u16(), error });
        }
        Err(if answer.status == StatusCode::OK { answer.not_understood() } else { answer.bare_status() })
    }

    /// Denies the device from its next validation on. Returns what the authority says when the revoke is in force and
    /// not in its database yet.
    ///
    /// Fails with [`Failure::Refused`] when the authority refuses, for example with `not_found`.
    pub async fn revoke(
        &self,
        key: &OrgKey,
        device: &DeviceId,
        reason: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let body = because(json!({ "deviceId": device }), reason);
        let answer = self.post(path::REVOKE, key, &body, Repeat::Harmless, SMALL_ANSWER).await?;
        answer.accepted()?;
        Ok(answer.notice())
    }

    /// Undoes a revoke. Starts no agent.
    ///
    /// Fails with [`Failure::Refused`] when the authority refuses, for example with `not_found` or
    /// `device_limit_reached`.
    pub async fn unrevoke(&self, key: &OrgKey, device: &DeviceId, reason: Option<&str>) -> Result<(), Failure> {
        self.post(path::UNREVOKE, key, &because(json!({ "deviceId": device }), reason), Repeat::Harmless, SMALL_ANSWER)
            .await?
            .accepted()
    }

    /// Removes the device, if it is not revoked. Only our own authority checks that: for any other, check before.
    ///
    /// Fails with [`Failure::Refused`] when the authority refuses: `device_revoked`, or `not_found`.
    pub async fn remove_if_active(&self, key: &OrgKey, device: &DeviceId, reason: Option<&str>) -> Result<(), Failure> {
        let body = because(json!({ "deviceId": device, "ifActive": true }), reason);
        self.post(path::REMOVE, key, &body, Repeat::Never, SMALL_ANSWER).await?.accepted()
    }

    /// Removes the device, even a revoked one, which can then register again.
    ///
    /// Fails with [`Failure::Refused`] when the authority refuses, for example with `not_found`.
    pub async fn remove(&self, key: &OrgKey, device: &DeviceId, reason: Option<&str>) -> Result<(), Failure> {
        self.post(path::REMOVE, key, &because(json!({ "deviceId": device }), reason), Repeat::Never, SMALL_ANSWER)
            .await?
            .accepted()
    }

    /// Revokes many devices at once, at most [`machineid_protocol::api::LARGEST_BATCH`] by id, or all active ones.
    ///
    /// Fails with a [`Failure`] for the batch as a whole; the answer has the result of each id.
    pub async fn revoke_batch(
        &self,
        key: &OrgKey,
        batch: &BatchRequest,
        reason: Option<&str>,
    ) -> Result<BatchResponse, Failure> {
        self.batch(path::REVOKE_BATCH, key, batch, "all_active", reason).await
    }

    /// Unrevokes many devices at once, as long as the plan has places.
    ///
    /// Fails with a [`Failure`] for the batch as a whole; the answer has the result of each id.
    pub async fn unrevoke_batch(
        &self,
        key: &OrgKey,
        batch: &BatchRequest,
        reason: Option<&str>,
    ) -> Result<BatchResponse, Failure> {
        self.batch(path::UNREVOKE_BATCH, key, batch, "all_revoked", reason).await
    }

    /// Lists the organisation's devices.
    ///
    /// Fails with a [`Failure`]; [`Failure::Refused`] when the authority refuses.
    pub async fn list(&self, key: &OrgKey, filter: &ListFilter) -> Result<DevicePage, Failure> {
        let mut url = self.options.base_url.endpoint(path::LIST);
        if let Some(status) = filter.status {
            url.query_pairs_mut().append_pair("status", status_word(status));
        }
        if let Some(search) = &filter.search {
            url.query_pairs_mut().append_pair("q", search);
        }
        let mut list: DevicePage = self.get(url, key, LARGE_ANSWER).await?.typed()?;
        // The filters are an extension: an authority without them lists all devices.
        list.devices.retain(|device| filter.matches(&device.device_id, device.status));
        Ok(list)
    }

    /// The plan and its usage.
    ///
    /// Fails with a [`Failure`]; [`Failure::Refused`] when the authority refuses.
    pub async fn usage(&self, key: &OrgKey) -> Result<PlanUsage, Failure> {
        let answer = self.get(self.options.base_url.endpoint(path::USAGE), key, SMALL_ANSWER).await?;
        let usage = answer.typed()?;
        if usage == PlanUsage::default() { Err(answer.not_understood()) } else { Ok(usage) }
    }

    /// The address where a user can buy this plan: `pro`, `scale` or `max`.
    ///
    /// Fails with a [`Failure`]; [`Failure::Refused`] when the authority refuses.
    pub async fn checkout(&self, key: &OrgKey, plan: &str) -> Result<String, Failure> {
        let answer = self.post(path::CHECKOUT, key, &json!({ "plan": plan }), Repeat::Never, SMALL_ANSWER).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal());
        }
        let address = answer.envelope().url.ok_or_else(|| answer.not_understood())?;
        // The address is printed for a user to open, so it must be a web address.
        let fit = Url::parse(&address).is_ok_and(|url| matches!(url.scheme(), "https" | "http"))
            && address.bytes().all(|b| b.is_ascii_graphic());
        if fit { Ok(address) } else { Err(Failure::Incomplete) }
    }

    /// Creates a free organisation and returns its key, which is shown only this once.
    ///
    /// Fails with a [`Failure`]; [`Failure::Refused`] when the authority refuses.
    pub async fn org_create(&self) -> Result<OrgKey, Failure> {
        let question = Question {
            method: Method::POST,
            url: self.options.base_url.endpoint(path::ORG_CREATE),
            key: None,
            sidecar: None,
            body: Some(Bytes::from_static(b"{}")),
            repeat: Repeat::Never,
            limit: SMALL_ANSWER,
        };
        let answer = self.exchange.ask(question).await?;
        if answer.status != StatusCode::OK && answer.status != StatusCode::CREATED {
            return Err(answer.refusal());
        }
        let key = answer.envelope().org_api_key.ok_or_else(|| answer.not_understood())?;
        key.parse().map_err(|_| Failure::Incomplete)
    }

    async fn batch(
        &self,
        path: &str,
        key: &OrgKey,
        batch: &BatchRequest,
        scope: &str,
        reason: Option<&str>,
    ) -> Result<BatchResponse, Failure> {
        let body = match batch {
            BatchRequest::Ids(ids) => json!({ "deviceIds": ids }),
            BatchRequest::All => json!({ "scope": scope }),
        };
        let answer = self.post(path, key, &because(body, reason), Repeat::Harmless, LARGE_ANSWER).await?;
        let response: BatchResponse = answer.typed()?;
        if response == BatchResponse::default() {
            return Err(answer.not_understood());
        }
        Ok(BatchResponse { notice: answer.notice(), ..response })
    }

    async fn get(&self, url: Url, key: &OrgKey, limit: usize) -> Result<RawAnswer, Failure> {
        let question = Question {
            method: Method::GET,
            url,
            key: Some(key),
            sidecar: None,
            body: None,
            repeat: Repeat::Harmless,
            limit,
        };
        self.exchange.ask(question).await
    }

    async fn post<T: Serialize>(
        &self,
        path: &str,
        key: &OrgKey,
        body: &T,
        repeat: Repeat,
        limit: usize,
    ) -> Result<RawAnswer, Failure> {
        self.post_as(None, path, key, body, repeat, limit).await
    }

    /// The same request, as this sidecar.
    async fn post_as<T: Serialize>(
        &self,
        sidecar: Option<&SidecarSecret>,
        path: &str,
        key: &OrgKey,
        body: &T,
        repeat: Repeat,
        limit: usize,
    ) -> Result<RawAnswer, Failure> {
        let url = self.options.base_url.endpoint(path);
        let body = serde_json::to_vec(body).expect("ids and words always have a JSON form").into();
        let question = Question { method: Method::POST, url, key: Some(key), sidecar, body: Some(body), repeat, limit };
        self.exchange.ask(question).await
    }
}

/// Adds an operator's reason, which only our own authority uses.
fn because(mut body: serde_json::Value, reason: Option<&str>) -> serde_json::Value {
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    body
}

fn one(device: &DeviceId) -> machineid_protocol::api::DeviceRequest {
    machineid_protocol::api::DeviceRequest { device_id: device.clone() }
}

const fn status_word(status: DeviceStatus) -> &'static str {
    match status {
        DeviceStatus::Active => "active",
        DeviceStatus::Revoked => "revoked",
    }
}

impl ListFilter {
    fn matches(&self, id: &str, status: DeviceStatus) -> bool {
        self.status.is_none_or(|wanted| wanted == status) && self.search.as_ref().is_none_or(|text| id.contains(text))
    }
}

impl SetupError {
    fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unusable(Arc::new(error))
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("there is no certificate in it; it should hold one or more in PEM form"),
            Self::BadCertificate(_) => f.write_str("it holds something that is not a certificate in PEM form"),
            Self::Unusable(error) => {
                let mut deepest: &dyn std::error::Error = &**error;
                while let Some(source) = deepest.source() {
                    deepest = source;
                }
                write!(f, "cannot set up connections to the authority: {deepest}")
            }
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoCertificate => None,
            Self::BadCertificate(error) | Self::Unusable(error) => Some(&**error),
        }
    }
}

#[cfg(test)]
mod tests;
