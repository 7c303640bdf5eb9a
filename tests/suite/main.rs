//! One integration test binary: one link instead of one a file.

mod cli;
