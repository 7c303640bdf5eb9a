//! Events, audit file and metrics for operators, in addition to the log.
//!
//! | module | concept |
//! |---|---|
//! | `journal` | events, recorded once and read by the three below |
//! | `ring` | pure: the newest events, for the event streams |
//! | `audit` | the audit file |
//! | `metrics` | the metrics |

pub(crate) mod audit;
mod journal;
pub(crate) mod metrics;
pub(crate) mod ring;

pub(crate) use journal::Journal;
pub(crate) use ring::AgentOwner;
