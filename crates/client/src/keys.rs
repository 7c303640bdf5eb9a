//! The organisation's keys with roles: an extension of our own authority.

use std::time::Duration;

use http::StatusCode;
use machineid_org_key::OrgKey;
use machineid_protocol::api::{KeyEntry, KeyOrder, path};
use machineid_protocol::span;
use serde::Deserialize;
use serde_json::json;

use super::exchange::{RawAnswer, Repeat};
use super::{AuthorityClient, Failure, LARGE_ANSWER, SMALL_ANSWER, Waiting, because};

/// A key that was made. Its text is here and nowhere else.
#[derive(Debug)]
pub struct NewKey {
    /// The key.
    pub key: OrgKey,
    /// What is known of it; `None` while it waits for a second key.
    pub entry: Option<KeyEntry>,
    /// Set when a second key must confirm the key before it is valid.
    pub waits: Option<Box<Waiting>>,
}

#[derive(Deserialize)]
struct KeyList {
    keys: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    org_api_key: String,
    key: Option<KeyEntry>,
}

#[derive(Deserialize)]
struct Ended {
    fingerprints: Vec<String>,
}

impl AuthorityClient {
    /// The organisation's keys, its own first.
    ///
    /// Fails with a [`Failure`], [`Failure::Refused`] when the authority says no.
    pub async fn keys(&self, key: &OrgKey) -> Result<Vec<KeyEntry>, Failure> {
        let answer = self.get(self.base_url().endpoint(path::KEYS), key, LARGE_ANSWER).await?;
        Ok(accepted(&answer)?.typed::<KeyList>()?.keys)
    }

    /// Makes a key with a role.
    ///
    /// Fails with a [`Failure`]; after one that is no refusal the key may exist, although its text was received nowhere.
    pub async fn create_key(&self, key: &OrgKey, wanted: &KeyOrder, reason: Option<&str>) -> Result<NewKey, Failure> {
        let body = because(json!(wanted), reason);
        made(&self.post(path::KEY_CREATE, key, &body, Repeat::Never, SMALL_ANSWER).await?)
    }

    /// Makes the key of this fingerprint or name invalid, now. Returns its fingerprint, and what the authority says when
    /// that is in force and not in its database yet.
    ///
    /// Fails with a [`Failure`], [`Failure::Refused`] when the authority says no.
    pub async fn revoke_key(
        &self,
        key: &OrgKey,
        which: &str,
        reason: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), Failure> {
        let body = because(json!({ "key": which }), reason);
        let answer = self.post(path::KEY_REVOKE, key, &body, Repeat::Harmless, SMALL_ANSWER).await?;
        Ok((answer.typed::<Ended>()?.fingerprints, answer.notice()))
    }

    /// Makes a key in the place of one, which stays valid for `overlap`.
    ///
    /// Fails with a [`Failure`]; after one that is no refusal the key may exist, although its text was received nowhere.
    pub async fn rotate_key(
        &self,
        key: &OrgKey,
        which: &str,
        overlap: Duration,
        reason: Option<&str>,
    ) -> Result<NewKey, Failure> {
        let body = because(json!({ "key": which, "overlapSeconds": span::whole_seconds(overlap) }), reason);
        made(&self.post(path::KEY_ROTATE, key, &body, Repeat::Never, SMALL_ANSWER).await?)
    }
}

fn accepted(answer: &RawAnswer) -> Result<&RawAnswer, Failure> {
    if answer.status == StatusCode::OK { Ok(answer) } else { Err(answer.refusal()) }
}

fn made(answer: &RawAnswer) -> Result<NewKey, Failure> {
    // A key that waits for a second one is refused like everything that waits, but has a text.
    let waits =
        answer.explanation().and_then(|refusal| refusal.waits).filter(|_| answer.status == StatusCode::ACCEPTED);
    let made = waits.as_ref().and_then(|_| serde_json::from_slice::<Made>(&answer.body).ok());
    let Made { org_api_key, key: entry } = match made {
        Some(made) => made,
        None => accepted(answer)?.typed()?,
    };
    let key = org_api_key.parse().map_err(|_| answer.not_understood())?;
    Ok(NewKey { key, entry, waits })
}
