//! Keys with roles, on the admin socket.

use std::fmt;
use std::time::Duration;

use machineid_protocol::{DevicePattern, KeyRole};
use serde::{Deserialize, Serialize};

use super::AdminReply;
use crate::audit::Call;
use crate::org::{KeyName, OrgId};
use crate::role_keys::{self, KeyAuthor, KeyError, KeyReport, MadeKey, WantedKey};
use crate::store::{Store, WhichKey};
use crate::unwritten::InForce;

/// What an operator asks about an organisation's keys with roles. A key is named by its fingerprint or its name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(crate) enum KeyRequest {
    Create { role: KeyRole, devices: Option<DevicePattern>, name: Option<KeyName>, expires_seconds: Option<u64> },
    List,
    Revoke { key: WhichKey },
    Rotate { key: WhichKey, overlap_seconds: u64 },
}

/// A key with a role, and its text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShownKey {
    pub(crate) org_id: OrgId,
    pub(crate) org_api_key: String,
    pub(crate) key: KeyReport,
}

impl ShownKey {
    fn reply(org: OrgId, made: MadeKey) -> AdminReply {
        AdminReply::RoleKey(Self { org_id: org, org_api_key: made.key.expose().to_owned(), key: made.report })
    }
}

impl fmt::Debug for ShownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShownKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Does what was asked for. That the request itself is wrong is a reply.
pub(super) async fn perform(
    store: &Store,
    org: OrgId,
    request: KeyRequest,
    call: &Call,
) -> Result<AdminReply, KeyError> {
    let done = match request {
        KeyRequest::Create { role, devices, name, expires_seconds } => {
            let wanted = WantedKey { role, devices, name, expires: expires_seconds.map(Duration::from_secs) };
            role_keys::create(store, org, wanted, KeyAuthor::Operator, call)
                .await
                .map(|made| ShownKey::reply(org, made))
        }
        KeyRequest::List => role_keys::list(store, org, call.at).await.map(AdminReply::Keys),
        KeyRequest::Revoke { key } => {
            role_keys::revoke(store, org, &key, call).await.map(|InForce { done, unwritten }| match unwritten {
                None => AdminReply::KeyEnded(done),
                Some(unwritten) => AdminReply::KeyEndedUnwritten { fingerprints: done, notice: unwritten.notice() },
            })
        }
        KeyRequest::Rotate { key, overlap_seconds } => {
            let overlap = Duration::from_secs(overlap_seconds);
            role_keys::rotate(store, org, &key, overlap, KeyAuthor::Operator, call)
                .await
                .map(|made| ShownKey::reply(org, made))
        }
    };
    match done {
        Err(KeyError::Refused(refusal)) => Ok(AdminReply::Failed(refusal.to_string())),
        done => done,
    }
}
