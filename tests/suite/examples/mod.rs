//! The examples in `examples/`, as a user runs them.

mod clients;
mod frameworks;
mod gateways;

use crate::harness::place::skipped;

/// Whether a program is installed, as a shell looks for it. In CI each is.
#[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|place| place.join(program).is_file());
    assert!(found || std::env::var_os("CI").is_none(), "{program} is not installed");
    if !found {
        skipped("an example", &format!("{program} is not installed"));
    }
    found
}
