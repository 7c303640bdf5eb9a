//! The fleet as it is watched, with real sidecars and real agents.

use super::sign_in;
use crate::harness::authority::Authority;
use crate::harness::browser::{Browser, button, css, field, link};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::Setup;

#[test]
fn a_device_appears_by_itself_and_its_revoke_stops_its_agent() {
    let Some(mut browser) = Browser::start("a_device_appears_by_itself_and_its_revoke_stops_its_agent") else { return };
    let authority = Authority::start();
    let org = authority.org("scale");
    sign_in(&mut browser, &org);
    browser.see(&css("main").with("No device yet"));
    browser.see(&css("#live").with("live"));
    let sidecar = Setup::of(&org, &authority.url(), "host:one").start();
    browser.see(&link("host:one"));
    let mut agent = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", "echo at work; exec sleep 600"]));
    agent.line_with("at work");
    browser.click(&field("Select host:one"));
    browser.fill(&field("Reason, for the audit and the denials"), "it loops");
    browser.click(&button("Revoke"));
    browser.see(&css("main").with("Revoked: 1 of 1."));
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
    browser.assert_content();
}
