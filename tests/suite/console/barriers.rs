//! Every page, for people who see it on a telephone, in the dark, or not at all: axe-core judges each at every width and in
//! both colour schemes.

use serde_json::json;

use super::people::HOSTILE;
use super::sessions::link as operators_link;
use super::{REASON, sign_in};
use crate::harness::authority::{Authority, Org};
use crate::harness::browser::{Browser, WIDTHS, button, css, field, link, role};

/// A browser, and what was found in it so far.
struct Looks {
    browser: Browser,
    found: Vec<String>,
    /// How many pages were looked at so far.
    pages: usize,
}

impl Looks {
    /// `None`, said aloud, where there is no browser.
    fn start(test: &str) -> Option<Self> {
        Some(Self { browser: Browser::start(test)?, found: Vec::new(), pages: 0 })
    }

    /// Looks at the page at both widths, each in one colour scheme. Colours do not depend on the width, nor the layout on the
    /// scheme. The next page has them the other way round, so that what all pages share is seen in every combination.
    fn at(&mut self, name: &str) {
        let mut schemes = ["light", "dark"];
        schemes.rotate_left(self.pages % 2);
        self.pages += 1;
        for (width, scheme) in WIDTHS.into_iter().zip(schemes) {
            self.browser.view(width, scheme);
            let view = format!("{name}, {scheme}, {width} pixels");
            let barriers = self.browser.barriers().into_iter().map(|barrier| format!("{view}: {barrier}"));
            self.found.extend(barriers);
            if self.browser.scrolls_sideways() {
                self.found.push(format!("{view}: scrolls sideways"));
            }
        }
    }

    /// Goes to a page that answers with this status, which the browser complains of when it is no success.
    fn go(&mut self, name: &str, url: &str, status: u64) {
        assert_eq!(self.browser.go(url), status, "{name}");
        self.at(name);
        let complaints = self.browser.complaints();
        assert!(complaints.iter().all(|complaint| complaint.contains(&status.to_string())), "{complaints:?}");
    }

    /// Sends a form by this button, which leads to a page with this heading.
    fn send(&mut self, name: &str, by: &str, heading: &str) {
        self.browser.click(&button(by));
        self.browser.see(&role("heading", heading));
        self.at(name);
    }

    #[track_caller]
    fn end(mut self) {
        self.browser.assert_content();
        assert!(self.found.is_empty(), "{}", self.found.join("\n"));
    }
}

#[test]
fn no_page_has_a_barrier_for_whoever_holds_a_key() {
    let Some(mut looks) = Looks::start("no_page_has_a_barrier_for_whoever_holds_a_key") else { return };
    let authority = Authority::start();
    let org = authority.org("scale");
    looks.go("sign-in", &format!("{}/console/sign-in", authority.url()), 200);
    looks.browser.fill(&field("Org key"), "org_wrong");
    looks.browser.click(&button("Sign in"));
    looks.browser.see(&css("[role=alert]"));
    looks.at("sign-in refused");
    // The browser says of its own that the answer was 401.
    assert!(looks.browser.complaints().iter().all(|complaint| complaint.contains("401")));
    sign_in(&mut looks.browser, &org);
    looks.at("empty fleet");
    fill(&org);
    let home = looks.browser.url();
    for (name, path) in PAGES {
        looks.go(name, &format!("{home}{path}"), 200);
    }
    looks.browser.go(&home);
    looks.browser.click(&field("Select host:1"));
    looks.browser.click(&button("Remove…"));
    looks.browser.see(&button("Remove"));
    looks.at("removal");
    looks.browser.go(&home);
    looks.browser.click(&field("Select host:2"));
    looks.browser.click(&button("Restore"));
    looks.browser.see(&link("Back to the fleet"));
    looks.at("restored by hand");
    looks.browser.click(&link("Stop everything"));
    looks.browser.fill(&field(REASON), HOSTILE[0]);
    looks.browser.fill(&field("Type the number of devices, 2"), "2");
    looks.browser.click(&button("Stop everything"));
    looks.browser.see(&css("#board"));
    looks.at("board");
    looks.browser.click(&link("Restore these devices…"));
    looks.browser.see(&button("Restore them"));
    looks.at("restore");
    looks.browser.fill(&field("Type the number of devices, 2"), "2");
    looks.browser.click(&button("Restore them"));
    looks.browser.see(&link("To the fleet"));
    looks.at("restored");
    looks.go("nothing here", &format!("{home}/nothing"), 404);
    looks.browser.go(&format!("{home}/settings"));
    looks.browser.click(&button("Ask for it"));
    looks.browser.see(&css("p[role=status]").with("waits for the operator"));
    looks.at("organisation, plan asked for");
    looks.browser.fill(&field("Type the word off"), "off");
    looks.browser.click(&button("Switch off"));
    looks.browser.see(&button("Switch on"));
    looks.at("organisation, switched off");
    looks.browser.fill(&field("Type the word rotate"), "rotate");
    looks.browser.click(&button("Rotate the key"));
    looks.browser.see(&css("#new-key"));
    looks.at("new key");
    looks.browser.click(&link("Keys"));
    looks.browser.fill(&field("Devices of a host key; leave empty for all"), &"k8s:*".repeat(50));
    looks.browser.fill(&field("Name; it appears in the audit"), &"x".repeat(64));
    looks.browser.click(&button("Make the key"));
    looks.browser.see(&css("#new-key"));
    looks.at("new key with a role");
    let made = looks.browser.text(&css("dd code"));
    looks.browser.click(&link(&made));
    looks.browser.see(&button("Revoke the key"));
    looks.at("key with a role");
    looks.browser.fill(&field("Type the word revoke"), "revoke");
    looks.browser.click(&button("Revoke the key"));
    looks.browser.see(&role("heading", "Ended keys"));
    looks.at("keys");
    looks.end();
}

