//! Lists and batches.

use serde_json::{Value, json};

use crate::harness::authority::{Authority, Org};
use crate::harness::wait::until;

fn statuses(answer: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    answer["results"].as_array().unwrap().iter().map(|item| (text(item, "deviceId"), text(item, "status"))).collect()
}

fn expect(answer: &Value, results: &[(&str, &str)]) {
    let results: Vec<_> = results.iter().map(|(id, word)| ((*id).to_owned(), (*word).to_owned())).collect();
    assert_eq!(statuses(answer), results);
}

fn listed(org: &Org<'_>, query: &str) -> (Vec<String>, Value) {
    let answer = org.get(&format!("/devices/list{query}")).json();
    assert_eq!((&answer["status"], &answer["handler"]), (&json!("ok"), &json!("devices/list")), "{answer}");
    let ids = answer["devices"].as_array().unwrap().iter().map(|d| d["deviceId"].as_str().unwrap().to_owned());
    (ids.collect(), answer)
}

#[test]
fn a_batch_revoke_says_what_became_of_each_distinct_id() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b", "c"]);
    org.device("revoke", "b");
    let ids = json!({"deviceIds": ["a", "b", "unknown", "not valid", " a ", "a", "not valid"]});
    let reply = org.post("/devices/revoke_batch", &ids);
    assert_eq!(reply.status, 200);
    let answer = reply.json();
    expect(&answer, &[("a", "revoked"), ("b", "already_revoked"), ("unknown", "not_found"), ("not valid", "invalid")]);
    assert_eq!((&answer["handler"], &answer["devicesUsed"]), (&json!("devices/revoke_batch"), &json!(1)));
    assert_eq!((org.code("a").as_str(), org.code("c").as_str()), ("DEVICE_REVOKED", "ALLOW"));
}

#[test]
fn all_active_are_revoked_at_once_and_counted() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a", "b", "c"]);
    org.device("revoke", "b");
    let all = json!({"scope": "all_active"});
    assert_eq!(org.post("/devices/revoke_batch", &all).json()["revokedCount"], 2);
    assert_eq!(org.post("/devices/revoke_batch", &all).json()["revokedCount"], 0);
    assert_eq!(org.get("/usage").json()["devicesUsed"], 0);
}

#[test]
fn a_batch_unrevoke_restores_in_order_up_to_the_plan() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a", "b", "c"]);
    org.post("/devices/revoke_batch", &json!({"scope": "all_active"}));
    org.register(&["d"]);
    let ids = json!({"deviceIds": ["d", "c", "not valid", "unknown", "a", "b"]});
    let answer = org.post("/devices/unrevoke_batch", &ids).json();
    let expected =
        [("d", "ok"), ("c", "ok"), ("not valid", "invalid"), ("unknown", "not_found"), ("a", "ok"), ("b", "blocked")];
    expect(&answer, &expected);
    assert_eq!(answer["results"][5]["error"], "device_limit_reached");
    assert_eq!((&answer["devicesUsed"], &answer["remaining"]), (&json!(3), &json!(0)));
}

#[test]
fn all_revoked_are_restored_newest_first_and_sampled() {
    let authority = Authority::start();
    let org = authority.org("free");
    let all = json!({"scope": "all_revoked"});
    let answer = org.post("/devices/unrevoke_batch", &all).json();
    assert_eq!(
        (&answer["unrevokedCount"], &answer["unrevokedSample"], &answer["reason"]),
        (&json!(0), &json!([]), &json!("none_revoked"))
    );
    org.register(&["a", "b", "c"]);
    for id in ["b", "a", "c"] {
        org.device("revoke", id);
    }
    org.register(&["d"]);
    let answer = org.post("/devices/unrevoke_batch", &all).json();
    assert_eq!(
        (&answer["unrevokedCount"], &answer["unrevokedSample"], &answer["reason"]),
        (&json!(2), &json!(["c", "a"]), &json!(null))
    );
    let answer = org.post("/devices/unrevoke_batch", &all).json();
    assert_eq!((&answer["unrevokedCount"], &answer["reason"]), (&json!(0), &json!("at_cap")));
}

