//! Many ids: from files and stdin, over the limit of one request, with part of it failing.

use super::fixture::{Authority, RunToEnd, Scripted, file, machineid, response};

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("worker:{n:04}")).collect()
}

#[test]
fn a_thousand_and_two_hundred_ids_go_in_three_requests_and_each_is_answered() {
    let authority = Authority::start("max");
    let known = ids(30);
    authority.register(&known.iter().map(String::as_str).collect::<Vec<_>>());
    let all = ids(1_200);
    let ran = authority.run_with(&["revoke", "-", "--json", "--yes"], &all.join("\n"));
    assert_eq!(ran.code, 1, "1,170 of them are unknown");
    let results = ran.results();
    assert_eq!(results.len(), 1_200);
    for (n, (id, result)) in results.iter().enumerate() {
        assert_eq!((id, result.as_str()), (&all[n], if n < 30 { "revoked" } else { "not_found" }));
    }
    let ran = authority.run_with(&["unrevoke", "-", "--json"], &known.join("\n"));
    assert_eq!((ran.code, &ran.json()["succeeded"]), (0, &30.into()), "{}", ran.err);
}

#[test]
fn ids_come_from_arguments_file_and_stdin_each_once() {
    let authority = Authority::start("pro");
    let (_directory, path) = file("# the fleet\nworker:1\n\n  worker:2  \r\nworker:1\n");
    let ran = authority.run_with(
        &["register", "cron:1", "-", "cron:1", "--from", path.to_str().unwrap(), "--json"],
        "stdin:1\nworker:2\n# no\n",
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let ids: Vec<_> = ran.results().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["cron:1", "stdin:1", "worker:2", "worker:1"]);
    let ran = authority.run_with(&["validate", "--from", "-"], "worker:1\n");
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn no_id_at_all_is_a_mistake_and_not_a_success() {
    let authority = Authority::start("free");
    for verb in ["register", "validate", "revoke", "unrevoke", "remove"] {
        let ran = authority.run(&[verb]);
        assert!(ran.code == 2 && ran.err.contains("no device given"), "{ran:?}");
        let ran = authority.run_with(&[verb, "-"], "\n# nothing\n");
        assert!(ran.code == 2 && ran.err.contains("contains no id"), "{ran:?}");
    }
    let ran = authority.run(&["revoke", "--from", "/nonexistent/ids"]);
    assert!(ran.code == 2 && ran.err.contains("/nonexistent/ids"), "{ran:?}");
}

#[test]
fn text_that_is_no_id_is_refused_before_anything_is_sent() {
    let (server, address) = Scripted::tcp(&[response("200 OK", r#"{"status":"ok"}"#)]);
    for verb in ["register", "validate", "remove"] {
        let ran = machineid(&[verb, "good", "not good", "bad\u{1b}[2J", "--url", &format!("http://{address}")])
            .env("MACHINEID_ORG_KEY", "org_x")
            .ran();
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("not good") && ran.err.contains("bad") && !ran.err.contains('\u{1b}'), "{ran:?}");
        assert!(!ran.err.contains("\"good\""), "{ran:?}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_stop_reaches_ids_that_this_program_would_not_register() {
    let authority = Authority::start("free");
    authority.register(&["a"]);
    let ran = authority.run(&["revoke", "a", "no id of ours", "--json"]);
    assert_eq!(ran.code, 1);
    let results = ran.results();
    assert_eq!(results[0].1, "revoked");
    assert_eq!(results[1], ("no id of ours".to_owned(), "invalid".to_owned()));
}

#[test]
fn one_failing_batch_does_not_keep_the_others_from_being_sent() {
    let chunk = |range: std::ops::Range<usize>| {
        let items: Vec<_> =
            ids(1_100)[range].iter().map(|id| serde_json::json!({"deviceId": id, "status": "revoked"})).collect();
        response("200 OK", &serde_json::json!({"status": "ok", "results": items}).to_string())
    };
    let broken = response("500 Internal Server Error", "{}");
    let responses = [chunk(0..500), broken.clone(), broken.clone(), broken, chunk(1_000..1_100)];
    let (server, address) = Scripted::tcp(&responses);
    let (_directory, path) = file(&ids(1_100).join("\n"));
    let url = format!("http://{address}");
    let ran = machineid(&["revoke", "--yes", "--from", path.to_str().unwrap(), "--url", &url, "--json"])
        .env("MACHINEID_ORG_KEY", "org_x")
        .ran();
    assert_eq!(ran.code, 1);
    let json = ran.json();
    assert_eq!((&json["succeeded"], &json["failed"]), (&600.into(), &500.into()));
    assert_eq!(json["results"][500]["deviceId"], "worker:0500");
    assert!(json["results"][500]["error"].as_str().unwrap().contains("HTTP 500"), "{}", json["results"][500]);
    assert_eq!(server.requests().len(), 5, "the broken one is sent three times");
}

#[test]
fn a_wrong_key_is_told_once_tried_and_the_rest_is_not_attempted() {
    let refusal = r#"{"status":"error","error":"invalid_org_key","code":"INVALID_ORG_KEY","request_id":"r-1"}"#;
    let (server, address) = Scripted::tcp(&[response("401 Unauthorized", refusal)]);
    let (_directory, path) = file(&ids(1_100).join("\n"));
    let url = format!("http://{address}");
    let ran = machineid(&["revoke", "--yes", "--from", path.to_str().unwrap(), "--url", &url, "--json"])
        .env("MACHINEID_ORG_KEY", "org_topsecret")
        .ran();
    assert_eq!(ran.code, 1);
    assert_eq!(server.requests().len(), 1);
    let json = ran.json();
    let error = json["results"][0]["error"].as_str().unwrap();
    assert!(error.contains("INVALID_ORG_KEY") && error.contains("MACHINEID_ORG_KEY"), "{error}");
    assert_eq!(json["results"][1_099]["result"], "not_attempted");
    assert!(!ran.out.contains("topsecret") && !ran.err.contains("topsecret"));
}

#[test]
fn an_authority_that_wants_a_long_pause_is_not_waited_for() {
    let busy = response("429 Too Many Requests", "{}").replace("content-type", "retry-after: 120\r\ncontent-type");
    let (server, address) = Scripted::tcp(&[busy]);
    let url = format!("http://{address}");
    for verb in ["revoke", "register"] {
        let ran = machineid(&[verb, "a", "--url", &url]).env("MACHINEID_ORG_KEY", "org_x").ran();
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.contains("HTTP 429 and asks for a retry in 2m"), "{ran:?}");
    }
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn an_id_the_authority_does_not_mention_has_failed() {
    let body = r#"{"status":"ok","results":[{"deviceId":"a","status":"revoked"}]}"#;
    let (_server, address) = Scripted::tcp(&[response("200 OK", body)]);
    let ran =
        machineid(&["revoke", "a", "b", "--url", &format!("http://{address}")]).env("MACHINEID_ORG_KEY", "org_x").ran();
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("a  revoked") && ran.out.contains("b  failed"), "{ran:?}");
    assert!(ran.err.contains("1 of 2 devices failed"), "{ran:?}");
}
