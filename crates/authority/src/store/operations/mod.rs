//! The operations of the store, generic over the transaction, so that both databases do the same. The methods of
//! [`super::Store`] document what each operation guarantees.
//!
//! An operation that changes something locks the organisation's row first ([`orgs::locked_account`]), so that two such
//! operations cannot deadlock.
//!
//! | file | concept |
//! |---|---|
//! | `orgs` | organisations and their keys |
//! | `keys` | keys with roles |
//! | `checkouts` | plan changes that wait for confirmation |
//! | `approvals` | restores that wait for a second key |
//! | `devices` | registering, revoking and restoring devices |
//! | `removal` | removing devices, and ageing ephemeral ones out |
//! | `late` | stops that could not be written when they were ordered |
//! | `list` | pages of devices |
//! | `reports` | what sidecars reported |
//! | `fleet` | devices together with what sidecars reported about them |
//! | `audit` | records of management calls |
//! | `retention` | what is more than an organisation may keep |

pub(super) mod approvals;
pub(super) mod audit;
pub(super) mod checkouts;
pub(super) mod devices;
pub(super) mod fleet;
pub(super) mod keys;
pub(super) mod late;
pub(super) mod list;
pub(super) mod orgs;
pub(super) mod removal;
pub(super) mod reports;
pub(super) mod retention;
