//! One attempt at an answer: kill file, registration, validation. Everything a gate does to the outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use machineid_blocking::{Bounds, Pool};
use machineid_client::{AuthorityClient, Failure};
use machineid_clock::{self as clock, BootTime, Moment, Suspends};
use machineid_org_key::OrgKey;
use machineid_protocol::api::Registration;
use machineid_protocol::event::{AuthorityDown, AuthorityUp, Happening};
use machineid_protocol::status::AuthorityStatus;
use machineid_protocol::{Code, Decision, Denial, DeviceId};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::core::{Outcome, Registered};
use super::holds::Holds;
use super::kill_file::{KillFile, Unseen};
use super::markers::Markers;
use super::registering::Registering;
use crate::config::Live;
use crate::config::org_key::{self, KeySource};
use crate::telemetry::Journal;

/// How long the key's file may take when it is read again.
const KEY_PATIENCE: Duration = Duration::from_secs(2);
const KEY_BOUNDS: Bounds = Bounds { at_a_time: 2, most: 16 };

/// Whom to ask, and with what. A reload replaces all of it at once: a key must not go to another authority than its own.
#[derive(Debug)]
pub(crate) struct Means {
    pub(crate) client: AuthorityClient,
    pub(crate) key: OrgKey,
    pub(crate) key_source: KeySource,
    /// Of this authority.
    pub(crate) markers: Markers,
    /// A key that its file holds and this authority refuses, while this older one is accepted.
    pub(crate) refused: Option<OrgKey>,
    /// What was asked with before, until the authority has accepted this key.
    former: Mutex<Option<Arc<Means>>>,
}

impl Means {
    pub(crate) fn new(client: AuthorityClient, key: OrgKey, key_source: KeySource, markers: Markers) -> Self {
        Self { client, key, key_source, markers, refused: None, former: Mutex::default() }
    }

    /// The same authority, asked with another key.
    fn with_key(&self, key: OrgKey) -> Self {
        Self::new(self.client.clone(), key, self.key_source.clone(), self.markers.clone())
    }

    /// What to go back to should the authority refuse this key; `None` once it has accepted it.
    fn former(&self) -> Option<Arc<Means>> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_been_accepted(&self) {
        *self.former.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the device was registered since this boot, with this key, at this authority.
    pub(crate) fn has_registered(&self, device: &DeviceId) -> bool {
        self.markers.exists(device, &self.key.fingerprint())
    }
}

/// Whom all gates of the daemon ask.
#[derive(Debug)]
pub(crate) struct Authority {
    means: watch::Sender<Arc<Means>>,
    kill_file: KillFile,
    registering: Registering,
    /// For reading the key's file, and where that is: what hangs at one path takes no threads from another.
    key_reads: Mutex<(PathBuf, Pool)>,
    /// The host's device: it alone is ephemeral where `device.ephemeral` says so. Others are named by those who start
    /// agents, who may mean to use them again.
    host: DeviceId,
    live: Live,
    health: Mutex<Health>,
    /// Told whenever a gate holds something else.
    stirred: watch::Sender<()>,
    suspends: Mutex<Suspends>,
    holds: Arc<Holds>,
    journal: Arc<Journal>,
}

/// What a validation came to.
enum Answer {
    Decision(Decision),
    LimitReached,
}

#[derive(Debug, Default)]
struct Health {
    reachable: Option<bool>,
    last_answer: Option<BootTime>,
    last_error: Option<String>,
    watching: bool,
    /// When the key in use ends, as was logged.
    key_ends: Option<Timestamp>,
}

impl Authority {
    pub(crate) fn new(means: Means, host: DeviceId, live: Live, holds: Arc<Holds>, journal: Arc<Journal>) -> Self {
        Self {
            means: watch::channel(Arc::new(means)).0,
            kill_file: KillFile::new(live.clone()),
            registering: Registering::default(),
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

    /// Where gates tell what happens.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn status(&self) -> AuthorityStatus {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        AuthorityStatus {
            url: self.means().client.base_url().to_string(),
            reachable: health.reachable,
            last_answer_at: health.last_answer.map(|at| clock::wall_at(at).to_string()),
            last_error: health.last_error.clone(),
            push: health.watching,
            key_ends: health.key_ends.map(|ends| ends.to_string()),
        }
    }

