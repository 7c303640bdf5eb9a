//! The wire formats: the authority's API and the local socket, as types that hold only valid values.
//!
//! Everything here is pure: no I/O, no clock, no runtime. A value that exists has been parsed and is valid.
//!
//! | module | concept |
//! |---|---|
//! | `api` | the authority's API |
//! | `code`, `decision` | an answer; the only place where an ALLOW is made |
//! | `report` | what sidecars report to an authority, and what an authority returns of it |
//! | `local`, `status`, `event` | the local socket: supervised runs, the status, the event stream |
//! | `outside` | processes outside a tree that the tree works through |
//! | `containment` | how a process tree is held together |
//! | `exit` | the programs' exit codes |
//! | `device_id`, `run_id`, `request_id` | names |
//! | `device_pattern` | which device ids are meant |
//! | `http_head` | the head of an answer on the local socket |
//! | `host_name` | whether a `Host` header may be a foreign site's |
//! | `key_role` | what an org key is for |
//! | `socket_path` | where clients find the socket |
//! | `stop_bound` | the longest time from a revoke to the end of the last process |
//! | `span`, `strict_json`, `printable` | durations, JSON and foreign text |
//! | `shell` | words for a shell, in command lines and scripts |

#![forbid(unsafe_code)]

pub mod api;
pub mod code;
pub mod containment;
pub mod decision;
pub mod device_id;
pub mod device_pattern;
pub mod event;
pub mod exit;
pub mod host_name;
pub mod http_head;
pub mod key_role;
pub mod local;
mod oom;
pub mod outside;
pub mod printable;
pub mod report;
pub mod request_id;
pub mod run_id;
#[cfg(feature = "openapi")]
mod schemas;
mod shell;
pub mod socket_path;
pub mod span;
pub mod status;
pub mod stop_bound;
pub mod strict_json;

pub use code::Code;
pub use containment::{Containment, HoldsAgainst, Wish};
pub use decision::{Decision, Denial};
pub use device_id::DeviceId;
pub use device_pattern::DevicePattern;
pub use exit::Exit;
pub use key_role::KeyRole;
pub use oom::oom_in_words;
pub use request_id::RequestId;
pub use run_id::RunId;
pub use shell::shell_word;
