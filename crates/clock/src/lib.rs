//! The clocks of the workspace.
//!
//! | module | concept |
//! |---|---|
//! | `boot` | the boot clock, on which decisions are based |
//! | `doubling` | pure: pauses that double with each failure |
//! | `suspend` | pure: telling a suspend of the machine from a delay |
//! | `wall` | the wall clock, for display only |

#![forbid(unsafe_code)]

mod boot;
mod doubling;
mod suspend;
#[cfg(feature = "wall")]
mod wall;

pub use boot::{BootTime, Moment};
pub use doubling::Doubling;
pub use suspend::Suspends;
#[cfg(feature = "wall")]
pub use wall::{wall_at, wall_now};
