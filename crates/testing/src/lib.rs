//! What tests of more than one crate need.
//!
//! | module | concept |
//! |---|---|
//! | `certificates` | a certificate authority and a server that it vouches for |
//! | `openapi` | what is held of every description of an API |
//! | `postgres` | a `PostgreSQL` of the tests' own |

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "in a fixture as in a test, what should not happen should be loud")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "a fixture"
)]

pub mod certificates;
pub mod openapi;
pub mod postgres;
