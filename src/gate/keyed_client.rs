//! The org key in use, with the client that sends it.

use std::sync::{Arc, Mutex, PoisonError};

use machineid_client::AuthorityClient;
use machineid_org_key::OrgKey;
use machineid_protocol::DeviceId;

use super::markers::Markers;
use crate::config::org_key::KeySource;

/// A client of the authority with the org key to ask it with. A reload replaces both at once: a key must only be sent to the
/// authority that it belongs to.
#[derive(Debug)]
pub(crate) struct KeyedClient {
    pub(crate) client: AuthorityClient,
    pub(crate) key: OrgKey,
    pub(crate) key_source: KeySource,
    /// The registrations at this authority.
    pub(crate) markers: Markers,
    /// The newer key in the key file, when the authority refuses it and accepts `key`, the older one.
    pub(crate) refused: Option<OrgKey>,
    /// The client and key used before this one, until the authority has accepted `key`.
    former: Mutex<Option<Arc<KeyedClient>>>,
}

impl KeyedClient {
    pub(crate) fn new(client: AuthorityClient, key: OrgKey, key_source: KeySource, markers: Markers) -> Self {
        Self { client, key, key_source, markers, refused: None, former: Mutex::default() }
    }

    /// The client of the same authority with another key.
    pub(super) fn with_key(&self, key: OrgKey) -> Self {
        Self::new(self.client.clone(), key, self.key_source.clone(), self.markers.clone())
    }

    /// The client and key to return to if the authority refuses `key`; `None` once it has accepted `key`.
    pub(super) fn former(&self) -> Option<Arc<KeyedClient>> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the trial of this key: the authority has accepted it.
    pub(super) fn has_been_accepted(&self) {
        *self.former.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Puts this key on trial: `former` stays available until the authority has accepted this one.
    pub(super) fn put_on_trial(&self, former: Arc<KeyedClient>) {
        *self.former.lock().unwrap_or_else(PoisonError::into_inner) = Some(former);
    }

    /// The same client and key, with the note that the authority refuses this newer key.
    pub(super) fn after_refusal_of(&self, newer: OrgKey) -> Self {
        Self { refused: Some(newer), ..self.with_key(self.key.clone()) }
    }

    /// Whether the device was registered since this boot, with this key, at this authority.
    pub(crate) fn has_registered(&self, device: &DeviceId) -> bool {
        self.markers.exists(device, &self.key.fingerprint())
    }
}