#[test]
fn no_page_has_a_barrier_for_keys_that_may_stop_or_only_look() {
    let test = "no_page_has_a_barrier_for_keys_that_may_stop_or_only_look";
    let Some(mut looks) = Looks::start(test) else { return };
    let authority = Authority::start_with(&["--management-per-minute", "0"]);
    let org = authority.org("scale");
    fill(&org);
    for role in ["stop", "read"] {
        let held = org.with_role(&["--role", role, "--name", &role.repeat(12)]);
        sign_in(&mut looks.browser, &held);
        let home = looks.browser.url();
        for (name, path) in PAGES {
            let status = if role == "read" && path == "/stop" { 403 } else { 200 };
            looks.go(&format!("{name}, {role}"), &format!("{home}{path}"), status);
        }
        looks.browser.go(&home);
        looks.browser.click(&button("Sign out"));
        looks.browser.see(&button("Sign in"));
    }
    looks.end();
}

#[test]
fn no_page_has_a_barrier_for_the_operator_or_whoever_confirms_a_plan() {
    let test = "no_page_has_a_barrier_for_the_operator_or_whoever_confirms_a_plan";
    let Some(mut looks) = Looks::start(test) else { return };
    let authority = Authority::start();
    let address = format!("{}{}", authority.url(), operators_link(&authority, &[]));
    looks.go("operator's link", &address, 200);
    looks.send("no organisation yet", "Sign in", "Organisations");
    let org = authority.org("pro");
    fill(&org);
    looks.go("organisations", &format!("{}/console/orgs", authority.url()), 200);
    looks.browser.fill(&field("Name, for people"), HOSTILE[1]);
    looks.browser.click(&button("Create it"));
    looks.browser.see(&css("#new-key"));
    looks.at("organisation created");
    let home = format!("{}/console/org/{}", authority.url(), org.id);
    looks.go("organisation, for its operator", &format!("{home}/settings"), 200);
    looks.browser.click(&button("Freeze the plan"));
    looks.browser.see(&button("Unfreeze the plan"));
    looks.at("organisation, frozen");
    looks.go("operator's link, used", &address, 410);

    let checkout = org.post("/billing/checkout", &json!({"plan": "scale"})).json();
    let shown = checkout["url"].as_str().unwrap().to_owned();
    looks.go("checkout, shown to the user who asked", &shown, 200);
    let number = looks.browser.text(&css("dd code"));
    let link = authority.admin_json(&["confirm-checkout", &number, "--link"]);
    let link = link.as_str().unwrap();
    looks.go("checkout", link, 200);
    looks.send("checkout, confirmed", "Change to scale", "The plan is changed");
    looks.go("checkout, used", link, 200);
    looks.end();
}

/// The pages of an organisation that are there by their address alone.
const PAGES: [(&str, &str); 10] = [
    ("fleet", ""),
    ("search without a find", "?q=nothing-has-this-id"),
    ("fleet, revoked", "?state=revoked"),
    ("device", "/device?id=host:1"),
    ("revoked device", "/device?id=host:2"),
    ("organisation", "/settings"),
    ("audit", "/audit"),
    ("approvals", "/approvals"),
    ("audit without a find", "/audit?who=nobody-has-this-name"),
    ("kill switch", "/stop"),
];

/// Devices in every state, with reasons as long as they may be and ids without a place to break.
fn fill(org: &Org<'_>) {
    let long = "x".repeat(128);
    org.register(&["host:1", "host:2", &long]);
    org.code("host:1");
    for (id, reason) in [("host:2", "reason ".repeat(28)), (long.as_str(), "r".repeat(200))] {
        assert_eq!(org.post("/devices/revoke", &json!({"deviceId": id, "reason": reason})).status, 200);
    }
    let stop = json!({
        "deviceId": "host:1", "runId": "000000000000000000000000000000a2", "name": HOSTILE[1], "code": "LOCAL_STOP",
        "agoMs": 10, "tookMs": 1_234, "signalled": 3, "killed": 1, "confirmed": false,
        "survivors": [{"pid": 4_711, "reason": HOSTILE[3]}],
    });
    let event = |number: u32, event: &str, standing: &str| {
        json!({
            "id": format!("00000001-{number}"), "deviceId": "host:1", "agoMs": 1_000 - 10 * number, "event": event,
            "standing": standing, "name": HOSTILE[0], "reason": HOSTILE[1],
        })
    };
    let events = [
        event(1, "decision", "allowed"),
        event(2, "agent-started", "allowed"),
        event(3, "decision", "unavailable"),
        event(4, "decision", "denied"),
    ];
    let devices = json!([{"deviceId": "host:1", "standing": "allowed", "agents": 2, "stopping": 1}]);
    let report = json!({
        "sidecarId": "000000000000000000000000000000a1", "sequence": 1, "version": "v".repeat(40),
        "hostDeviceId": "host:1", "push": true, "agents": 3, "stopBound": {"connectedMs": 16_000, "cutOffMs": 90_000},
        "devices": devices, "stops": [stop], "events": events,
    });
    assert_eq!(org.post("/devices/report", &report).status, 200);
}
