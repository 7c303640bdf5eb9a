//! What the pages show and do.

use std::process::Command;

use serde_json::json;

use super::visitor::{Visitor, encoded};
use crate::harness::authority::{Authority, BINARY, Org};

pub(super) fn place(org: &Org<'_>) -> String {
    format!("/console/org/{}", org.id)
}

/// The operator of the server, signed in.
pub(super) fn operator(authority: &Authority) -> Visitor<'_> {
    let output = Command::new(BINARY)
        .args(["console-link", "--json", "--admin-socket"])
        .arg(authority.admin_socket())
        .output()
        .unwrap();
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let url = made["url"].as_str().unwrap().to_owned();
    let mut visitor = Visitor::new(authority);
    let reply = visitor.post_raw(url.strip_prefix(&authority.url()).unwrap(), &[], &[]);
    assert_eq!(reply.header("location"), Some("/console/orgs"), "{}", reply.text);
    visitor.follow(&reply);
    visitor
}

/// The organisation's audit, the newest first: verb, actor, outcome, reason.
fn audited(org: &Org<'_>) -> Vec<[String; 4]> {
    let entries = org.get("/org/audit").json()["entries"].as_array().unwrap().clone();
    let line = |entry: &serde_json::Value| {
        ["verb", "actor", "outcome", "reason"].map(|name| entry[name].as_str().unwrap_or("").to_owned())
    };
    entries.iter().map(line).collect()
}

/// The text between the first `before` and the next `after` of it.
pub(super) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} behind {before}")).0
}

