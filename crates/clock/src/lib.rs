//! The clocks.
//!
//! | module | concept |
//! |---|---|
//! | `boot` | the boot clock: what decisions go by |
//! | `suspend` | pure: telling a suspend of the machine from a delay |
//! | `wall` | the wall clock, for people alone |

#![forbid(unsafe_code)]

mod boot;
mod suspend;
#[cfg(feature = "wall")]
mod wall;

pub use boot::{BootTime, Moment};
pub use suspend::Suspends;
#[cfg(feature = "wall")]
pub use wall::{wall_at, wall_now};
