//! Where restores need two keys, the holder of one of them gives nothing back, by whatever way.

use serde_json::{Value, json};

use super::keys::machineid;
use crate::console::visitor::Visitor;
use crate::harness::authority::{Authority, Org};
use crate::harness::http::Reply;

/// The number of the request that an answer says was made in the place of what was asked for.
#[track_caller]
fn waits(answer: &Reply) -> String {
    let body = answer.json();
    assert_eq!((answer.status, &body["status"], &body["error"]), (202, &json!("waiting"), &json!("needs_approval")));
    body["approvalId"].as_str().unwrap().to_owned()
}

fn approve(org: &Org<'_>, id: &str) -> (u16, Value) {
    let answer = org.post("/org/approvals/approve", &json!({"approval": id}));
    (answer.status, answer.json()["error"].clone())
}

fn state(org: &Org<'_>, id: &str) -> Value {
    let all = org.get("/org/approvals").json()["approvals"].as_array().unwrap().clone();
    all.iter().find(|approval| approval["id"] == id).unwrap()["state"].clone()
}

#[test]
fn a_restore_waits_for_a_second_key_and_a_stop_for_none() {
    let mut authority = Authority::start();
    let id = {
        let org = authority.org("pro");
        org.register(&["a", "b", "c"]);
        let (one, two) = (org.with_role(&["--role", "operate"]), org.with_role(&["--role", "admin"]));
        let stop = org.with_role(&["--role", "stop"]);
        assert_eq!(org.admin("set", &["--restore-needs", "2"])["restoreNeeds"], 2);
        assert_eq!(stop.device("revoke", "a").status, 200);
        assert_eq!(one.device("remove", "c").status, 200, "the removal of an active device stops it");

        let unrevoke = waits(&one.device("unrevoke", "a"));
        assert_eq!(waits(&one.device("unrevoke", "a")), unrevoke, "asked again, it is the same request");
        assert_eq!(one.device("unrevoke", "b").status, 200, "nothing is restored");
        let all = waits(&one.post("/devices/unrevoke_batch", &json!({"scope": "all_revoked"})));
        let remove = waits(&one.device("remove", "a"));
        assert_eq!(org.code("a"), "DEVICE_REVOKED");
        assert_eq!(approve(&one, &unrevoke), (403, json!("same_key")));
        for (key, error) in [(&stop, "not_permitted"), (&org.with_role(&["--role", "read"]), "not_permitted")] {
            assert_eq!(approve(key, &unrevoke), (403, json!(error)));
        }
        let younger = org.with_role(&["--role", "operate"]);
        assert_eq!(approve(&younger, &unrevoke), (403, json!("key_too_new")));

        // A revoke of the same device, though it is revoked already, overtakes what would undo it.
        assert_eq!(stop.device("revoke", "b").status, 200);
        assert_eq!(state(&org, &remove), "waiting");
        assert_eq!(stop.device("revoke", "a").status, 200);
        // Listed as what they are, before a key tries to confirm them.
        for overtaken in [&unrevoke, &all, &remove] {
            assert_eq!(state(&org, overtaken), json!("void"));
        }
        for overtaken in [&unrevoke, &all, &remove] {
            assert_eq!(approve(&two, overtaken), (409, json!("overtaken_by_a_stop")));
            assert_eq!((state(&org, overtaken), org.code("a")), (json!("void"), "DEVICE_REVOKED".to_owned()));
        }
        // The execution switch: off with a key that stops, on by two.
        assert_eq!(stop.post("/org/enable", &json!({})).status, 403);
        assert_eq!(stop.post("/org/disable", &json!({})).json()["offBy"], json!(["own"]));
        assert_eq!(org.code("b"), "ORG_DISABLED");
        let enable = waits(&two.post("/org/enable", &json!({})));
        assert_eq!(approve(&one, &enable), (403, json!("not_permitted")), "it may not switch");
        assert_eq!(approve(&org, &enable), (200, Value::Null));
        assert_eq!(approve(&org, &enable), (409, json!("already_decided")));

        let rejected = waits(&two.device("unrevoke", "b"));
        assert_eq!(stop.post("/org/approvals/reject", &json!({"approval": rejected})).status, 200);
        assert_eq!(approve(&one, &rejected), (409, json!("already_decided")));

        let again = waits(&one.post("/devices/unrevoke", &json!({"deviceId": "a", "reason": "repaired"})));
        (org.id.clone(), org.key.clone(), two.key.clone(), again)
    };
    // What waits survives a crash.
    authority.kill();
    authority.start_again();
    let (org, key, two, approval) = id;
    let org = Org { authority: &authority, id: org, key };
    let two = Org { authority: &authority, id: org.id.clone(), key: two };
    let listed = String::from_utf8(machineid(&two, &["approvals"]).stdout).unwrap();
    assert!(listed.contains(&approval) && listed.contains("unrevoke a") && listed.contains("repaired"), "{listed}");
    let approved = machineid(&two, &["approve", &approval, "--reason", "seen"]);
    assert!(approved.status.success(), "{approved:?}");
    assert_eq!(org.code("a"), "ALLOW");
    let audit = org.get("/org/audit").json()["entries"].as_array().unwrap().clone();
    let of = |verb: &str| audit.iter().find(|entry| entry["verb"] == verb).unwrap().clone();
    let (asked, confirmed) = (of("org/approvals/ask"), of("org/approvals/approve"));
    assert_eq!((&asked["deviceId"], &asked["reason"]), (&json!("a"), &json!("repaired")));
    assert_eq!((&confirmed["details"]["askedBy"], &confirmed["reason"]), (&asked["actor"], &json!("seen")));
    assert_ne!(confirmed["actor"], asked["actor"]);
}

