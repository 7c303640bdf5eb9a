//! Tests of the endpoints other than validate.

use machineid_protocol::api::BatchItem;

use super::*;

async fn register(status: &str, body: &str) -> Result<Registration, Failure> {
    let server = RawServer::start([Act::Write(json(status, body))]);
    client(&server).register(&key(), &device()).await
}

#[tokio::test]
async fn registering_has_an_outcome_for_every_documented_answer() {
    for (status, body, outcome) in [
        ("200 OK", r#"{"status":"ok","handler":"devices/register"}"#, Registration::New),
        ("200 OK", r#"{"status":"exists"}"#, Registration::Exists),
        ("200 OK", r#"{"status":"restored"}"#, Registration::Exists),
        ("403 Forbidden", r#"{"status":"blocked","error":"device_limit_reached"}"#, Registration::LimitReached),
        ("403 Forbidden", r#"{"status":"blocked","error":"limit_reached"}"#, Registration::LimitReached),
        ("200 OK", r#"{"status":"limit_reached"}"#, Registration::LimitReached),
        ("403 Forbidden", r#"{"status":"revoked","error":"device_revoked"}"#, Registration::Revoked),
        (
            "401 Unauthorized",
            r#"{"status":"error","error":"bad key","code":"INVALID_ORG_KEY"}"#,
            Registration::Refused { status: 401, error: Some("INVALID_ORG_KEY".to_owned()) },
        ),
        (
            "400 Bad Request",
            r#"{"status":"error","error":"missing\u001b[2Jparams"}"#,
            Registration::Refused { status: 400, error: Some("missing [2Jparams".to_owned()) },
        ),
        ("404 Not Found", "<html>", Registration::Refused { status: 404, error: None }),
    ] {
        assert_eq!(register(status, body).await.unwrap(), outcome, "{status} {body}");
    }
}

#[tokio::test]
async fn registering_fails_where_nothing_was_decided() {
    for (status, body) in [
        ("200 OK", "{}"),
        ("200 OK", "<html>"),
        ("200 OK", r#"{"status":"perhaps"}"#),
        ("500 Internal Server Error", r#"{"status":"ok"}"#),
        ("503 Service Unavailable", r#"{"error":"device_revoked"}"#),
        ("429 Too Many Requests", r#"{"error":"slow down"}"#),
        ("302 Found", r#"{"status":"ok"}"#),
    ] {
        assert!(register(status, body).await.is_err(), "{status} {body}");
    }
}

#[tokio::test]
async fn a_refusal_carries_the_authority_s_words_and_request_id() {
    let body = r#"{"status":"error","error":"not_found","request_id":"r-9"}"#;
    let server = RawServer::start([Act::Write(json("404 Not Found", body))]);
    let failure = client(&server).revoke(&key(), &device(), None).await.unwrap_err();
    let Failure::Refused(refusal) = &failure else { panic!("{failure:?}") };
    assert_eq!((refusal.status, refusal.error.as_deref()), (404, Some("not_found")));
    assert_eq!(failure.to_string(), "the authority refused: not_found (HTTP 404, request r-9)");
    assert_eq!((failure.is_transient(), failure.fault()), (false, Fault::Configuration));
}

#[tokio::test]
async fn a_page_with_status_200_does_not_read_as_done() {
    for body in ["<html>", "{}", "[]", r#"{"status":"error","error":"x"}"#] {
        let server = RawServer::start([Act::Write(json("200 OK", body))]);
        let client = client(&server);
        let (key, device) = (key(), device());
        let batch = BatchRequest::Ids(vec!["a".to_owned()]);
        assert!(client.revoke(&key, &device, None).await.is_err(), "{body}");
        assert!(client.unrevoke(&key, &device, None).await.is_err(), "{body}");
        assert!(client.remove(&key, &device, None).await.is_err(), "{body}");
        assert!(client.revoke_batch(&key, &batch, None).await.is_err(), "{body}");
        assert!(client.unrevoke_batch(&key, &batch, None).await.is_err(), "{body}");
        assert!(client.list(&key, &ListFilter::default()).await.is_err(), "{body}");
        assert!(client.usage(&key).await.is_err(), "{body}");
        assert!(client.checkout(&key, "pro").await.is_err(), "{body}");
        assert!(client.org_create().await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn a_list_is_filtered_even_where_the_authority_does_not_filter() {
    let body = r#"{"status":"ok","planTier":"pro","devices":[
        {"deviceId":"worker:1","status":"active"},{"deviceId":"worker:2","status":"revoked"},{"deviceId":"x","status":"active"}]}"#;
    let server = RawServer::start([Act::Write(json("200 OK", body))]);
    let filter = ListFilter { status: Some(DeviceStatus::Active), search: Some("Work&er=".to_owned()) };
    assert!(client(&server).list(&key(), &filter).await.unwrap().devices.is_empty());
    let filter = ListFilter { status: Some(DeviceStatus::Active), search: Some("work".to_owned()) };
    let list = client(&server).list(&key(), &filter).await.unwrap();
    assert_eq!(list.devices.iter().map(|device| device.device_id.as_str()).collect::<Vec<_>>(), ["worker:1"]);
    assert_eq!(list.plan.plan_tier.as_deref(), Some("pro"));
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /api/v1/devices/list?status=active&q=Work%26er%3D HTTP/1.1"), "{requests:?}");
    assert!(!requests[0].contains("content-type"), "{requests:?}");
}

#[tokio::test]
async fn both_batch_forms_are_sent_and_read() {
    let body = r#"{"status":"ok","results":[{"deviceId":"a","status":"revoked"},{"deviceId":"b","status":"blocked","error":"device_limit_reached"}]}"#;
    let all = r#"{"status":"ok","revokedCount":3}"#;
    let server = RawServer::start([Act::Write(json("200 OK", body)), Act::Write(json("200 OK", all))]);
    let client = client(&server);
    let ids = BatchRequest::Ids(vec!["a".to_owned(), "b".to_owned()]);
    let response = client.unrevoke_batch(&key(), &ids, None).await.unwrap();
    let blocked = Some("device_limit_reached".to_owned());
    assert_eq!(
        response.results[1],
        BatchItem { device_id: "b".to_owned(), status: "blocked".to_owned(), error: blocked }
    );
    assert_eq!(client.revoke_batch(&key(), &BatchRequest::All, None).await.unwrap().revoked_count, Some(3));
    client.unrevoke_batch(&key(), &BatchRequest::All, None).await.unwrap();
    let requests = server.requests();
    assert!(requests[0].ends_with(r#"{"deviceIds":["a","b"]}"#), "{requests:?}");
    assert!(requests[1].ends_with(r#"{"scope":"all_active"}"#), "{requests:?}");
    assert!(requests[2].ends_with(r#"{"scope":"all_revoked"}"#), "{requests:?}");
}

#[tokio::test]
async fn usage_reads_plan_fields_with_or_without_a_status() {
    let body = r#"{"planTier":"free","limit":3,"devicesUsed":1}"#;
    let server = RawServer::start([Act::Write(json("200 OK", body))]);
    let usage = client(&server).usage(&key()).await.unwrap();
    assert_eq!((usage.limit, usage.devices_used), (Some(3), Some(1)));
}

#[tokio::test]
async fn checkout_returns_only_a_web_address() {
    for (url, fit) in [
        ("https://checkout.stripe.com/c/pay/cs_1", true),
        ("http://127.0.0.1:8424/checkout/1", true),
        ("javascript:alert(1)", false),
        ("https://a/\\u001b[2J", false),
    ] {
        let server = RawServer::start([Act::Write(json("200 OK", &format!(r#"{{"status":"ok","url":"{url}"}}"#)))]);
        assert_eq!(client(&server).checkout(&key(), "scale").await.is_ok(), fit, "{url}");
    }
}

#[tokio::test]
async fn a_new_organisation_is_asked_for_without_a_key_and_never_twice() {
    let server = RawServer::start([
        Act::Write(json("200 OK", r#"{"status":"ok","orgApiKey":"org_new"}"#)),
        Act::WriteAndClose(Vec::new()),
    ]);
    let client = client(&server);
    assert_eq!(client.org_create().await.unwrap().expose(), "org_new");
    let failure = client.org_create().await.unwrap_err();
    assert!(matches!(failure, Failure::Interrupted(_)), "{failure:?}");
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(!requests[0].contains("x-org-key"), "{requests:?}");
}
