//! The authority's parsers of untrusted bytes, as functions of bytes: each panics when a promise does not hold. The
//! daemon's `fuzzing` collects those of all crates.

use super::console::fuzz_form;
use super::routes::{fuzz_body, fuzz_report};
use super::unwritten::fuzz_reserve;

/// The body of a request about devices, keys or plans; the first byte says which.
pub fn body(data: &[u8]) {
    fuzz_body(data);
}

/// The fields of a form of the console.
pub fn form(data: &[u8]) {
    fuzz_form(data);
}

/// A sidecar's report.
pub fn report(data: &[u8]) {
    fuzz_report(data);
}

/// The content of a reserve file.
pub fn reserve(data: &[u8]) {
    fuzz_reserve(data);
}