#[test]
fn the_command_line_says_in_one_form_that_something_waits_for_a_second_key() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b"]);
    let set = authority.admin(&["set", &org.id, "--restore-needs", "2"]);
    let warned = String::from_utf8_lossy(&set.stderr).into_owned();
    assert!(set.status.success() && warned.contains("Only one key may restore"), "{set:?}");
    let off = machineid(&org, &["org", "disable", "--yes", "--reason", "storm"]);
    assert!(off.status.success(), "{off:?}");
    org.device("revoke", "a");
    org.device("revoke", "b");
    for command in [
        &["unrevoke", "a"][..],
        &["unrevoke", "a", "b"],
        &["unrevoke", "--all-revoked", "--yes"],
        &["remove", "a", "--revoked"],
        &["org", "enable"],
        &["key", "create", "--role", "operate"],
    ] {
        let told = machineid(&org, command);
        let (out, note) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        assert_eq!(told.status.code(), Some(3), "{command:?}: {told:?}");
        assert!(note.contains("machineid: Nothing was done yet: another key of the role"), "{command:?}: {note}");
        assert!(out.contains("waiting  ") || out.starts_with("org_"), "{command:?}: {out}");
        let told = machineid(&org, &[command, &["--json"]].concat());
        let json: Value = serde_json::from_slice(&told.stdout).unwrap();
        let id = json["waiting"][0]["approvalId"].as_str().unwrap_or_else(|| panic!("{command:?}: {json}"));
        assert_eq!((told.status.code(), state(&org, id)), (Some(3), json!("waiting")), "{command:?}");
    }
    // The operator's switch as well: what waits would not be enough.
    authority.admin_json(&["disable", &org.id, "--reason", "unpaid"]);
    let told = machineid(&org, &["org", "enable"]);
    assert!(String::from_utf8_lossy(&told.stderr).contains("only the operator takes that back"), "{told:?}");
    let shown = authority.admin(&["show", &org.id]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for part in ["the organisation's own switch is off since", "storm", "the operator's switch is off since", "unpaid"]
    {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}

#[test]
fn no_key_makes_or_becomes_the_second_one() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    let thief = org.with_role(&["--role", "admin", "--name", "thief"]);
    let other = org.with_role(&["--role", "admin", "--name", "other"]);
    org.admin("set", &["--restore-needs", "2"]);
    org.device("revoke", "a");

    // A key of its own making: it is not valid before a second one confirms it.
    let made = thief.post("/org/keys/create", &json!({"role": "operate", "name": "second"}));
    let request = waits(&made);
    let second =
        Org { authority: &authority, id: org.id.clone(), key: made.json()["orgApiKey"].as_str().unwrap().to_owned() };
    assert_eq!(second.get("/usage").status, 401);
    assert_eq!(thief.post("/org/keys/create", &json!({"role": "stop"})).status, 200, "it restores nothing");
    // The key of another holder, and the organisation's own.
    let rotated = thief.post("/org/keys/rotate", &json!({"key": "other"}));
    assert_eq!((rotated.status, &rotated.json()["error"]), (403, &json!("not_its_holder")));
    let mut console = Visitor::signed_in(&thief);
    let settings = format!("/console/org/{}/settings", org.id);
    console.get(&settings);
    let own = console.post(&format!("{settings}/rotate-key"), &[("overlap", "1h"), ("confirm", "rotate")]);
    assert_eq!(own.status, 400, "{}", own.text);
    // Its own, before and after the request.
    let unrevoke = waits(&thief.device("unrevoke", "a"));
    let renewed = thief.post("/org/keys/rotate", &json!({"key": "thief", "overlapSeconds": 3_600})).json();
    let renewed =
        Org { authority: &authority, id: org.id.clone(), key: renewed["orgApiKey"].as_str().unwrap().to_owned() };
    assert_eq!(approve(&renewed, &unrevoke), (403, json!("key_too_new")));
    assert_eq!(thief.device("unrevoke", "a").json()["error"], "old_key");
    let unrevoke = waits(&renewed.device("unrevoke", "a"));
    assert_eq!(approve(&thief, &unrevoke), (403, json!("old_key")));
    // The console is no way around.
    let mut console = Visitor::signed_in(&renewed);
    console.get(&format!("/console/org/{}", org.id));
    let restored = console.post(&format!("/console/org/{}/devices", org.id), &[("action", "restore"), ("id", "a")]);
    assert_eq!(restored.status, 202, "{}", restored.text);
    assert_eq!(org.code("a"), "DEVICE_REVOKED");

    // The other holder sees it, and confirms it in the console.
    let mut console = Visitor::signed_in(&other);
    let page = format!("/console/org/{}/approvals", org.id);
    assert!(console.get(&page).text.contains("unrevoke a"));
    let confirmed = console.post(&page, &[("approval", &unrevoke), ("decision", "approve")]);
    assert_eq!(confirmed.status, 303, "{}", confirmed.text);
    assert_eq!(org.code("a"), "ALLOW");
    // The request of a key that has been replaced is void.
    assert_eq!(approve(&other, &request), (409, json!("asker_gone")));
    // The server's operator needs no second key, and may take the rule back.
    assert_eq!(org.admin("set", &["--restore-needs", "1"])["restoreNeeds"], 1);
    org.device("revoke", "a");
    assert_eq!(org.device("unrevoke", "a").status, 200);
}

