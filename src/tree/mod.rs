//! A process tree and how to end it, for the wrapper and the daemon alike.
//!
//! | file | concept |
//! |---|---|
//! | `pid` | a process is a pid *and* its start time |
//! | `stat` | one process as `/proc` describes it |
//! | `table` | all processes at one moment; descent; translation between PID namespaces |
//! | `members` | which of them belong to a tree |
//! | `ladder` | pure: who is sent what, and when it is over |
//! | `pidfd` | a process that cannot be mistaken for another |
//! | `enforce` | one step of a stop: look, decide, pin, send |

mod enforce;
mod ladder;
mod members;
mod pid;
mod pidfd;
mod stat;
mod table;

pub use enforce::Stop;
pub use ladder::{FirstSignal, KILL_PATIENCE, LONGEST_PAUSE, Ladder, Next, Order, Step, Survivor, SurvivorReason};
pub use members::{Member, Tree};
pub use pid::{Identity, Pid, StartTime};
pub use pidfd::{Delivery, Process};
pub use stat::{Activity, ProcessEntry, namespace_pids};
pub use table::{Caller, ProcessTable};