    /// When the org key in use ends, when the authority said so.
    pub(crate) fn key_ends(&self) -> Option<Timestamp> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).key_ends
    }

    /// Changes whenever a gate holds something else about its device.
    pub(crate) fn stirred(&self) -> watch::Receiver<()> {
        self.stirred.subscribe()
    }

    /// A gate holds something else.
    pub(super) fn stir(&self) {
        self.stirred.send_replace(());
    }

    /// Whether the authority now tells of changes by itself.
    pub(crate) fn note_watching(&self, watching: bool) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).watching = watching;
    }

    /// Whom to ask now, and with what.
    pub(crate) fn means(&self) -> Arc<Means> {
        Arc::clone(&self.means.borrow())
    }

    /// Takes note that the machine slept before this moment, as each gate finds out by itself. Connections of before may
    /// have died without a word: from now on it is asked on new ones.
    pub(super) fn woke(&self, moment: Moment) {
        let slept = self.suspends.lock().unwrap_or_else(PoisonError::into_inner).until(moment);
        if let Some(slept) = slept {
            info!(slept_ms = slept.as_millis(), "the machine was suspended; validating again");
            self.means().client.forget_connections();
        }
    }

    /// Tells of every change.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Means>> {
        self.means.subscribe()
    }

    /// For a gate: tells when the kill file appears and disappears.
    pub(super) fn follow_kill_file(&self) -> watch::Receiver<Option<Denial>> {
        self.kill_file.follow()
    }

    /// From now on that one is asked, with that key. Every gate asks at once.
    ///
    /// A new key for the same authority is on trial: until it is accepted, the old one answers for it when it is refused.
    /// A wrong key written into the file must not stop every agent.
    pub(crate) fn replace(&self, means: Means) {
        let current = self.means();
        let elsewhere = means.client.base_url() != current.client.base_url();
        if !elsewhere && means.key != current.key {
            *means.former.lock().unwrap_or_else(PoisonError::into_inner) = Some(current);
        }
        self.means.send_replace(Arc::new(means));
        if elsewhere {
            *self.health.lock().unwrap_or_else(PoisonError::into_inner) = Health::default();
        }
    }

    /// Makes the attempt, with the means that the gate knew when it decided whether to register.
    pub(crate) async fn attempt(&self, means: &Means, device: &DeviceId, register: bool) -> (Registered, Outcome) {
        match self.denied_here(device).await {
            Ok(None) => {}
            Ok(Some(denial)) => return (Registered::NotAsked, Outcome::Decided(Decision::Deny(denial))),
            Err(unseen) => return (Registered::NotAsked, no_look(&unseen)),
        }
        let mut registered = Registered::NotAsked;
        if register {
            match self.register_once(means, device).await {
                Ok(Registration::New | Registration::Exists | Registration::Revoked) => registered = Registered::Yes,
                Ok(Registration::LimitReached) => return (Registered::NotAsked, Outcome::LimitReached),
                Ok(Registration::Refused { status, error }) => {
                    let error = error.as_deref().unwrap_or("no reason given");
                    warn!(device_id = %device, status, error, "the authority refused to register the device; retrying");
                    registered = Registered::Refused;
                }
                Err(failure) => return (Registered::NotAsked, self.no_answer(means, device, &failure)),
            }
        }
        let outcome = match self.validate(means, device).await {
            Ok(Answer::Decision(decision)) => {
                self.note_answer(means);
                match (self.denied_here(device).await, decision) {
                    // The kill file may have appeared while the authority was asked.
                    (Ok(Some(denial)), _) => Outcome::Decided(Decision::Deny(denial)),
                    // A deny needs no second one.
                    (Ok(None), decision) | (Err(_), decision @ Decision::Deny(_)) => Outcome::Decided(decision),
                    (Err(unseen), Decision::Allow { .. }) => no_look(&unseen),
                }
            }
            Ok(Answer::LimitReached) => Outcome::LimitReached,
            Err(failure) => self.no_answer(means, device, &failure),
        };
        (registered, outcome)
    }

    /// Forgets the device at the authority, if it is not revoked there. An authority that is not ours does not look at
    /// that, so the caller must know better.
    pub(crate) async fn remove_if_active(&self, device: &DeviceId) -> Result<(), String> {
        let means = self.means();
        let began = BootTime::now();
        let removed = means.client.remove_if_active(&means.key, device, None).await;
        self.count("remove", began, removed.as_ref().map(|()| "ok"));
        removed.map_err(|error| error.to_string())?;
        means.markers.forget(device, &means.key.fingerprint()).await;
        Ok(())
    }

    /// Registers, unless an attempt beside this one just has.
    async fn register_once(&self, means: &Means, device: &DeviceId) -> Result<Registration, Failure> {
        let _alone = self.registering.alone(device).await;
        if means.has_registered(device) {
            return Ok(Registration::Exists);
        }
        self.register(means, device).await
    }

    async fn register(&self, means: &Means, device: &DeviceId) -> Result<Registration, Failure> {
        let began = BootTime::now();
        let ephemeral = *device == self.host && self.live.look(|settings| settings.device.ephemeral);
        let registration = means.client.register_as(&means.key, device, ephemeral.then_some(true)).await;
        self.count("register", began, registration.as_ref().map(registration_word));
        let registration = registration?;
        self.note_answer(means);
        match &registration {
            Registration::New | Registration::Exists | Registration::Revoked => {
                info!(device_id = %device, new = registration == Registration::New, "registered");
                if let Err(error) = means.markers.put(device, &means.key.fingerprint()).await {
                    warn!(device_id = %device, %error, "cannot record the registration; it will be repeated at the \
                                                        next start");
                }
            }
            Registration::LimitReached | Registration::Refused { .. } => {}
        }
        Ok(registration)
    }

    /// Validates; when the authority refuses the key, looks for a new one and, if there is one, asks again before the deny
    /// counts: nothing must stop for a rotation. A key of another organisation registers first.
    async fn validate(&self, means: &Means, device: &DeviceId) -> Result<Answer, Failure> {
        let decision = self.ask(means, device).await?;
        if !refuses_key(&decision) {
            means.has_been_accepted();
            return Ok(Answer::Decision(decision));
        }
        let Some(fresh) = self.fresher_than(means).await else {
            return self.validate_with_former(means, device, decision).await.map(Answer::Decision);
        };
        info!(device_id = %device, "the authority refused the org key; retrying with the new key from its source");
        if self.register_once(&fresh, device).await? == Registration::LimitReached {
            return Ok(Answer::LimitReached);
        }
        self.ask(&fresh, device).await.map(Answer::Decision)
    }

    async fn ask(&self, means: &Means, device: &DeviceId) -> Result<Decision, Failure> {
        let began = BootTime::now();
        let decision = means.client.validate(&means.key, device).await;
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

    /// The authority refuses a key that is on trial: the one before it answers, and stays.
    async fn validate_with_former(
        &self,
        means: &Means,
        device: &DeviceId,
        refusal: Decision,
    ) -> Result<Decision, Failure> {
        let Some(former) = means.former() else { return Ok(refusal) };
        let decision = self.ask(&former, device).await?;
        if refuses_key(&decision) {
            return Ok(refusal);
        }
        let back = Means { refused: Some(means.key.clone()), ..former.with_key(former.key.clone()) };
        let mut back = Some(Arc::new(back));
        let went_back = self.means.send_if_modified(|current| {
            // Not when a reload, or another gate, came first.
            let unchanged = current.key == means.key && current.client.base_url() == means.client.base_url();
            if let Some(back) = back.take_if(|_| unchanged) {
                *current = back;
            }
            unchanged
        });
        if went_back {
            warn!(
                key_source = %means.key_source,
                "the authority refuses the new org key; the old key stays in use. Put the right key in its place"
            );
        }
        Ok(decision)
    }

    /// Means with another key than the refused one: those in force by now, or with what the key's file holds by now, which
    /// is then in force. A rotation puts the new key into the file, and a watch may be late or blind.
    async fn fresher_than(&self, refused: &Means) -> Option<Arc<Means>> {
        let current = self.means();
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
                self.means.send_if_modified(|means| {
                    // Not when a reload came in between: it knows better.
                    let unchanged = Arc::ptr_eq(means, &current);
                    if unchanged {
                        *means = Arc::new(current.with_key(key));
                    }
                    unchanged
                });
                Some(self.means())
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

    /// A deny that needs no answer of the authority: the kill file, or an operator's hold.
    ///
    /// Fails when the kill file cannot be looked for, and the device is not held.
    async fn denied_here(&self, device: &DeviceId) -> Result<Option<Denial>, Unseen> {
        let held = || self.holds.denial(device);
        match self.look_for_kill_file().await {
            Ok(killed) => Ok(killed.or_else(held)),
            Err(unseen) => held().map_or(Err(unseen), |denial| Ok(Some(denial))),
        }
    }

    /// Looks for the kill file, and tells every gate when it has appeared or disappeared. Its deny, when it is there.
    ///
    /// Fails when the look does not return within its time.
    pub(crate) async fn look_for_kill_file(&self) -> Result<Option<Denial>, Unseen> {
        self.kill_file.look().await
    }

    /// Whether what is learnt with these means is about the authority that is asked now.
    fn is_about_ours(&self, means: &Means) -> bool {
        means.client.base_url() == self.means().client.base_url()
    }

    fn note_answer(&self, means: &Means) {
        if !self.is_about_ours(means) {
            return;
        }
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let before = health.reachable;
        let (watching, key_ended) = (health.watching, health.key_ends);
        let in_force = self.means();
        let key_ends = in_force.client.key_ends(&in_force.key);
        let last_answer = Some(BootTime::now());
        *health = Health { reachable: Some(true), last_answer, last_error: None, watching, key_ends };
        drop(health);
        match key_ends {
            Some(ends) if key_ended != Some(ends) => warn!(
                key_source = %in_force.key_source,
                ends = %ends,
                "the organisation has a new org key, and the one in use expires: put the new key in its place before \
                 that"
            ),
            None if key_ended.is_some() => {
                info!(key_source = %in_force.key_source, "the org key in use no longer expires");
            }
            Some(_) | None => {}
        }
        if before == Some(false) {
            info!(authority = %means.client.base_url(), "the authority answers again");
        }
        if before != Some(true) {
            self.journal.tell(Happening::AuthorityUp(AuthorityUp { url: means.client.base_url().to_string() }));
        }
    }

    fn no_answer(&self, means: &Means, device: &DeviceId, failure: &Failure) -> Outcome {
        let cause = failure.to_string();
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let before = health.reachable.replace(false);
        health.last_error = Some(cause.clone());
        drop(health);
        if before == Some(false) {
            debug!(device_id = %device, %cause, "still no answer");
        } else {
            warn!(device_id = %device, authority = %means.client.base_url(), %cause, "no usable answer from the authority");
            let url = means.client.base_url().to_string();
            self.journal.tell(Happening::AuthorityDown(AuthorityDown { url, reason: cause.clone() }));
        }
        Outcome::NoAnswer { code: failure.code(), cause: Arc::from(cause), retry_after: failure.retry_after() }
    }
}

fn refuses_key(decision: &Decision) -> bool {
    matches!(decision, Decision::Deny(denial) if denial.code == Code::InvalidOrgKey)
}

/// What an attempt comes to that cannot look for the kill file: nobody knows whether this host is to be stopped.
fn no_look(unseen: &Unseen) -> Outcome {
    let (code, cause) = (Code::AuthorityUnreachable, Arc::from(unseen.to_string()));
    Outcome::NoAnswer { code, cause, retry_after: None }
}

const fn registration_word(registration: &Registration) -> &'static str {
    match registration {
        Registration::New | Registration::Exists | Registration::Revoked => "ok",
        Registration::LimitReached => "limit_reached",
        Registration::Refused { .. } => "refused",
    }
}
