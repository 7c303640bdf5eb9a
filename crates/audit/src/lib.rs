//! The audit file: how its lines are made, read and verified. Pure: no file is opened here.
//!
//! The daemon writes the file, the command line verifies it.
//!
//! | module | concept |
//! |---|---|
//! | `chain` | how a line is made and read |
//! | `key` | how records are hashed, with a key or without |
//! | `verify` | whether a file is as it was written |

#![forbid(unsafe_code)]

pub mod chain;
pub mod key;
pub mod verify;
