//! The process that is comets, inside the test binary.

use super::shapes::be_comets;

/// How to start it.
pub(crate) const ARGUMENTS: [&str; 4] = ["--exact", "traps::comet::the_body_of_comets", "--ignored", "--nocapture"];

#[test]
#[ignore = "no test: the body of a process that other tests start"]
fn the_body_of_comets() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Not when all ignored tests are asked for.
    if let Some(rest) = arguments.strip_prefix(&ARGUMENTS.map(str::to_owned)) {
        be_comets(rest);
    }
}
