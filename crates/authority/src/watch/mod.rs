//! Push: watchers are told to validate *now*. A hint is never a decision, only a reason to validate.
//!
//! | file | concept |
//! |---|---|
//! | `hub` | the watchers and the changes that they wait for |
//! | `expiry` | entitlements and old keys that have ended |
//! | `stream` | hints as server-sent events |
//!
//! The routes are in [`super::routes`].

mod expiry;
mod hub;
mod stream;

pub(super) use expiry::tell_of_ends;
pub(super) use hub::{Hints, Interest};
pub(super) use stream::body;
