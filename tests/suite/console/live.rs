//! The fleet as it is watched, with real sidecars and real agents.

use rustix::process::Signal;

use super::{REASON, sign_in};
use crate::harness::authority::{Authority, Org};
use crate::harness::browser::{Browser, button, css, field, link};
use crate::harness::process::Wrapped;
use crate::harness::sidecar::{Setup, Sidecar};

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
    let mut agent = at_work(&sidecar);
    browser.click(&field("Select host:one"));
    browser.fill(&field(REASON), "it loops");
    browser.click(&button("Revoke"));
    browser.see(&css("main").with("Revoked: 1 of 1."));
    assert_eq!(agent.exit_code(), 77, "{}", agent.stderr());
    browser.click(&link("Back to the fleet"));
    browser.see(&css("tr").with("confirmed"));
    browser.click(&link("host:one"));
    browser.see(&css("#stops").with("gone, confirmed"));
    browser.see(&css("#past").with("it loops"));
    browser.see(&css("#past svg.picture"));
    browser.assert_content();
}

#[test]
fn of_a_fleet_that_is_stopped_exactly_those_that_cannot_answer_are_outstanding_with_the_end_of_their_lease() {
    const FLEET: usize = 20;
    const SILENT: [usize; 2] = [4, 11];
    let Some(mut browser) = Browser::start("of_a_fleet_that_is_stopped") else { return };
    let authority = Authority::start();
    let org = authority.org("scale");
    let mut fleet: Vec<(Sidecar, Wrapped)> = (0..FLEET).map(|number| host(&org, number)).collect();
    sign_in(&mut browser, &org);
    for silent in SILENT {
        fleet[silent].0.signal(Signal::STOP);
    }
    stop_everything(&mut browser, FLEET);
    browser.see(&css("dl.tally").with("18 of 20"));
    for (number, (_, agent)) in fleet.iter_mut().enumerate().filter(|(number, _)| !SILENT.contains(number)) {
        assert_eq!(agent.exit_code(), 77, "host:{number}: {}", agent.stderr());
    }
    let outstanding = browser.text(&css("table"));
    for number in 0..FLEET {
        let named = outstanding.contains(&format!("host:{number:02}"));
        assert_eq!(named, SILENT.contains(&number), "host:{number:02} in {outstanding}");
    }
    assert_eq!(outstanding.matches("Not confirmed").count(), 2, "{outstanding}");
    // The lease of five minutes from the stop, the grace of two seconds, and one more.
    let ends = browser.run("[...document.querySelectorAll('table tr td:nth-child(4) time')].map((at) => at.dateTime)");
    let asked = browser.run("document.querySelector('#board time').dateTime");
    for end in ends.as_array().unwrap() {
        let lease = time(end.as_str().unwrap()).duration_since(time(asked.as_str().unwrap()));
        assert!((290..=303).contains(&lease.as_secs()), "{lease} for {end}");
    }
    assert!(SILENT.iter().all(|silent| !fleet[*silent].1.has_ended()), "they run, as the page says");
    let curve = browser.run("document.querySelector('svg.picture').getAttribute('aria-label')");
    let curve = curve.as_str().unwrap();
    assert!(curve.starts_with("18 of 20 agents have stopped") && curve.contains("2 may still run"), "{curve}");
    browser.assert_content();

    for silent in SILENT {
        fleet[silent].0.signal(Signal::CONT);
    }
    browser.see(&css("#board").with("Stopped, and confirmed by all 20 hosts"));
    for silent in SILENT {
        assert_eq!(fleet[silent].1.exit_code(), 77);
    }
    browser.assert_content();

    // Nothing is restored by one click.
    browser.click(&link("Restore these devices…"));
    assert_eq!(org.code("host:00"), "DEVICE_REVOKED");
    browser.fill(&field("Type the number of devices, 20"), "20");
    browser.click(&button("Restore them"));
    browser.see(&css("main").with("20 may execute again"));
    assert!((0..FLEET).all(|number| org.code(&format!("host:{number:02}")) == "ALLOW"));
    browser.assert_content();
}

/// A sidecar of this fleet with an agent at work.
fn host(org: &Org<'_>, number: usize) -> (Sidecar, Wrapped) {
    // Long, so that on whatever machine the silent are still silent when they are looked at. Changes come by push.
    let enforcement = "interval = \"10s\"\nlease = \"300s\"\nstop_grace = \"2s\"".to_owned();
    let setup = Setup { enforcement, ..Setup::of(org, &org.authority.url(), &format!("host:{number:02}")) };
    let sidecar = setup.start();
    let agent = at_work(&sidecar);
    (sidecar, agent)
}

/// An agent that has begun its work.
fn at_work(sidecar: &Sidecar) -> Wrapped {
    let mut agent = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", "echo at work; exec sleep 600"]));
    agent.line_with("at work");
    agent
}

/// Stops every device by the kill switch of this page, which leads to the board.
fn stop_everything(browser: &mut Browser, devices: usize) {
    browser.click(&link("Stop everything"));
    browser.see(&css("main").with(&format!("{devices} devices would be revoked")));
    browser.fill(&field(REASON), "drill");
    browser.fill(&field(&format!("Type the number of devices, {devices}")), &devices.to_string());
    browser.click(&button("Stop everything"));
    browser.see(&css("#board"));
}

fn time(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}
