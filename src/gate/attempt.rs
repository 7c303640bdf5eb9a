//! One attempt at an answer: kill file, registration, validation. This is all I/O of a gate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machineid_blocking::{Bounds, Pool};
use machineid_client::{Failure, KeyFacts};
use machineid_clock::{self as clock, BootTime, Moment, Suspends};
use machineid_protocol::api::Registration;
use machineid_protocol::event::{AuthorityDown, AuthorityUp, Happening};
use machineid_protocol::status::AuthorityStatus;
use machineid_protocol::{Code, Decision, Denial, DeviceId, KeyRole};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::core::{AttemptOutcome, Registered};
use super::holds::Holds;
use super::keyed_client::KeyedClient;
use super::kill_file::{KillFile, Unseen};
use super::registering::Registering;
use super::registration_budget::RegistrationBudget;
use crate::config::Live;
use crate::config::org_key::{self, KeySource};
use crate::telemetry::Journal;

/// Time limit for reading the key file again.
const KEY_PATIENCE: Duration = Duration::from_secs(2);
const KEY_BOUNDS: Bounds = Bounds { at_a_time: 2, most: 16 };

/// The link to the authority that all gates of the daemon share: the client in use, the authority's reachability, the kill
/// file and the holds.
#[derive(Debug)]
pub(crate) struct AuthorityLink {
    keyed: watch::Sender<Arc<KeyedClient>>,
    kill_file: KillFile,
    registering: Registering,
    budget: Mutex<RegistrationBudget>,
    /// Threads for reading the key file, and the file's path: a read that hangs at one path takes no threads from another
    /// path.
    key_reads: Mutex<(PathBuf, Pool)>,
    /// The host's device. Only this device is registered as ephemeral when `device.ephemeral` is set: other devices are named
    /// by the users who start agents, and may be used again.
    host: DeviceId,
    live: Live,
    health: Mutex<Health>,
    /// Notified whenever a gate's standing changes.
    stirred: watch::Sender<()>,
    suspends: Mutex<Suspends>,
    holds: Arc<Holds>,
    journal: Arc<Journal>,
}

/// The result of a validation.
enum Answer {
    Decision(Decision),
    LimitReached,
}

#[derive(Debug, Default)]
struct Health {
    reachable: Option<bool>,
    last_answer: Option<BootTime>,
    last_error: Option<String>,
    /// The kind of the last failure.
    last_kind: Option<&'static str>,
    watching: bool,
    /// What is known of the key in use, as last logged.
    key: KeyFacts,
}

/// Logs what has changed about the key in use.
fn tell_of_key(in_force: &KeyedClient, before: KeyFacts, now: KeyFacts) {
    let key_source = &in_force.key_source;
    match now.ends {
        Some(ends) if before.ends != Some(ends) => {
            warn!(%key_source, %ends, "the org key in use expires: put the new key in its place before that");
        }
        None if before.ends.is_some() => info!(%key_source, "the org key in use no longer expires"),
        Some(_) | None => {}
    }
    match now.role {
        Some(KeyRole::Host) if before.role.is_some() => info!(%key_source, "the org key in use has the role host now"),
        Some(role @ (KeyRole::Stop | KeyRole::Read)) if before.role != Some(role) => {
            warn!(
                %key_source,
                %role,
                "the org key in use may not validate, so this host is denied: give it a key of the role host \
                 (machineid key create --role host)"
            );
        }
        Some(role @ (KeyRole::Operate | KeyRole::Admin)) if before.role != Some(role) => {
            warn!(
                %key_source,
                %role,
                "the org key in use may do more than a host needs: a process that reads it could lift this host's own \
                 revoke; give this host a key of the role host (machineid key create --role host)"
            );
        }
        Some(_) | None => {}
    }
}

