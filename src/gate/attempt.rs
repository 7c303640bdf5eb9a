//! One attempt at an answer: kill file, registration, validation. Everything a gate does to the outside.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError, RwLock};

use tracing::{debug, info, warn};

use super::core::{Outcome, Registered};
use super::markers::Markers;
use crate::client::{AuthorityClient, Failure};
use crate::clock::{self, BootTime};
use crate::config::org_key::{self, KeySource};
use crate::protocol::api::Registration;
use crate::protocol::status::AuthorityStatus;
use crate::protocol::{Code, Decision, Denial, DeviceId, OrgKey};

/// Whom all gates of the daemon ask, and with what.
#[derive(Debug)]
pub(crate) struct Authority {
    client: AuthorityClient,
    key: RwLock<OrgKey>,
    key_source: KeySource,
    kill_file: Option<PathBuf>,
    markers: Markers,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    reachable: Option<bool>,
    last_answer: Option<BootTime>,
    last_error: Option<String>,
}

impl Authority {
    pub(crate) fn new(
        client: AuthorityClient,
        key: OrgKey,
        key_source: KeySource,
        kill_file: Option<PathBuf>,
        markers: Markers,
    ) -> Self {
        Self { client, key: RwLock::new(key), key_source, kill_file, markers, health: Mutex::default() }
    }

    pub(crate) fn status(&self) -> AuthorityStatus {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        AuthorityStatus {
            url: self.client.base_url().to_string(),
            reachable: health.reachable,
            last_answer_at: health.last_answer.map(|at| clock::wall_at(at).to_string()),
            last_error: health.last_error.clone(),
        }
    }

    pub(crate) fn key_source(&self) -> &KeySource {
        &self.key_source
    }

    /// Whether the device was registered since this boot, with this key, at this authority.
    pub(crate) fn is_registered(&self, device: &DeviceId) -> bool {
        self.markers.exists(device, &self.key().fingerprint())
    }

    /// Makes the attempt.
    pub(crate) async fn attempt(&self, device: &DeviceId, register: bool) -> (Registered, Outcome) {
        if let Some(denial) = self.killed() {
            return (Registered::NotAsked, Outcome::Decided(Decision::Deny(denial)));
        }
        let mut registered = Registered::NotAsked;
        if register {
            match self.register(device).await {
                Ok(Registration::New | Registration::Exists | Registration::Revoked) => registered = Registered::Yes,
                Ok(Registration::LimitReached) => return (Registered::NotAsked, Outcome::LimitReached),
                Ok(Registration::Refused { status, error }) => {
                    let error = error.as_deref().unwrap_or("no reason given");
                    warn!(device_id = %device, status, error, "the authority refused to register the device; asking on");
                    registered = Registered::Refused;
                }
                Err(failure) => return (Registered::NotAsked, self.no_answer(device, &failure)),
            }
        }
        let outcome = match self.validate(device).await {
            Ok(decision) => {
                self.note_answer();
                // The kill file may have appeared while the authority was asked.
                Outcome::Decided(self.killed().map_or(decision, Decision::Deny))
            }
            Err(failure) => self.no_answer(device, &failure),
        };
        (registered, outcome)
    }

    /// Forgets the device at the authority.
    pub(crate) async fn remove(&self, device: &DeviceId) -> Result<(), String> {
        let key = self.key();
        self.client.remove(&key, device).await.map_err(|error| error.to_string())?;
        self.markers.forget(device, &key.fingerprint());
        Ok(())
    }

    async fn register(&self, device: &DeviceId) -> Result<Registration, Failure> {
        let key = self.key();
        let registration = self.client.register(&key, device).await?;
        self.note_answer();
        match &registration {
            Registration::New | Registration::Exists | Registration::Revoked => {
                info!(device_id = %device, new = registration == Registration::New, "registered");
                if let Err(error) = self.markers.put(device, &key.fingerprint()) {
                    warn!(device_id = %device, %error, "cannot note the registration: it will be repeated at the next start");
                }
            }
            Registration::LimitReached | Registration::Refused { .. } => {}
        }
        Ok(registration)
    }

    /// Validates; when the authority refuses the key, reads the key file once more and, if it changed, asks again
    /// before the deny counts: a rotation puts the new key into the file, and nothing must stop for that.
    async fn validate(&self, device: &DeviceId) -> Result<Decision, Failure> {
        let key = self.key();
        let decision = self.client.validate(&key, device).await?;
        match &decision {
            Decision::Deny(denial) if denial.code == Code::InvalidOrgKey => {
                let Some(fresh) = self.reread_key(&key) else { return Ok(decision) };
                info!(device_id = %device, "the authority refused the org key, and its file holds another one: asking again");
                self.client.validate(&fresh, device).await
            }
            Decision::Deny(_) | Decision::Allow { .. } => Ok(decision),
        }
    }

    fn key(&self) -> OrgKey {
        self.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key in its file, when it is another one than `refused`.
    fn reread_key(&self, refused: &OrgKey) -> Option<OrgKey> {
        let KeySource::File { path, origin, mode_is_the_platforms } = &self.key_source else { return None };
        match org_key::read_file(path, origin, *mode_is_the_platforms) {
            Ok(fresh) if fresh != *refused => {
                *self.key.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
                Some(fresh)
            }
            Ok(_) => None,
            Err(error) => {
                warn!(%error, "cannot read the org key again");
                None
            }
        }
    }

    /// The deny of the kill file. Only "no such file" is absence: whatever else goes wrong counts as presence.
    fn killed(&self) -> Option<Denial> {
        let path = self.kill_file.as_ref()?;
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(_) => Some(Denial::local(Code::LocalKill, format!("the kill file {} exists", path.display()))),
            Err(error) => Some(Denial::local(
                Code::LocalKill,
                format!("the kill file {} cannot be looked at ({error}), which counts as existing", path.display()),
            )),
        }
    }

    fn note_answer(&self) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if health.reachable == Some(false) {
            info!(authority = %self.client.base_url(), "the authority answers again");
        }
        *health = Health { reachable: Some(true), last_answer: Some(BootTime::now()), last_error: None };
    }

    fn no_answer(&self, device: &DeviceId, failure: &Failure) -> Outcome {
        let cause = failure.to_string();
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if health.reachable == Some(false) {
            debug!(device_id = %device, %cause, "still no answer");
        } else {
            warn!(device_id = %device, authority = %self.client.base_url(), %cause, "no usable answer from the authority");
        }
        health.reachable = Some(false);
        health.last_error = Some(cause.clone());
        Outcome::NoAnswer { cause: Arc::from(cause), retry_after: failure.retry_after() }
    }
}
