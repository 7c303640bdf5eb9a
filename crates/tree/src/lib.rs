//! A process tree and how to end it, shared by the wrapper and the daemon.
//!
//! | file | concept |
//! |---|---|
//! | `pid` | a process is a pid *and* its start time |
//! | `kernel_file` | a file of `/proc` or of a control group, read whole |
//! | `stat` | one process as `/proc` describes it |
//! | `users` | the users of a process |
//! | `ancestors` | the ancestors of a process |
//! | `namespaces` | the PID namespaces that a process is in |
//! | `table` | all processes at one moment; descent; translation between PID namespaces |
//! | `members` | which of them belong to a tree |
//! | `memory` | how much memory they have, and what the kernel ended for lack of it |
//! | `cgroup` | a control group of a run's own |
//! | `cookie` | the run id in a process's environment |
//! | `environ` | environments, read on a thread of their own |
//! | `holders` | which processes of a table name which runs |
//! | `sighting` | reads what a look needs besides the table |
//! | `family` | one tree alone, read by descent |
//! | `orphans` | the children of the process that inherits a tree's orphans |
//! | `ladder` | pure: which process is sent which signal, and when a stop is over |
//! | `scan_turn` | one scan of the whole host at a time |
//! | `pidfd` | a process that cannot be mistaken for another |
//! | `enforce` | one step of a stop: look, decide, pin, send |

#![forbid(unsafe_code)]

mod ancestors;
mod cgroup;
mod cookie;
mod enforce;
mod environ;
mod family;
mod holders;
mod kernel_file;
mod ladder;
mod members;
mod memory;
mod namespaces;
mod orphans;
mod pid;
mod pidfd;
mod scan_turn;
mod sighting;
mod stat;
mod table;
mod users;

pub use ancestors::ancestry;
pub use cgroup::fuzz_cgroup;
pub use cgroup::{Leaf, LeafState, NoCgroup, group_path, usual_groups};
pub use cookie::fuzz_environment;
pub use enforce::{Advance, Glance, NamedProcess, Stop, StopSummary};
pub use environ::{newly_unreadable, prepare_to_read, unreadable};
pub use ladder::{
    FirstSignal, Gaps, KILL_PATIENCE, LONGEST_PAUSE, Ladder, LeafLook, Next, Order, Step, Survivor, SurvivorReason,
    TreeLook,
};
pub use members::{Guardian, Member, Sighting, Tree};
pub use memory::{OomWatch, memory_of};
pub use namespaces::PidNamespaces;
pub use pid::{Identity, Pid, StartTime};
pub use pidfd::{Delivery, Process};
pub use scan_turn::{ScanAttempt, ScanTurn};
pub use stat::{Activity, ProcessEntry, namespace_pids};
pub use stat::{fuzz_stat, fuzz_status};
pub use table::{Observer, ProcessTable};
pub use users::Users;