#[test]
fn execution_is_switched_off_by_a_key_that_stops_and_on_by_one_that_administers() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    for role in ["host", "read"] {
        assert_eq!(org.with_role(&["--role", role]).post("/org/disable", &json!({})).status, 403, "{role}");
    }
    let stop = org.with_role(&["--role", "stop"]);
    let off = machineid(&stop, &["org", "disable", "--yes", "--reason", "storm"]);
    assert!(off.status.success() && org.code("a") == "ORG_DISABLED", "{off:?}");
    assert!(!machineid(&stop, &["org", "disable"]).status.success(), "without a terminal it does not guess");
    for role in ["stop", "operate"] {
        assert_eq!(org.with_role(&["--role", role]).post("/org/enable", &json!({})).status, 403, "{role}");
    }
    org.admin("disable", &["--reason", "unpaid"]);
    let on = machineid(&org, &["org", "enable"]);
    let told = String::from_utf8_lossy(&on.stdout).into_owned();
    assert!(!on.status.success() && told.contains("the operator of the authority switched it off"), "{on:?}");
    assert!(told.contains("the switch operator is off since") && told.contains(": unpaid"), "{told}");
    assert_eq!(org.code("a"), "ORG_DISABLED");
    org.admin("enable", &[]);
    assert_eq!(org.code("a"), "ALLOW");
    assert!(machineid(&org, &["org", "enable"]).status.success());
}
