//! Checkouts: plan changes that wait for confirmation.

use jiff::Timestamp;

use super::super::audit::{Record, Verb};
use super::super::keys::SecretHash;
use super::super::org::{Org, OrgId, PlanTier};

/// A plan change that waits for confirmation.
#[derive(Clone, Debug)]
pub(crate) struct Checkout {
    /// The checkout's public number; not a secret.
    pub(crate) number: String,
    pub(crate) org: Org,
    pub(crate) wanted: PlanTier,
    pub(crate) expires_at: Timestamp,
    pub(crate) used: bool,
}

impl Checkout {
    /// Whether the checkout can still be confirmed.
    pub(crate) fn open(&self, now: Timestamp) -> bool {
        !self.used && !self.org.deleted && now < self.expires_at
    }

    /// The audit record of a link or a confirmation.
    pub(super) fn record(&self, verb: Verb) -> Record {
        Record::ok(self.org.id, verb).with("checkout", self.number.as_str()).with("plan", self.wanted.as_str())
    }
}

/// A checkout to store.
#[derive(Clone, Debug)]
pub(crate) struct NewCheckout {
    pub(crate) number: String,
    pub(crate) wanted: PlanTier,
    /// The hash of the secret in the checkout's address.
    pub(crate) token: SecretHash,
    pub(crate) expires_at: Timestamp,
}

impl NewCheckout {
    pub(super) fn record(&self, org: OrgId) -> Record {
        Record::ok(org, Verb::Checkout).with("checkout", self.number.as_str()).with("plan", self.wanted.as_str())
    }
}

/// How a checkout is looked up.
#[derive(Clone, Debug)]
pub(crate) enum CheckoutKey {
    /// By the secret in the address that a holder of the org key got; it shows the page.
    Address(SecretHash),
    /// By the secret that an operator got; it shows the page and confirms the checkout.
    Link(SecretHash),
    /// By the number, for an operator on the admin socket.
    Number(String),
}
