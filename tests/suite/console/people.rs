//! The pages as people have them: hostile words, no script, no mouse, no sight, a telephone, the dark.

use serde_json::json;

use super::sessions::link as operators_link;
use super::{REASON, sign_in};
use crate::harness::authority::{Authority, Org};
use crate::harness::browser::{Browser, WIDTHS, button, css, field, link, role};

/// What others write that wants to be more than text. The last one turns what follows it around.
const HOSTILE: [&str; 4] = [
    "<img src=x onerror=alert(1)>",
    "\"><script>alert(2)</script>",
    "'-alert(3)-' {{7*7}} javascript:alert(4)",
    "\u{202e}gnidaer fo redro eht \u{2066}</main>",
];

#[test]
fn what_others_write_stays_text() {
    let Some(mut browser) = Browser::start("what_others_write_stays_text") else { return };
    let authority = Authority::start();
    let org = authority.org("scale");
    for (number, reason) in HOSTILE.iter().enumerate() {
        let id = format!("device:{number}");
        org.register(&[&id]);
        let revoked = org.post("/devices/revoke", &json!({"deviceId": id, "reason": reason}));
        assert_eq!(revoked.status, 200, "{}", revoked.text);
    }
    sign_in(&mut browser, &org);
    let fleet = browser.url();
    let shown = browser.text(&css("main"));
    for reason in HOSTILE {
        assert!(shown.contains(reason), "{reason:?} is not in {shown}");
    }
    for hostile in HOSTILE {
        browser.go(&fleet);
        browser.fill(&field("Device id contains"), hostile);
        browser.click(&button("Search"));
        browser.see(&css("main").with(hostile));
    }
    // Elements, or handlers, that those would have made.
    assert_eq!(browser.count("main script, main img, [onerror]"), 0);
    browser.assert_content();
}

#[test]
fn without_script_one_can_sign_in_and_revoke() {
    let Some(mut browser) = Browser::start("without_script_one_can_sign_in_and_revoke") else { return };
    let authority = Authority::start();
    let org = authority.org("scale");
    org.register(&["host:1", "host:2"]);
    browser.open(false);
    sign_in(&mut browser, &org);
    browser.click(&field("Select host:1"));
    browser.fill(&field(REASON), "it loops");
    browser.click(&button("Revoke"));
    browser.see(&css("main").with("Revoked: 1 of 1."));
    browser.click(&link("Back to the fleet"));
    browser.see(&css("tr").with("it loops"));
    assert_eq!((org.code("host:1"), org.code("host:2")), ("DEVICE_REVOKED".to_owned(), "ALLOW".to_owned()));
    browser.click(&button("Sign out"));
    browser.see(&field("Org key"));
    browser.assert_content();
}

#[test]
fn by_the_keyboard_alone_one_can_sign_in_and_revoke() {
    let Some(mut browser) = Browser::start("by_the_keyboard_alone_one_can_sign_in_and_revoke") else { return };
    let authority = Authority::start();
    let org = authority.org("scale");
    org.register(&["host:1", "host:2"]);
    browser.go(&format!("{}/console", authority.url()));
    browser.tab_to(&field("Org key"));
    browser.type_in(&org.key);
    browser.press("Enter");
    browser.see(&role("heading", "Fleet"));
    browser.tab_to(&link("Skip to the content"));
    browser.press("Enter");
    browser.tab_to(&field("Select host:2"));
    browser.press("Space");
    browser.tab_to(&field(REASON));
    browser.type_in("it loops");
    browser.tab_to(&button("Revoke"));
    assert_eq!(browser.run("getComputedStyle(document.activeElement).outlineStyle"), "solid", "the focus is seen");
    browser.press("Enter");
    browser.see(&css("main").with("Revoked: 1 of 1."));
    assert_eq!(org.code("host:2"), "DEVICE_REVOKED");
    browser.assert_content();
}

#[test]
fn no_page_has_a_barrier_in_the_light_or_the_dark_on_a_telephone_or_a_desk() {
    let Some(mut browser) = Browser::start("no_page_has_a_barrier") else { return };
    let authority = Authority::start();
    let org = authority.org("scale");
    let mut found = Vec::new();
    browser.go(&format!("{}/console/sign-in", authority.url()));
    look(&mut browser, "sign-in", &mut found);
    browser.fill(&field("Org key"), "org_wrong");
    browser.click(&button("Sign in"));
    browser.see(&css("[role=alert]"));
    look(&mut browser, "sign-in refused", &mut found);
    // The browser says of its own that the answer was 401.
    assert!(browser.complaints().iter().all(|complaint| complaint.contains("401")));
    sign_in(&mut browser, &org);
    look(&mut browser, "empty fleet", &mut found);
    fill(&org);
    let home = browser.url();
    for (name, path) in PAGES {
        let status = browser.go(&format!("{home}{path}"));
        assert_eq!(status, 200, "{name}");
        look(&mut browser, name, &mut found);
    }
    browser.go(&home);
    browser.click(&field("Select host:1"));
    browser.click(&button("Remove…"));
    browser.see(&button("Remove"));
    look(&mut browser, "removal", &mut found);
    browser.click(&link("Stop everything"));
    browser.fill(&field(REASON), HOSTILE[0]);
    browser.fill(&field("Type the number of devices, 1"), "1");
    browser.click(&button("Stop everything"));
    browser.see(&css("#board"));
    look(&mut browser, "board", &mut found);
    browser.click(&link("Restore these devices…"));
    browser.see(&button("Restore them"));
    look(&mut browser, "restore", &mut found);
    browser.assert_content();
    assert_eq!(browser.go(&format!("{home}/nothing")), 404);
    look(&mut browser, "nothing here", &mut found);
    let address = format!("{}{}", authority.url(), operators_link(&authority, &[]));
    browser.open(true);
    browser.go(&address);
    look(&mut browser, "operator's link", &mut found);
    browser.click(&button("Sign in"));
    browser.see(&role("heading", "Organisations"));
    look(&mut browser, "organisations", &mut found);
    browser.go(&format!("{home}/settings"));
    look(&mut browser, "organisation, for its operator", &mut found);
    browser.assert_content();
    browser.go(&address);
    look(&mut browser, "operator's link, used", &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The pages of an organisation that are there by their address alone.
const PAGES: [(&str, &str); 8] = [
    ("fleet", ""),
    ("search without a find", "?q=nothing-has-this-id"),
    ("fleet, revoked", "?state=revoked"),
    ("device", "/device?id=host:1"),
    ("revoked device", "/device?id=host:2"),
    ("organisation", "/settings"),
    ("audit", "/audit"),
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

/// Looks at the page in every view.
fn look(browser: &mut Browser, name: &str, found: &mut Vec<String>) {
    for scheme in ["light", "dark"] {
        for width in WIDTHS {
            browser.view(width, scheme);
            let view = format!("{name}, {scheme}, {width} pixels");
            found.extend(browser.barriers().into_iter().map(|barrier| format!("{view}: {barrier}")));
            if browser.scrolls_sideways() {
                found.push(format!("{view}: scrolls sideways"));
            }
        }
    }
}
