//! Which processes outside a tree the tree works through: an agent's daemon, a container engine, a terminal multiplexer that
//! ran before. What such a process starts at the agent's request belongs to no supervised tree.
//!
//! A process of the tree *uses* a process outside when it has connected to it: over a unix stream or seqpacket socket, or by TCP
//! over loopback. The other direction is no use: a process outside that connected to a server in the tree, or that gave the tree
//! one end of a socket pair, works through the agent, and not the agent through it.
//!
//! The cost follows what changes. One list of the host's sockets serves all trees. Descriptors are read only for connections
//! that no earlier look has seen, and only until their owners are found; the owner of a listening socket is remembered as long as
//! the socket is there. Each look has a budget of time and of entries. One that runs out of it says so, and the next look goes
//! on where it ended.
//!
//! | file | concept |
//! |---|---|
//! | `links` | pure: which socket is connected to which, and which end connected |
//! | `looker` | pure: a look, and what later looks need not find out again |
//! | `budget` | what a look may cost |
//! | `processes` | descriptors and programs of processes, from `/proc` |
//! | `helpers` | pure: what is known of one run's helpers |
//! | `listed` | what a look may cost, and the sockets that it begins with |
//! | `kinds` | pure: what kind of process a helper is |
//!
//! What it cannot see: a connection that is opened and closed between two looks; sockets of another network namespace; datagram
//! sockets; another way than sockets (a file, a pipe, D-Bus messages beyond the bus).

#![forbid(unsafe_code)]

mod budget;
mod helpers;
mod kinds;
mod links;
mod listed;
mod looker;
mod processes;

pub use budget::Budget;
pub use helpers::{Helpers, LeftHelper};
pub use links::{Sockets, Via};
pub use listed::{LOOK, budget, list};
pub use looker::{FoundHelper, Gap, Look, Looker, TreeMembers};
pub use processes::{Descriptors, Proc, Processes, Program};
