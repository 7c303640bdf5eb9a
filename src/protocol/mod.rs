//! The words on the wires: what the authority's API and the local socket say, as types that cannot be wrong.
//!
//! Everything here is pure: no I/O, no clock, no runtime. A value that exists has been parsed and is valid.

pub mod code;
pub mod containment;
pub mod device_id;
pub mod exit;
pub mod local;
#[cfg(feature = "services")]
pub mod report;
pub mod request_id;
pub mod run_id;
pub mod status;

#[cfg(feature = "services")]
pub mod api;
#[cfg(feature = "services")]
pub mod decision;
#[cfg(feature = "services")]
pub mod event;
#[cfg(feature = "services")]
pub mod org_key;
#[cfg(feature = "services")]
pub(crate) mod strict_json;

pub use code::Code;
pub use containment::{Containment, HoldsAgainst, Wish};
pub use device_id::DeviceId;
pub use exit::Exit;
pub use request_id::RequestId;
pub use run_id::RunId;

#[cfg(feature = "services")]
pub use decision::{Decision, Denial};
#[cfg(feature = "services")]
pub use org_key::OrgKey;
