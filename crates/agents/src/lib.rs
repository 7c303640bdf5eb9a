//! The table of AI agents, and what a process outside a tree is to an agent. Pure: no I/O.
//!
//! Many agents are a client with a daemon: the daemon, and not the command that was started, runs the tools. The table says
//! how such a daemon is recognised, where its clients meet it, and what keeps an agent's work in its own process tree.
//!
//! | file | concept |
//! |---|---|
//! | `agent` | the columns of the table |
//! | `table` | the table: one file an agent |
//! | `command` | which agent a command line starts |
//! | `helper` | what a process is to the agents beside it |
//! | `program` | the program's names and own arguments behind an interpreter |
//! | `services` | the other programs that `helper` knows: container engines, service managers, ordinary services |

#![forbid(unsafe_code)]

mod agent;
mod command;
mod helper;
mod program;
mod services;
mod table;

pub use agent::{AgentDaemon, AgentProfile, Keep, Mark, MeetingPoint, StateDirectory, Variables};
pub use command::{Started, by_command, started};
pub use helper::{HelperKind, Seen, kind_of};
pub use program::split_command_line;
pub use services::{CONTAINER_SOCKETS, MANAGER_SOCKETS, MeetingPath, USER_SOCKETS};
pub use table::{TABLE, by_name};