#[test]
fn a_sample_holds_at_most_25_ids() {
    let authority = Authority::start();
    let org = authority.org("scale");
    for number in 0..30 {
        org.device("register", &format!("d{number}"));
    }
    org.post("/devices/revoke_batch", &json!({"scope": "all_active"}));
    let answer = org.post("/devices/unrevoke_batch", &json!({"scope": "all_revoked"})).json();
    assert_eq!(answer["unrevokedCount"], 30);
    assert_eq!(answer["unrevokedSample"].as_array().map(Vec::len), Some(25));
}

#[test]
fn a_batch_takes_500_ids_of_the_largest_size_and_no_more() {
    let authority = Authority::start();
    let org = authority.org("free");
    let ids: Vec<String> = (0..501).map(|number| format!("{number:0>128}")).collect();
    for path in ["/devices/revoke_batch", "/devices/unrevoke_batch"] {
        let reply = org.post(path, &json!({"deviceIds": ids[..500]}));
        assert_eq!((reply.status, statuses(&reply.json()).len()), (200, 500), "{path}");
        let reply = org.post(path, &json!({"deviceIds": ids}));
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("too_many_device_ids")), "{path}");
    }
}

#[test]
fn a_batch_that_is_unclear_does_nothing() {
    let authority = Authority::start();
    let org = authority.org("free");
    org.register(&["a"]);
    for body in [
        json!({}),
        json!([]),
        json!({"deviceIds": []}),
        json!({"deviceIds": "a"}),
        json!({"deviceIds": ["a", 1]}),
        json!({"scope": "everything"}),
        json!({"scope": "all_revoked"}),
        json!({"scope": "all_active", "deviceIds": ["a"]}),
    ] {
        let reply = org.post("/devices/revoke_batch", &body);
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("missing_params")), "{body}");
    }
    assert_eq!(org.code("a"), "ALLOW");
}

#[test]
fn a_list_holds_every_device_with_its_times() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["b", "a"]);
    org.device("revoke", "b");
    let (ids, answer) = listed(&org, "");
    assert_eq!(ids, ["a", "b"]);
    let (a, b) = (&answer["devices"][0], &answer["devices"][1]);
    assert_eq!((&a["status"], &b["status"]), (&json!("active"), &json!("revoked")));
    assert_eq!((&a["revokedAt"], &a["lastSeenAt"]), (&json!(null), &json!(null)));
    for time in [&a["createdAt"], &b["createdAt"], &b["revokedAt"]] {
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
    assert_eq!((&answer["limit"], &answer["devicesUsed"]), (&json!(25), &json!(1)));
    assert!(answer.get("nextCursor").is_none());
    // A validation is noticed soon, but nothing waits for that.
    org.code("a");
    until("the validation is in the list", || {
        listed(&org, "").1["devices"][0]["lastSeenAt"].as_str().map(str::to_owned)
    });
}

#[test]
fn a_list_can_be_filtered_and_paged() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["x:1", "x:2", "x:3", "y:1", "y:2"]);
    org.device("revoke", "x:2");
    let ids = |query: &str| listed(&org, query).0;
    assert_eq!(ids("?status=revoked"), ["x:2"]);
    assert_eq!(ids("?status=active&q=x"), ["x:1", "x:3"]);
    assert_eq!(ids("?q=%3A2"), ["x:2", "y:2"]);
    assert!(ids("?q=%25").is_empty());
    let mut pages = Vec::new();
    let mut query = "?limit=2".to_owned();
    while pages.len() < 10 {
        let (page, answer) = listed(&org, &query);
        pages.push(page);
        let Some(next) = answer["nextCursor"].as_str() else { break };
        query = format!("?limit=2&cursor={next}");
    }
    assert_eq!(pages, [vec!["x:1", "x:2"], vec!["x:3", "y:1"], vec!["y:2"]]);
    for query in ["?status=other", "?limit=0", "?limit=1001", "?limit=x", "?cursor=not+valid"] {
        assert_eq!(org.get(&format!("/devices/list{query}")).status, 400, "{query}");
    }
}
