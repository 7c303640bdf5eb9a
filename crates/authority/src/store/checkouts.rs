//! Purchases that wait to be confirmed.

use jiff::Timestamp;

use super::super::audit::{Record, Verb};
use super::super::keys::SecretHash;
use super::super::org::{Org, OrgId, PlanTier};

/// A purchase that waits to be confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Checkout {
    /// Its name, no secret.
    pub(crate) number: String,
    pub(crate) org: Org,
    pub(crate) wanted: PlanTier,
    pub(crate) expires_at: Timestamp,
    pub(crate) used: bool,
}

impl Checkout {
    /// Whether it can still be confirmed.
    pub(crate) fn open(&self, now: Timestamp) -> bool {
        !self.used && !self.org.deleted && now < self.expires_at
    }

    /// What the audit says when it was linked or confirmed.
    pub(super) fn record(&self, verb: Verb) -> Record {
        Record::ok(self.org.id, verb).with("checkout", self.number.as_str()).with("plan", self.wanted.as_str())
    }
}

/// A purchase to be kept.
#[derive(Clone, Debug)]
pub(crate) struct NewCheckout {
    pub(crate) number: String,
    pub(crate) wanted: PlanTier,
    /// Of the secret in its address.
    pub(crate) token: SecretHash,
    pub(crate) expires_at: Timestamp,
}

impl NewCheckout {
    pub(super) fn record(&self, org: OrgId) -> Record {
        Record::ok(org, Verb::Checkout).with("checkout", self.number.as_str()).with("plan", self.wanted.as_str())
    }
}

/// By what a purchase is found.
#[derive(Clone, Debug)]
pub(crate) enum CheckoutKey {
    /// The secret in the address that the holder of the org key got: it shows the page.
    Address(SecretHash),
    /// The secret that an operator got: shows it, and confirms it.
    Link(SecretHash),
    /// Its number, for an operator on the admin socket.
    Number(String),
}