impl AuthorityLink {
    pub(crate) fn new(
        keyed: KeyedClient,
        host: DeviceId,
        live: Live,
        holds: Arc<Holds>,
        journal: Arc<Journal>,
    ) -> Self {
        Self {
            keyed: watch::channel(Arc::new(keyed)).0,
            kill_file: KillFile::new(live.clone()),
            registering: Registering::default(),
            budget: Mutex::default(),
            key_reads: Mutex::new((PathBuf::new(), Pool::new("key-file", KEY_BOUNDS))),
            host,
            live,
            health: Mutex::default(),
            suspends: Mutex::new(Suspends::from(Moment::now())),
            holds,
            journal,
            stirred: watch::channel(()).0,
        }
    }

    /// The devices that are denied on this host until released.
    pub(crate) fn holds(&self) -> &Arc<Holds> {
        &self.holds
    }

    /// The journal for the events of the gates.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn status(&self) -> AuthorityStatus {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        AuthorityStatus {
            url: self.keyed_client().client.base_url().to_string(),
            reachable: health.reachable,
            last_answer_at: health.last_answer.map(|at| clock::wall_at(at).to_string()),
            last_error: health.last_error.clone(),
            push: health.watching,
            key_ends: health.key.ends.map(|ends| ends.to_string()),
            key_role: health.key.role,
        }
    }

    /// What the authority has told of the org key in use.
    pub(crate) fn key_facts(&self) -> KeyFacts {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).key
    }

    /// Notifies whenever a gate's standing changes.
    pub(crate) fn stirred(&self) -> watch::Receiver<()> {
        self.stirred.subscribe()
    }

    /// Reports a changed standing of a gate.
    pub(super) fn stir(&self) {
        self.stirred.send_replace(());
    }

    /// Notes whether the push connection is open.
    pub(crate) fn note_watching(&self, watching: bool) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).watching = watching;
    }

    /// The client and key to use now.
    pub(crate) fn keyed_client(&self) -> Arc<KeyedClient> {
        Arc::clone(&self.keyed.borrow())
    }

    /// Handles a suspend that ended before this moment, which each gate detects by itself. Connections from before the
    /// suspend may be dead without notice, so new ones are used from now on.
    pub(super) fn woke(&self, moment: Moment) {
        let slept = self.suspends.lock().unwrap_or_else(PoisonError::into_inner).until(moment);
        if let Some(slept) = slept {
            info!(slept_ms = slept.as_millis(), "the machine was suspended; validating again");
            self.keyed_client().client.forget_connections();
        }
    }

    /// Notifies of every change of client or key.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<KeyedClient>> {
        self.keyed.subscribe()
    }

    /// Notifies a gate when the kill file appears and disappears.
    pub(super) fn follow_kill_file(&self) -> watch::Receiver<Option<Denial>> {
        self.kill_file.follow()
    }

    /// Puts another client in use. Every gate validates with it at once.
    ///
    /// A new key for the same authority is on trial: until the authority has accepted it, the previous key is used when the
    /// new one is refused. A wrong key in the key file must not stop every agent.
    pub(crate) fn replace(&self, keyed: KeyedClient) {
        let current = self.keyed_client();
        let elsewhere = keyed.client.base_url() != current.client.base_url();
        if !elsewhere && keyed.key != current.key {
            keyed.put_on_trial(current);
        }
        self.keyed.send_replace(Arc::new(keyed));
        if elsewhere {
            *self.health.lock().unwrap_or_else(PoisonError::into_inner) = Health::default();
        }
    }

    /// Makes the attempt, with the client that the gate knew when it decided whether to register.
    pub(crate) async fn attempt(
        &self,
        keyed: &KeyedClient,
        device: &DeviceId,
        register: bool,
    ) -> (Registered, AttemptOutcome) {
        match self.denied_here(device).await {
            Ok(None) => {}
            Ok(Some(denial)) => return (Registered::NotAsked, AttemptOutcome::Decided(Decision::Deny(denial))),
            Err(unseen) => return (Registered::NotAsked, no_look(&unseen)),
        }
        let mut registered = Registered::NotAsked;
        if register {
            match self.register_once(keyed, device).await {
                Ok(Registration::New | Registration::Exists | Registration::Revoked) => registered = Registered::Yes,
                Ok(Registration::LimitReached) => return (Registered::NotAsked, AttemptOutcome::LimitReached),
                Ok(Registration::Refused { status, error }) => {
                    let error = error.as_deref().unwrap_or("no reason given");
                    warn!(device_id = %device, status, error, "the authority refused to register the device; retrying");
                    registered = Registered::Refused;
                }
                Err(failure) => return (Registered::NotAsked, self.no_answer(keyed, device, &failure)),
            }
        }
        let outcome = match self.validate(keyed, device).await {
            Ok(Answer::Decision(decision)) => {
                self.note_answer(keyed);
                match (self.denied_here(device).await, decision) {
                    // The kill file may have appeared during the request.
                    (Ok(Some(denial)), _) => AttemptOutcome::Decided(Decision::Deny(denial)),
                    // A deny needs no confirmation by the kill file.
                    (Ok(None), decision) | (Err(_), decision @ Decision::Deny(_)) => AttemptOutcome::Decided(decision),
                    (Err(unseen), Decision::Allow { .. }) => no_look(&unseen),
                }
            }
            Ok(Answer::LimitReached) => AttemptOutcome::LimitReached,
            Err(failure) => self.no_answer(keyed, device, &failure),
        };
        (registered, outcome)
    }

    /// Removes the device from the authority, unless it is revoked there. An authority other than machineid-authority does
    /// not check that, so the caller must.
    pub(crate) async fn remove_if_active(&self, device: &DeviceId) -> Result<(), Failure> {
        let keyed = self.keyed_client();
        let began = BootTime::now();
        let removed = keyed.client.remove_if_active(&keyed.key, device, None).await;
        self.count("remove", began, removed.as_ref().map(|()| "ok"));
        removed?;
        keyed.markers.forget(device, &keyed.key.fingerprint()).await;
        Ok(())
    }

    /// Whether a user's agent may make this device known to the authority; if not, after what time it may. A device that is
    /// registered costs nothing.
    pub(crate) fn pay_for(&self, uid: u32, device: &DeviceId) -> Result<(), Duration> {
        if *device == self.host || self.keyed_client().has_registered(device) {
            return Ok(());
        }
        let per_hour = self.live.look(|settings| settings.device.new_per_hour);
        self.budget().pay(BootTime::now(), uid, device, per_hour)
    }

    fn budget(&self) -> MutexGuard<'_, RegistrationBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the device, unless a concurrent attempt has just done so.
    async fn register_once(&self, keyed: &KeyedClient, device: &DeviceId) -> Result<Registration, Failure> {
        let _alone = self.registering.alone(device).await;
        if keyed.has_registered(device) {
            return Ok(Registration::Exists);
        }
        self.register(keyed, device).await
    }

    async fn register(&self, keyed: &KeyedClient, device: &DeviceId) -> Result<Registration, Failure> {
        let began = BootTime::now();
        let ephemeral = *device == self.host && self.live.look(|settings| settings.device.ephemeral);
        let registration = keyed.client.register_as(&keyed.key, device, ephemeral.then_some(true)).await;
        self.count("register", began, registration.as_ref().map(registration_word));
        let registration = registration?;
        self.note_answer(keyed);
        match &registration {
            Registration::New | Registration::Exists | Registration::Revoked => {
                let was_new = registration == Registration::New;
                info!(device_id = %device, new = was_new, "registered");
                self.budget().registered(BootTime::now(), device, was_new);
                if let Err(error) = keyed.markers.put(device, &keyed.key.fingerprint()).await {
                    warn!(device_id = %device, %error, "cannot record the registration; it will be repeated at the \
                                                        next start");
                }
            }
            Registration::LimitReached | Registration::Refused { .. } => {}
        }
        Ok(registration)
    }

    /// Validates. When the authority refuses the key, looks for a new key and, if there is one, asks again before the deny
    /// counts: a key rotation must not stop agents. With the key of another organisation the device registers first.
    async fn validate(&self, keyed: &KeyedClient, device: &DeviceId) -> Result<Answer, Failure> {
        let decision = self.ask(keyed, device).await?;
        if !refuses_key(&decision) {
            keyed.has_been_accepted();
            return Ok(Answer::Decision(decision));
        }
        let Some(fresh) = self.fresher_than(keyed).await else {
            return self.validate_with_former(keyed, device, decision).await.map(Answer::Decision);
        };
        info!(device_id = %device, "the authority refused the org key; retrying with the new key from its source");
        if self.register_once(&fresh, device).await? == Registration::LimitReached {
            return Ok(Answer::LimitReached);
        }
        self.ask(&fresh, device).await.map(Answer::Decision)
    }

    async fn ask(&self, keyed: &KeyedClient, device: &DeviceId) -> Result<Decision, Failure> {
        let began = BootTime::now();
        let decision = keyed.client.validate(&keyed.key, device).await;
        let word = |decision: &Decision| match decision {
            Decision::Allow { .. } => "allow",
            Decision::Deny(_) => "deny",
        };
        self.count("validate", began, decision.as_ref().map(word));
        decision
    }

    fn count(&self, endpoint: &'static str, began: BootTime, outcome: Result<&'static str, &Failure>) {
        let outcome = outcome.unwrap_or_else(Failure::kind);
        self.journal.metrics.asked(endpoint, outcome, BootTime::now().saturating_since(began));
    }

    /// Validates with the previous key after the authority has refused the key on trial. The previous key then stays in use.
    async fn validate_with_former(
        &self,
        keyed: &KeyedClient,
        device: &DeviceId,
        refusal: Decision,
    ) -> Result<Decision, Failure> {
        let Some(former) = keyed.former() else { return Ok(refusal) };
        let decision = self.ask(&former, device).await?;
        if refuses_key(&decision) {
            return Ok(refusal);
        }
        let back = former.after_refusal_of(keyed.key.clone());
        let mut back = Some(Arc::new(back));
        let went_back = self.keyed.send_if_modified(|current| {
            // Not if a reload or another gate has replaced the client meanwhile.
            let unchanged = current.key == keyed.key && current.client.base_url() == keyed.client.base_url();
            if let Some(back) = back.take_if(|_| unchanged) {
                *current = back;
            }
            unchanged
        });
        if went_back {
            warn!(
                key_source = %keyed.key_source,
                "the authority refuses the new org key; the old key stays in use. Put the right key in its place"
            );
        }
        Ok(decision)
    }

    /// A client with a key other than the refused one: the client in use by now, or one with the key that the key file
    /// contains by now, which is then put in use. A rotation puts the new key into the file, and the watch may be late or
    /// blind.
    async fn fresher_than(&self, refused: &KeyedClient) -> Option<Arc<KeyedClient>> {
        let current = self.keyed_client();
        if current.key != refused.key {
            return Some(current);
        }
        let KeySource::File { path, origin, mode_is_the_platforms } = current.key_source.clone() else { return None };
        let pool = self.key_reads_at(&path);
        let read = move || org_key::read_file(&path, &origin, mode_is_the_platforms);
        let read = match pool.call_within(KEY_PATIENCE, read).await {
            Ok(read) => read,
            Err(why) => {
                warn!(key_source = %current.key_source, %why, "cannot read the org key again");
                return None;
            }
        };
        match read {
            Ok(key) if key != refused.key => {
                self.keyed.send_if_modified(|keyed| {
                    // Not if a reload has replaced the client meanwhile: it has newer information.
                    let unchanged = Arc::ptr_eq(keyed, &current);
                    if unchanged {
                        *keyed = Arc::new(current.with_key(key));
                    }
                    unchanged
                });
                Some(self.keyed_client())
            }
            Ok(_) => None,
            Err(error) => {
                warn!(%error, "cannot read the org key again");
                None
            }
        }
    }

    fn key_reads_at(&self, path: &Path) -> Pool {
        let mut reads = self.key_reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.0 != path {
            *reads = (path.to_owned(), Pool::new("key-file", KEY_BOUNDS));
        }
        reads.1.clone()
    }

    /// A deny of this host that needs no answer from the authority: the kill file, or an operator's hold.
    ///
    /// Fails when the kill file cannot be examined and the device is not held.
    async fn denied_here(&self, device: &DeviceId) -> Result<Option<Denial>, Unseen> {
        let held = || self.holds.denial(device);
        match self.look_for_kill_file().await {
            Ok(killed) => Ok(killed.or_else(held)),
            Err(unseen) => held().map_or(Err(unseen), |denial| Ok(Some(denial))),
        }
    }

    /// Looks for the kill file, and notifies every gate when it has appeared or disappeared. Returns its deny if it exists.
    ///
    /// Fails when the look does not return within its time.
    pub(crate) async fn look_for_kill_file(&self) -> Result<Option<Denial>, Unseen> {
        self.kill_file.look().await
    }

    /// Whether a result of this client concerns the authority now in use.
    fn is_about_ours(&self, keyed: &KeyedClient) -> bool {
        keyed.client.base_url() == self.keyed_client().client.base_url()
    }

    fn note_answer(&self, keyed: &KeyedClient) {
        if !self.is_about_ours(keyed) {
            return;
        }
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let before = health.reachable;
        let (watching, known) = (health.watching, health.key);
        let in_force = self.keyed_client();
        let key = in_force.client.key_facts(&in_force.key);
        let last_answer = Some(BootTime::now());
        *health = Health { reachable: Some(true), last_answer, last_error: None, last_kind: None, watching, key };
        drop(health);
        if known != key {
            tell_of_key(&in_force, known, key);
        }
        if before == Some(false) {
            info!(authority = %keyed.client.base_url(), "the authority answers again");
        }
        if before != Some(true) {
            self.journal.tell(Happening::AuthorityUp(AuthorityUp { url: keyed.client.base_url().to_string() }));
        }
    }

    fn no_answer(&self, keyed: &KeyedClient, device: &DeviceId, failure: &Failure) -> AttemptOutcome {
        let cause = failure.to_string();
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let before = health.reachable.replace(false);
        health.last_error = Some(cause.clone());
        let kind_before = health.last_kind.replace(failure.kind());
        drop(health);
        // That another program has taken the place of an authority that was stopped before is news.
        let taken = matches!(failure, Failure::ForeignListener(_)) && kind_before != Some(failure.kind());
        if before == Some(false) && !taken {
            debug!(device_id = %device, %cause, "still no answer");
        } else {
            warn!(device_id = %device, authority = %keyed.client.base_url(), %cause, "no usable answer from the authority");
            let url = keyed.client.base_url().to_string();
            self.journal.tell(Happening::AuthorityDown(AuthorityDown { url, reason: cause.clone() }));
        }
        AttemptOutcome::NoAnswer { code: failure.code(), cause: Arc::from(cause), retry_after: failure.retry_after() }
    }
}

fn refuses_key(decision: &Decision) -> bool {
    matches!(decision, Decision::Deny(denial) if denial.code == Code::InvalidOrgKey)
}

/// The outcome of an attempt that cannot examine the kill file: it is unknown whether this host must stop.
fn no_look(unseen: &Unseen) -> AttemptOutcome {
    let (code, cause) = (Code::AuthorityUnreachable, Arc::from(unseen.to_string()));
    AttemptOutcome::NoAnswer { code, cause, retry_after: None }
}

const fn registration_word(registration: &Registration) -> &'static str {
    match registration {
        Registration::New | Registration::Exists | Registration::Revoked => "ok",
        Registration::LimitReached => "limit_reached",
        Registration::Refused { .. } => "refused",
    }
}
