//! Bodies and answers about keys with roles.

use machineid_protocol::KeyRole;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ReasonText, UnwrittenFields, Word};
use crate::role_keys::KeyReport;

/// A whole number, also as JSON may write it: `1.0` is the integer 1.
fn whole_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    // The largest for which every whole number below it is exact.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let whole = |value: f64| (0.0..=LARGEST).contains(&value) && value.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and within the bounds")]
    let read = number.as_u64().or_else(|| number.as_f64().filter(|value| whole(*value)).map(|value| value as u64));
    read.map(Some).ok_or_else(|| serde::de::Error::custom("a whole number of seconds is expected"))
}

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct KeyWanted {
    /// `host`, `stop`, `read`, `operate` or `admin`.
    #[schema(value_type = KeyRole)]
    pub(in super::super) role: String,
    /// Of a host key: the devices that it may work for, as a pattern in which `*` stands for any characters.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[A-Za-z0-9._:@/*-]+$")]
    pub(in super::super) devices: Option<String>,
    /// A name for people, in the audit too.
    #[schema(min_length = 1, max_length = 64, pattern = r"^(?![0-9A-Fa-f]{12}$)[A-Za-z0-9._-]+$")]
    pub(in super::super) name: Option<String>,
    /// It is invalid after so many seconds.
    #[schema(minimum = 1, maximum = 316_224_000)]
    #[serde(default, deserialize_with = "whole_number")]
    pub(in super::super) expires_in_seconds: Option<u64>,
    pub(in super::super) reason: Option<ReasonText>,
}

/// The key that is meant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct KeyNamed {
    /// Its fingerprint or its name.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9._-]+$")]
    pub(in super::super) key: String,
    pub(in super::super) reason: Option<ReasonText>,
}

/// The key to put another one in the place of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct KeyRotation {
    /// Its fingerprint or its name.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9._-]+$")]
    pub(in super::super) key: String,
    /// How long it stays valid beside the new one; a day unless something else is said. With 0 it ends at once.
    #[schema(minimum = 0, maximum = 7_776_000)]
    #[serde(default, deserialize_with = "whole_number")]
    pub(in super::super) overlap_seconds: Option<u64>,
    pub(in super::super) reason: Option<ReasonText>,
}

/// A key that was made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct KeyMade<'a> {
    pub(in super::super) status: Word,
    pub(in super::super) handler: &'static str,
    /// Its text, shown here and never again.
    pub(in super::super) org_api_key: &'a str,
    pub(in super::super) key: KeyReport,
}

/// The organisation's keys.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct KeyList {
    pub(in super::super) status: Word,
    pub(in super::super) handler: &'static str,
    /// Its own first, then the newest. Those that ended are listed for 30 days.
    pub(in super::super) keys: Vec<KeyReport>,
}

/// Keys that are invalid now.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct KeyEnded {
    pub(in super::super) status: Word,
    pub(in super::super) handler: &'static str,
    /// Of every key that was meant: a name also means one that was rotated.
    pub(in super::super) fingerprints: Vec<String>,
    #[serde(flatten)]
    pub(in super::super) unwritten: UnwrittenFields,
}
