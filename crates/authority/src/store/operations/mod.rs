//! What the store does, operation by operation: generic over the transaction, so that both databases do the same. What an
//! operation promises is said at the method of [`super::Store`] that runs it.
//!
//! Those that change something take the organisation's row first ([`orgs::locked_account`]), so that no two of them wait
//! for each other.
//!
//! | file | concept |
//! |---|---|
//! | `orgs` | organisations and their keys |
//! | `checkouts` | purchases |
//! | `devices` | places taken, revokes and what takes them back |
//! | `removal` | devices that go: removed, or not seen for a time |
//! | `list` | pages of devices |
//! | `reports` | what sidecars said |
//! | `fleet` | devices together with what sidecars said of them |
//! | `audit` | records of management calls |

pub(super) mod audit;
pub(super) mod checkouts;
pub(super) mod devices;
pub(super) mod fleet;
pub(super) mod list;
pub(super) mod orgs;
pub(super) mod removal;
pub(super) mod reports;