#[test]
fn a_fleet_is_searched_filtered_and_turned_by_pages() {
    let authority = Authority::start();
    let org = authority.org("scale");
    let ids: Vec<String> = (0..120).map(|number| format!("web-{number:03}")).collect();
    org.register(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    org.register(&["db:1", "db:2"]);
    org.device("revoke", "db:2");
    let mut visitor = Visitor::signed_in(&org);
    let shown = |text: &str| text.matches(r#"type="checkbox""#).count();
    let first = visitor.get(&place(&org)).text;
    assert!(shown(&first) == 100 && first.contains("121 of 250 places taken"), "{first}");
    let next = between(&first, "", r#"" rel="next""#).rsplit("href=\"").next().unwrap().replace("&amp;", "&");
    let next = next.replace("&#38;", "&");
    let second = visitor.get(&next).text;
    assert!(shown(&second) == 22 && second.contains("First page") && !second.contains("rel=\"next\""), "{second}");
    assert!(first.contains("web-097") && !second.contains("web-097") && second.contains("web-119"));

    let found = visitor.get(&format!("{}?q=db%3A", place(&org))).text;
    assert!(shown(&found) == 2 && found.contains("DEVICE_REVOKED") && found.contains("Revoked"), "{found}");
    assert!(found.contains(r#"value="db:""#), "the search stays in its field");
    let found = visitor.get(&format!("{}?q=db%3A&state=active", place(&org))).text;
    assert!(shown(&found) == 1 && found.contains("db:1") && !found.contains("db:2"), "{found}");
    let none = visitor.get(&format!("{}?q=nothing", place(&org))).text;
    assert!(none.contains("Nothing found") && none.contains("Show all"), "{none}");
    for wrong in ["?state=maybe", "?q=a%00b", "?after=no%20id", &format!("?q={}", "x".repeat(129))] {
        assert_eq!(visitor.get(&format!("{}{wrong}", place(&org))).status, 400, "{wrong}");
    }
}

#[test]
fn selected_devices_are_revoked_and_restored_with_a_result_for_each() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a", "b", "c"]);
    let mut visitor = Visitor::signed_in(&org);
    let path = format!("{}/devices", place(&org));
    let two = [("action", "revoke"), ("id", "a"), ("id", "ghost"), ("reason", "gone <b>mad</b>")];
    let done = visitor.sent(&path, &two).text;
    assert!(done.contains("1 of 2") && done.contains("is not known"), "{done}");
    let denied = org.device("validate", "a").json();
    assert!(denied["reason"].as_str().unwrap().contains("gone <b>mad</b>"), "{denied}");
    org.register(&["d"]);
    visitor.get(&place(&org));
    let done = visitor.sent(&path, &[("action", "restore"), ("id", "a"), ("id", "b")]).text;
    assert!(done.contains("no place left") && done.contains("was active already"), "{done}");
    let lines = audited(&org);
    assert_eq!(lines[0][0], "devices/unrevoke_batch");
    let revoke = lines.iter().find(|line| line[0] == "devices/revoke_batch").unwrap();
    assert!(revoke[1].starts_with("console:key:") && revoke[3] == "gone <b>mad</b>", "{revoke:?}");
    let long = "x".repeat(201);
    for wrong in [
        &[("action", "revoke")][..],
        &[("action", "explode"), ("id", "b")],
        &[("action", "revoke"), ("id", "b"), ("reason", &long)],
    ] {
        assert_eq!(visitor.post(&path, wrong).status, 400, "{wrong:?}");
    }
    assert_eq!(org.code("b"), "ALLOW");
}

#[test]
fn devices_are_removed_only_when_their_number_was_typed() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a", "b"]);
    let mut visitor = Visitor::signed_in(&org);
    let path = format!("{}/devices", place(&org));
    let both = [("action", "remove"), ("id", "a"), ("id", "b"), ("reason", "scrapped")];
    let asked = visitor.sent(&path, &both).text;
    assert!(asked.contains("Type the number of devices, 2") && asked.contains(r#"value="scrapped""#), "{asked}");
    let wrong = visitor.sent(&path, &[&both[..], &[("confirm", "1")]].concat()).text;
    assert!(wrong.contains("Nothing was removed") && org.code("a") == "ALLOW", "{wrong}");
    let done = visitor.sent(&path, &[&both[..], &[("confirm", "2")]].concat()).text;
    assert!(done.contains("Removed: 2 of 2"), "{done}");
    assert_eq!(org.code("a"), "DEVICE_NOT_FOUND");
    let lines = audited(&org);
    for line in &lines[..2] {
        assert_eq!([&line[0], &line[2], &line[3]], ["devices/remove", "ok", "scrapped"]);
    }
}

#[test]
fn what_people_and_programs_wrote_stays_text_on_every_page() {
    const HOSTILE: &str = r#"<script>alert("1")</script><img src=x onerror='alert(2)'>"#;
    let authority = Authority::start();
    let made = authority.admin_json(&["create", "--plan", "pro", "--name", HOSTILE]);
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let org = Org { authority: &authority, id: text("orgId"), key: text("orgApiKey") };
    org.register(&["a", "b"]);
    org.post("/devices/revoke", &json!({"deviceId": "a", "reason": HOSTILE}));
    org.post("/devices/report", &json!({
        "sidecarId": "000000000000000000000000000000a1", "sequence": 1, "version": HOSTILE, "hostDeviceId": "a",
        "push": true, "agents": 1, "stopBound": {"connectedMs": 1, "cutOffMs": 2},
        "devices": [{"deviceId": "a", "standing": "denied", "code": HOSTILE, "agents": 1, "stopping": 0}],
        "stops": [{"deviceId": "a", "runId": "0".repeat(32), "name": HOSTILE, "code": HOSTILE, "agoMs": 1, "tookMs": 1,
            "signalled": 1, "killed": 0, "confirmed": false, "survivors": [{"pid": 7, "reason": HOSTILE}]}],
    }));
    let mut visitor = operator(&authority);
    let place = place(&org);
    let query = encoded(HOSTILE);
    let pages = [
        "/console/orgs".to_owned(),
        place.clone(),
        format!("{place}?q={query}"),
        format!("{place}/device?id=a"),
        format!("{place}/settings"),
        format!("{place}/settings?done={query}"),
        format!("{place}/audit"),
        format!("{place}/audit?device={query}&verb={query}&who={query}"),
        format!("{place}/stop"),
        format!("/console/sign-in?next={query}"),
        format!("/console/{query}"),
    ];
    for path in pages {
        let page = visitor.get(&path);
        assert!(page.status < 500, "{path}: {}", page.text);
        for markup in ["<script>alert", "<img", "onerror='"] {
            assert!(!page.text.contains(markup), "{markup} on {path}: {}", page.text);
        }
    }
    let device = visitor.get(&format!("{place}/device?id=a")).text;
    assert!(device.contains("alert") && device.contains("survivors") && device.contains("7: "), "{device}");
    let reply = visitor.sent(
        &format!("{place}/devices"),
        &[("action", "remove"), ("id", HOSTILE), ("reason", HOSTILE), ("confirm", "no")],
    );
    assert!(reply.status == 200 && !reply.text.contains("<script>alert"), "{}", reply.text);
}

#[test]
fn a_device_shows_what_its_sidecar_tells_and_how_far_its_stop_is() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["host:1"]);
    let mut visitor = Visitor::signed_in(&org);
    let path = format!("{}/device?id={}", place(&org), encoded("host:1"));
    assert!(visitor.get(&path).text.contains("None told anything"));
    let tell = |standing: &str, stamp: Option<&str>, agents: u32, sequence: u32, stops: serde_json::Value| {
        let reply = org.post("/devices/report", &json!({
            "sidecarId": "000000000000000000000000000000a1", "sequence": sequence, "version": "9.8.7",
            "hostDeviceId": "host:1", "push": true, "agents": agents,
            "stopBound": {"connectedMs": 15_500, "cutOffMs": 86_400_000}, "stops": stops,
            "devices": [{"deviceId": "host:1", "standing": standing, "revokedAt": stamp, "agents": agents, "stopping": 0}],
        }));
        assert_eq!(reply.status, 200, "{}", reply.text);
    };
    tell("allowed", None, 3, 1, json!([]));
    let fleet = visitor.get(&place(&org)).text;
    for word in ["9.8.7", "16 s, cut off 24 h", "data-label=\"Agents\">3", "3 agents run"] {
        assert!(fleet.contains(word), "{word}: {fleet}");
    }
    visitor.post(&format!("{}/devices", place(&org)), &[("action", "revoke"), ("id", "host:1")]);
    let page = visitor.get(&path).text;
    assert!(page.contains("not confirmed") && page.contains("at the latest"), "{page}");
    let stamp = org.device("validate", "host:1").json()["revokedAt"].as_str().unwrap().to_owned();
    let stop = json!([{"deviceId": "host:1", "runId": "a".repeat(32), "name": "crawler", "code": "DEVICE_REVOKED",
        "agoMs": 100, "tookMs": 1_234, "signalled": 2, "killed": 1, "confirmed": true}]);
    tell("denied", Some(&stamp), 0, 2, stop);
    let page = visitor.get(&path).text;
    for word in ["stopped, confirmed", "gone, confirmed", "crawler", "1.2 s", "devices/revoke by console:key:"] {
        assert!(page.contains(word), "{word}: {page}");
    }
    assert_eq!(visitor.get(&format!("{}/device?id=ghost", place(&org))).status, 404);
}

#[test]
fn stopping_everything_wants_the_number_and_a_reason_and_is_taken_back_in_two_steps() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b", "c", "old"]);
    org.device("revoke", "old");
    let mut visitor = Visitor::signed_in(&org);
    let path = format!("{}/stop", place(&org));
    let page = visitor.get(&path).text;
    assert!(page.contains("Type the number of devices, 3"), "{page}");
    for (confirm, reason) in [("", "drill"), ("4", "drill"), ("3", ""), ("everything", "drill")] {
        let reply = visitor.post(&path, &[("shown", "3"), ("confirm", confirm), ("reason", reason)]);
        assert!(reply.status == 400 && reply.text.contains("Nothing was stopped"), "{}", reply.text);
    }
    assert_eq!(org.code("a"), "ALLOW");
    // One that comes between the page and the answer keeps no operator from stopping, and is stopped as well.
    org.register(&["late"]);
    let reply = visitor.post(&path, &[("shown", "3"), ("confirm", "3"), ("reason", "drill")]);
    let board = reply.header("location").unwrap().to_owned();
    assert!(reply.status == 303 && board.starts_with(&format!("{path}/")), "{board}");
    for id in ["a", "b", "c", "late"] {
        assert_eq!(org.code(id), "DEVICE_REVOKED");
    }
    let line = &audited(&org)[0];
    assert!(line[0] == "devices/revoke_batch" && line[1].starts_with("console:key:") && line[3] == "drill", "{line:?}");
    assert!(visitor.get(&path).text.contains(&board), "an earlier stop is found again");
    let shown = visitor.get(&board).text;
    assert!(shown.contains("No host has confirmed") && !shown.contains("Confirmed by"), "no host reports: {shown}");

    let restore = format!("{board}/restore");
    let asked = visitor.get(&restore).text;
    assert!(asked.contains("Type the number of devices, 4") && org.code("a") == "DEVICE_REVOKED", "{asked}");
    let wrong = visitor.post(&restore, &[("shown", "4"), ("confirm", "5")]).text;
    assert!(wrong.contains("Nothing was restored") && org.code("a") == "DEVICE_REVOKED", "{wrong}");
    let done = visitor.sent(&restore, &[("shown", "4"), ("confirm", "4"), ("reason", "over")]).text;
    assert!(done.contains("4 may execute again"), "{done}");
    let codes: Vec<String> = ["a", "late", "old"].iter().map(|id| org.code(id)).collect();
    assert_eq!(codes, ["ALLOW", "ALLOW", "DEVICE_REVOKED"], "what was revoked before stays revoked");
    assert!(visitor.get(&restore).text.contains("No device is revoked by this stop any more"));
    assert_eq!(visitor.get(&format!("{path}/never/restore")).status, 404);
}

#[test]
fn execution_is_switched_off_and_on() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    let mut visitor = Visitor::signed_in(&org);
    let path = format!("{}/settings", place(&org));
    visitor.get(&path);
    let switch = format!("{path}/execution");
    assert_eq!(visitor.post(&switch, &[("execution", "off")]).status, 400);
    assert_eq!(org.code("a"), "ALLOW");
    let off = visitor.post(&switch, &[("execution", "off"), ("confirm", "off"), ("reason", "audit")]);
    let page = visitor.follow(&off).text;
    assert!(page.contains("Execution is switched off") && page.contains("Switch on"), "{page}");
    assert_eq!(org.code("a"), "ORG_DISABLED");
    assert!(visitor.get(&place(&org)).text.contains("Switched off"));
    let on = visitor.post(&switch, &[("execution", "on")]);
    assert!(visitor.follow(&on).text.contains("switched on again"));
    assert_eq!(org.code("a"), "ALLOW");
    let lines = audited(&org);
    assert_eq!([&lines[0][0], &lines[1][0], &lines[1][3]], ["org/enable", "org/disable", "audit"]);
}

#[test]
fn a_rotated_key_is_shown_once_and_its_session_goes_on() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut visitor = Visitor::signed_in(&org);
    let mut other = Visitor::signed_in(&org);
    let path = format!("{}/settings/rotate-key", place(&org));
    assert_eq!(visitor.post(&path, &[]).status, 400);
    let before = visitor.cookie.clone();
    let leaked = [("confirm", "rotate"), ("overlap", "0s"), ("reason", "leaked")];
    let page = visitor.sent(&path, &leaked).text;
    let key = between(&page, r#"<pre id="new-key">"#, "<").to_owned();
    assert!(key.starts_with("org_") && key != org.key);
    assert_ne!(visitor.cookie, before, "a session of the new key");
    assert_eq!(visitor.get(&place(&org)).status, 200);
    assert_eq!(other.get(&place(&org)).status, 303, "the old key's sessions end");
    let renewed = Org { authority: &authority, id: org.id.clone(), key };
    renewed.register(&["a"]);
    assert_eq!(org.device("register", "a").status, 401);
    assert!(audited(&renewed).iter().any(|line| line[0] == "org/rotate-key" && line[3] == "leaked"));
    assert!(!authority.log().contains(&renewed.key));
}

#[test]
fn a_plan_is_asked_for_by_the_organisation_and_confirmed_by_the_operator() {
    let authority = Authority::start();
    let org = authority.org("free");
    let mut visitor = Visitor::signed_in(&org);
    let settings = format!("{}/settings", place(&org));
    assert_eq!(visitor.post(&format!("{settings}/checkout"), &[("plan", "free")]).status, 400);
    let asked = visitor.post(&format!("{settings}/checkout"), &[("plan", "scale")]);
    let page = visitor.follow(&asked).text;
    let number = between(&page, "checkout <code>", "<").to_owned();
    assert!(!page.contains("Confirm scale"), "{page}");
    let confirm = [("action", "confirm-checkout"), ("number", number.as_str())];
    assert_eq!(visitor.post(&format!("{settings}/operate"), &confirm).status, 404, "not for the holder of the key");
    let mut operator = operator(&authority);
    let page = operator.get(&settings).text;
    assert!(page.contains("Confirm scale"), "{page}");
    let elsewhere = authority.org("free");
    operator.get(&settings);
    let wrong = operator.post(&format!("{}/settings/operate", place(&elsewhere)), &confirm);
    assert_eq!(wrong.status, 400, "a checkout of another organisation's");
    let done = operator.post(&format!("{settings}/operate"), &confirm);
    assert!(operator.follow(&done).text.contains("250 devices"));
    assert_eq!(operator.post(&format!("{settings}/operate"), &confirm).status, 400, "once");
    let line = &audited(&org)[0];
    assert!(line[0] == "org/confirm-checkout" && line[1].starts_with("console:uid:"), "{line:?}");
}

#[test]
fn the_operator_creates_freezes_expires_and_deletes_organisations() {
    let authority = Authority::start();
    let mut operator = operator(&authority);
    assert!(operator.get("/console/orgs").text.contains("There is none yet"));
    let made = operator.sent("/console/orgs", &[("name", "Acme & Sons"), ("plan", "pro")]).text;
    let key = between(&made, r#"<code id="new-key">"#, "<").to_owned();
    let id = between(&made, "<dd><code>", "<").to_owned();
    let org = Org { authority: &authority, id, key };
    org.register(&["a"]);
    let path = format!("{}/settings/operate", place(&org));
    for (action, code) in
        [("freeze", "PLAN_FROZEN"), ("unfreeze", "ALLOW"), ("expire", "ENTITLEMENT_EXPIRED"), ("renew", "ALLOW")]
    {
        let reply = operator.post(&path, &[("action", action), ("reason", "ordered")]);
        assert_eq!((reply.status, org.code("a").as_str()), (303, code), "{action}");
        assert_eq!(operator.follow(&reply).status, 200);
    }
    let reply = operator.post(&path, &[("action", "set-plan"), ("plan", "scale"), ("limit", "7")]);
    assert!(operator.follow(&reply).text.contains("1 taken, 6 left"));
    assert_eq!(operator.post(&path, &[("action", "set-plan"), ("plan", "gold")]).status, 400);
    for (at, status, code) in [("soon", 400, "ALLOW"), ("2999-01-01T00:00:00Z", 303, "ALLOW")] {
        let reply = operator.post(&path, &[("action", "expire"), ("at", at)]);
        assert_eq!((reply.status, org.code("a").as_str()), (status, code), "{at}");
    }
    assert!(operator.get(&format!("{}/settings", place(&org))).text.contains("2999-01-01 00:00:00 UTC"));
    let own = Visitor::signed_in(&org).post(&path, &[("action", "freeze")]);
    assert_eq!((own.status, org.code("a").as_str()), (404, "ALLOW"), "only the operator");
    assert_eq!(Visitor::signed_in(&org).get("/console/orgs").status, 404);
    let lines = audited(&org);
    assert!(
        lines.iter().any(|line| line[0] == "org/freeze" && line[1].starts_with("console:uid:") && line[3] == "ordered")
    );

    assert_eq!(operator.post(&path, &[("action", "delete"), ("confirm", "yes")]).status, 400);
    let gone = operator.post(&path, &[("action", "delete"), ("confirm", &org.id)]);
    assert!(operator.follow(&gone).text.contains("is deleted"));
    assert_eq!(org.code("a"), "ORG_NOT_FOUND");
    assert_eq!(operator.get(&place(&org)).status, 404);
}

#[test]
fn the_audit_is_filtered_turned_by_pages_and_exported_whole() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b"]);
    for _ in 0..60 {
        org.device("revoke", "a");
        org.device("unrevoke", "a");
    }
    let mut visitor = Visitor::signed_in(&org);
    visitor.post(&format!("{}/devices", place(&org)), &[("action", "revoke"), ("id", "b"), ("reason", "why\u{202e}")]);
    let path = format!("{}/audit", place(&org));
    let lines = |text: &str| text.matches("<tr>").count() - 1;
    let first = visitor.get(&path).text;
    assert!(lines(&first) == 100 && first.contains("console:key:"), "{first}");
    let next = between(&first, "", r#"" rel="next""#).rsplit("href=\"").next().unwrap().to_owned();
    let second = visitor.get(&next.replace("&amp;", "&").replace("&#38;", "&")).text;
    assert_eq!(lines(&second), 124 - 100);
    for (filter, count) in
        [("device=b", 2), ("verb=devices%2Frevoke&device=a", 60), ("who=console%3Akey", 1), ("device=b&who=uid", 0)]
    {
        let page = visitor.get(&format!("{path}?{filter}")).text;
        assert_eq!(page.matches("<tr>").count().saturating_sub(1), count, "{filter}: {page}");
    }
    let export = visitor.get(&format!("{path}.jsonl?verb=&device=&who="));
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    assert!(export.header("content-disposition").unwrap().starts_with("attachment"));
    assert_eq!(export.text.matches("\"verb\":").count(), 124, "{}", export.text);
    let some = visitor.get(&format!("{path}.jsonl?who=console")).text;
    assert!(some.matches("\"verb\":").count() == 1 && some.contains("why"), "{some}");
    for wrong in ["before=x", "device=%00", "who=a%0Ab"] {
        assert_eq!(visitor.get(&format!("{path}?{wrong}")).status, 400, "{wrong}");
    }
}
