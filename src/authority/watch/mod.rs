//! Push: whoever watches is told to look *now*. A hint is never a decision, only a reason to ask for one.
//!
//! | file | concept |
//! |---|---|
//! | `hub` | who waits for which changes |
//! | `stream` | hints as server-sent events |
//!
//! The routes are in [`super::routes`].

mod hub;
mod stream;

pub(super) use hub::{Changed, Hints, Interest};
pub(super) use stream::body;
