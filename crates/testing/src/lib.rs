//! Fixtures for the tests of more than one crate.
//!
//! | module | concept |
//! |---|---|
//! | `certificates` | a certificate authority, and a server certificate that it has signed |
//! | `openapi` | checks of the API descriptions |
//! | `postgres` | a `PostgreSQL` server for tests |

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
