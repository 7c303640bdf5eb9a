//! What the daemon tells its operators, besides its log.
//!
//! | module | concept |
//! |---|---|
//! | `journal` | what happens, told once and read by the three below |
//! | `ring` | pure: the newest events, for those who listen |
//! | `audit` | the audit file |
//! | `metrics` | what is counted |

pub(crate) mod audit;
mod journal;
pub(crate) mod metrics;
pub(crate) mod ring;

pub(crate) use journal::Journal;
