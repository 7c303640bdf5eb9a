//! The tests against the real binaries: one module for each surface.

#![expect(clippy::unwrap_used, reason = "clippy.toml's exception covers test functions, not the helpers beside them")]

mod harness;
mod run;
mod slim;
