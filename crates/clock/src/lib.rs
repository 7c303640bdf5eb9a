//! The clocks of the workspace.
//!
//! | module | concept |
//! |---|---|
//! | `boot` | the boot clock, on which decisions are based |
//! | `doubling` | pure: pauses that double with each failure |
//! | `processor` | the processor time of a thread, which is what its work costs |
//! | `suspend` | pure: telling a suspend of the machine from a delay |
//! | `wall` | the wall clock, for display only |

#![forbid(unsafe_code)]

mod boot;
mod doubling;
mod processor;
mod suspend;
#[cfg(feature = "wall")]
mod wall;

pub use boot::{BootTime, Moment};
pub use doubling::Doubling;
pub use processor::ThreadTime;
pub use suspend::Suspends;
#[cfg(feature = "wall")]
pub use wall::{WallClock, wall_at, wall_now};
