//! The console: pages for browsers, which use the same store methods as the API.
//!
//! | module | concept |
//! |---|---|
//! | `session` | the sessions of signed-in users, in memory |
//! | `pages` | every page |
//! | `pictures` | the pictures on pages |
//! | `words` | pure: times, states and addresses as people read them |

mod pages;
mod pictures;
pub(crate) mod session;
mod words;

pub(crate) use pages::{fuzz_form, public, router};
