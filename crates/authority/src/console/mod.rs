//! The console: pages for browsers, over the store's own methods, those of the API.
//!
//! | module | concept |
//! |---|---|
//! | `session` | who is signed in, in memory |
//! | `pages` | every page |
//! | `pictures` | what pages draw |
//! | `words` | pure: times, states and addresses as people read them |

mod pages;
mod pictures;
mod session;
mod words;

pub(crate) use pages::{public, router};
pub(crate) use session::{Console, Done, Holder, Outcome, Session};
