//! The pages as people have them: hostile words, no script, no mouse.

use serde_json::json;

use super::{REASON, sign_in};
use crate::harness::authority::Authority;
use crate::harness::browser::{Browser, button, css, field, link, role};

/// What others write that wants to be more than text. The last one turns what follows it around.
pub(super) const HOSTILE: [&str; 4] = [
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
