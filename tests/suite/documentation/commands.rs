//! Each page's commands, run.

use super::page::{Needs, commands, pages};
use super::sandbox::run;

fn run_those_that_need(needs: Needs) {
    for (page, text) in pages() {
        if let Some(blocks) = commands(&page, &text).get(&needs) {
            run(&page, needs, blocks);
        }
    }
}

#[test]
fn what_needs_nothing_around_it_does_what_the_page_says() {
    run_those_that_need(Needs::Nothing);
}

#[test]
fn what_needs_a_daemon_does_what_the_page_says() {
    run_those_that_need(Needs::Daemon);
}

#[test]
fn what_needs_a_fleet_does_what_the_page_says() {
    run_those_that_need(Needs::Fleet);
}
