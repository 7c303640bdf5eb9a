use std::time::Duration;

use machineid_protocol::Code;
use raw_server::{Act, RawServer, json, response};

use super::*;

mod encrypted;
mod management;
mod proxied;
mod raw_server;

const ALLOW: &str = r#"{"allowed":true,"code":"ALLOW","request_id":"r-1","deviceId":"agent-01"}"#;
const LONG: Duration = Duration::from_secs(30);

fn key() -> OrgKey {
    "org_topsecret".parse().unwrap()
}

fn device() -> DeviceId {
    "agent-01".parse().unwrap()
}

fn client_to(url: &str, timeout: Duration) -> AuthorityClient {
    let base_url = BaseUrl::parse(url, true).unwrap();
    AuthorityClient::new(Options {
        base_url,
        timeout,
        ca_pem: None,
        user_agent: "test/1".to_owned(),
        authority_user: None,
    })
    .unwrap()
}

fn client(server: &RawServer) -> AuthorityClient {
    client_to(&format!("http://{}", server.address), LONG)
}

/// The result of one validation against a server with these acts.
async fn validate(acts: impl IntoIterator<Item = Act>) -> Result<Decision, Failure> {
    let server = RawServer::start(acts);
    client(&server).validate(&key(), &device()).await
}

/// Asserts that the failure's text shows no key and is one sentence.
fn say(failure: &Failure) -> String {
    let text = failure.to_string();
    assert!(!format!("{text} {failure:?}").contains("topsecret"), "{failure:?}");
    assert!(!text.contains('\n'), "{text}");
    text
}

#[tokio::test]
async fn an_allow_is_asked_for_with_the_key_in_its_header_and_nowhere_else() {
    let server = RawServer::start([Act::Write(json("200 OK", ALLOW))]);
    let base = format!("http://{}/prefix/", server.address);
    let decision = client_to(&base, LONG).validate(&key(), &device()).await.unwrap();
    assert!(matches!(decision, Decision::Allow { code: Code::Allow, .. }));
    let request = server.requests().remove(0);
    assert!(request.starts_with("POST /prefix/api/v1/devices/validate HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nx-org-key: org_topsecret\r\n"), "{request}");
    assert_eq!(request.matches("topsecret").count(), 1, "{request}");
    assert!(request.contains("\r\naccept: application/json\r\n"), "{request}");
    assert!(request.contains("\r\nuser-agent: test/1\r\n"), "{request}");
    assert!(!request.contains("accept-encoding"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"deviceId\":\"agent-01\"}"), "{request}");
}

#[tokio::test]
async fn a_deny_counts_at_any_status() {
    for status in ["200 OK", "302 Found", "401 Unauthorized", "404 Not Found", "503 Service Unavailable"] {
        let body = r#"{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-2"}"#;
        let decision = validate([Act::Write(json(status, body))]).await.unwrap();
        assert!(matches!(&decision, Decision::Deny(denial) if denial.code == Code::DeviceRevoked), "{decision:?}");
    }
}

#[tokio::test]
async fn a_status_without_a_decision_is_a_failure_and_says_when_to_come_back() {
    for (status, transient, fault) in [
        ("500 Internal Server Error", true, Fault::Authority),
        ("503 Service Unavailable", true, Fault::Authority),
        ("429 Too Many Requests", true, Fault::Authority),
        ("404 Not Found", false, Fault::Configuration),
        ("401 Unauthorized", false, Fault::Configuration),
        ("201 Created", false, Fault::Configuration),
    ] {
        for body in [ALLOW, "<html>", ""] {
            let act = Act::Write(response(status, "content-type: application/json\r\nretry-after: 7\r\n", body));
            let failure = validate([act]).await.unwrap_err();
            let Failure::Status { status: number, .. } = &failure else { panic!("{status} {body}: {failure:?}") };
            assert!(status.starts_with(&number.to_string()));
            assert_eq!(failure.retry_after(), Some(Duration::from_secs(7)));
            assert_eq!((failure.is_transient(), failure.fault()), (transient, fault), "{status}");
            assert!(say(&failure).contains(&number.to_string()));
        }
    }
}

#[tokio::test]
async fn a_200_that_is_no_allow_is_a_failure() {
    for (headers, body, expected) in [
        ("content-type: text/html\r\n", "<html>", Unusable::NotJson),
        ("content-type: text/html\r\n", ALLOW, Unusable::NotJson),
        ("", ALLOW, Unusable::NotJson),
        ("content-type: application/json\r\ncontent-type: application/json\r\n", ALLOW, Unusable::NotJson),
        ("content-type: application/json\r\ncontent-encoding: gzip\r\n", ALLOW, Unusable::Encoded),
        ("content-type: application/json\r\nage: 3\r\n", ALLOW, Unusable::Stale),
        ("content-type: application/json\r\nage: 0\r\nage: 0\r\n", ALLOW, Unusable::Stale),
        ("content-type: application/json\r\n", "", Unusable::Malformed),
        ("content-type: application/json\r\n", &ALLOW[..ALLOW.len() - 1], Unusable::Malformed),
        ("content-type: application/json\r\n", r#"{"allowed":"true","code":"ALLOW"}"#, Unusable::NoAnswer),
    ] {
        let failure = validate([Act::Write(response("200 OK", headers, body))]).await.unwrap_err();
        assert!(matches!(&failure, Failure::Unusable(why) if *why == expected), "{headers} {body}: {failure:?}");
        assert!(failure.is_transient());
        say(&failure);
    }
}

#[tokio::test]
async fn an_answer_cut_off_is_never_an_allow() {
    let whole = json("200 OK", ALLOW);
    for length in [0, 1, 20, whole.len() - ALLOW.len(), whole.len() - 1] {
        let part = whole[..length].to_vec();
        for act in [Act::WriteAndClose(part.clone()), Act::WriteAndReset(part)] {
            let failure = validate([act.clone()]).await.unwrap_err();
            assert!(matches!(failure, Failure::Interrupted(_)), "{act:?}: {failure:?}");
            assert_eq!((failure.is_transient(), failure.fault()), (true, Fault::Network));
            say(&failure);
        }
    }
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = format!("{chunked}{:x}\r\n{ALLOW}\r\n", ALLOW.len());
    let failure = validate([Act::WriteAndClose(body.into_bytes())]).await.unwrap_err();
    assert!(matches!(failure, Failure::Interrupted(_)), "{failure:?}");
}

#[tokio::test]
async fn an_answer_too_long_is_given_up_early_whether_announced_or_not() {
    let announced = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10000000\r\n\r\n";
    let padding = format!("{ALLOW}{}", " ".repeat(SMALL_ANSWER));
    let unannounced = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{padding}");
    // Neither server ends its answer: a client that waited for the end would time out.
    for bytes in [announced.as_bytes().to_vec(), unannounced.into_bytes()] {
        let failure = validate([Act::Write(bytes)]).await.unwrap_err();
        assert!(matches!(failure, Failure::TooLarge { limit: SMALL_ANSWER }), "{failure:?}");
        assert_eq!(failure.fault(), Fault::Authority);
        say(&failure);
    }
}

#[tokio::test]
async fn an_allow_of_exactly_the_limit_is_taken() {
    let body = format!("{ALLOW}{}", " ".repeat(SMALL_ANSWER - ALLOW.len()));
    assert!(matches!(validate([Act::Write(json("200 OK", &body))]).await, Ok(Decision::Allow { .. })));
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let other = RawServer::start([Act::Write(json("200 OK", ALLOW))]);
    for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent"] {
        let headers = format!("location: http://{}/api/v1/devices/validate\r\n", other.address);
        let failure = validate([Act::Write(response(status, &headers, ""))]).await.unwrap_err();
        let Failure::Redirected { origin: Some(origin) } = &failure else { panic!("{failure:?}") };
        assert_eq!(origin, &format!("http://{}", other.address));
        assert!(!failure.is_transient());
        assert!(say(&failure).contains(origin));
    }
    assert_eq!(other.connections(), 0);
    let within = response("308 Permanent Redirect", "location: /elsewhere\r\n", "");
    let failure = validate([Act::Write(within)]).await.unwrap_err();
    assert!(matches!(failure, Failure::Redirected { origin: None }), "{failure:?}");
}

// The connection ends on another thread than the one that waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn one_timeout_covers_connecting_head_and_a_dripping_body() {
    let timeout = Duration::from_millis(400);
    let drip = Duration::from_millis(30);
    for act in [Act::Silence, Act::Drip(json("200 OK", ALLOW), drip)] {
        let server = RawServer::start([act]);
        let client = client_to(&format!("http://{}", server.address), timeout);
        let begun = machineid_clock::BootTime::now();
        let failure = client.validate(&key(), &device()).await.unwrap_err();
        let took = machineid_clock::BootTime::now().saturating_since(begun);
        assert!(matches!(failure, Failure::Timeout { after } if after == timeout), "{failure:?}");
        assert!(took >= timeout, "{took:?}");
        assert!(say(&failure).contains("400ms"));
        // Giving up closes the connection, so that the next request does not land on a dead one.
        server.wait_for_a_closed_connection();
    }
}

#[tokio::test]
async fn what_cannot_be_reached_says_which_way() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = client_to(&format!("http://{closed}"), LONG).validate(&key(), &device()).await.unwrap_err();
    assert!(matches!(failure, Failure::Connect(_)), "{failure:?}");
    assert_eq!(say(&failure), "could not connect to the authority: Connection refused");
}

#[tokio::test]
async fn a_name_without_an_address_is_named_as_such() {
    // No resolver knows a name below `invalid`, and one that cannot be asked says so as well.
    let base_url = BaseUrl::parse("http://authority.invalid", true).unwrap();
    let options =
        Options { base_url, timeout: LONG, ca_pem: None, user_agent: "test/1".to_owned(), authority_user: None };
    let failure =
        AuthorityClient::by_way_of(Proxies::None, options).unwrap().validate(&key(), &device()).await.unwrap_err();
    assert!(matches!(failure, Failure::Dns(_)), "{failure:?}");
    assert!(say(&failure).starts_with("the authority's host name could not be resolved: "), "{failure}");
}

#[tokio::test]
async fn a_search_too_long_for_http_is_no_answer() {
    let server = RawServer::start([Act::Write(json("200 OK", "{}"))]);
    let filter = ListFilter { search: Some("x".repeat(100_000)), status: None };
    let failure = client(&server).list(&key(), &filter).await.unwrap_err();
    assert!(matches!(failure, Failure::Connect(_)), "{failure:?}");
    assert_eq!(server.connections(), 0);
    say(&failure);
}

#[tokio::test]
async fn what_does_not_speak_http_is_named() {
    let failure = validate([Act::WriteAndClose(b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec())]).await.unwrap_err();
    assert!(matches!(failure, Failure::NotHttp(_)), "{failure:?}");
    assert_eq!(failure.fault(), Fault::Configuration);
    say(&failure);
}

#[tokio::test]
async fn connections_are_kept_and_a_dead_one_is_no_failure() {
    let keep = Act::Write(json("200 OK", ALLOW));
    let server = RawServer::start([
        keep.clone(),
        keep.clone(),
        // The third request finds the connection closed in the moment it is sent.
        Act::WriteAndClose(Vec::new()),
        keep.clone(),
        // The fifth, one that was reset.
        Act::WriteAndReset(Vec::new()),
        keep,
    ]);
    let client = client(&server);
    for _ in 0..4 {
        let decision = client.validate(&key(), &device()).await.unwrap();
        assert!(matches!(decision, Decision::Allow { .. }));
    }
    assert_eq!((server.requests().len(), server.connections()), (6, 3));
}

#[tokio::test]
async fn what_must_not_be_done_twice_has_a_connection_of_its_own_and_is_not_repeated() {
    let server = RawServer::start([
        Act::Write(json("200 OK", ALLOW)),
        Act::Write(json("200 OK", r#"{"status":"ok"}"#)),
        Act::WriteAndClose(Vec::new()),
    ]);
    let client = client(&server);
    client.validate(&key(), &device()).await.unwrap();
    client.remove(&key(), &device(), None).await.unwrap();
    assert_eq!((server.requests().len(), server.connections()), (2, 2));
    let failure = client.remove(&key(), &device(), None).await.unwrap_err();
    assert!(matches!(failure, Failure::Interrupted(_)), "{failure:?}");
    assert_eq!((server.requests().len(), server.connections()), (3, 3));
}

#[tokio::test]
async fn forgotten_connections_are_not_asked_on_again() {
    let server = RawServer::start([Act::Write(json("200 OK", ALLOW))]);
    let client = client(&server);
    for connections in [1, 1, 2, 2] {
        client.validate(&key(), &device()).await.unwrap();
        assert_eq!(server.connections(), connections);
        if server.requests().len() == 2 {
            client.forget_connections();
        }
    }
}

#[tokio::test]
async fn a_connection_on_which_more_came_than_an_answer_is_not_asked_on_again() {
    const DENY: &str = r#"{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-2"}"#;
    let both = [json("200 OK", DENY), json("200 OK", ALLOW)].concat();
    let closing = response("200 OK", "content-type: application/json\r\nconnection: close\r\n", DENY);
    let empty = response("204 No Content", "", "");
    for (first, counts) in [(both, true), (closing, true), (empty, false)] {
        let server = RawServer::start([Act::Write(first), Act::Write(json("200 OK", DENY))]);
        let client = client(&server);
        assert_eq!(client.validate(&key(), &device()).await.is_ok(), counts);
        let decision = client.validate(&key(), &device()).await.unwrap();
        assert!(matches!(decision, Decision::Deny(_)), "{decision:?}");
        assert_eq!((server.requests().len(), server.connections()), (2, 2));
    }
}

/// Takes the head of a request and no more, and answers at once if it answers at all.
fn deaf(answer: Option<Vec<u8>>) -> (std::net::SocketAddr, std::sync::mpsc::Receiver<std::net::TcpStream>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, taken) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let (mut head, mut byte) = (Vec::new(), [0; 1]);
            while !head.ends_with(b"\r\n\r\n") && std::io::Read::read(&mut stream, &mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            if let Some(answer) = &answer {
                std::io::Write::write_all(&mut stream, answer).unwrap();
            }
            let _ = tell.send(stream);
        }
    });
    (address, taken)
}

/// More than all the buffers on the way hold.
fn very_many() -> BatchRequest {
    BatchRequest::Ids((0..100_000).map(|number| format!("{number:0>120}")).collect())
}

#[tokio::test]
async fn an_answer_before_its_request_was_taken_holds_up_no_other() {
    let (address, taken) = deaf(Some(json("413 Content Too Large", "{}")));
    let client = client_to(&format!("http://{address}"), LONG);
    for _ in 0..2 {
        let failure = client.revoke_batch(&key(), &very_many(), None).await.unwrap_err();
        assert!(matches!(failure, Failure::Status { status: 413, .. }), "{failure:?}");
    }
    assert_eq!(taken.iter().take(2).count(), 2);
}

// The connection ends on another thread than the one that waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_no_server_takes_ends_with_its_time() {
    let (address, taken) = deaf(None);
    let client = client_to(&format!("http://{address}"), Duration::from_millis(400));
    let failure = client.revoke_batch(&key(), &very_many(), None).await.unwrap_err();
    assert!(matches!(failure, Failure::Timeout { .. }), "{failure:?}");
    let mut stream = taken.recv().unwrap();
    let mut rest = Vec::new();
    // Cut off, or reset; were it not closed, the whole request would come.
    let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    assert!(rest.len() < 10_000_000, "{}", rest.len());
}

// The server answers on a thread of its own for each connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_leaves_few_connections_behind() {
    let pause = Duration::from_millis(2);
    let server = RawServer::start([Act::Drip(json("200 OK", ALLOW), pause)]);
    let client = client(&server);
    let crowd: Vec<_> = (0..40)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.validate(&key(), &device()).await })
        })
        .collect();
    for one in crowd {
        one.await.unwrap().unwrap();
    }
    let excess = server.connections() - 16;
    for _ in 0..excess {
        server.wait_for_a_closed_connection();
    }
}

#[tokio::test]
async fn an_authority_that_drops_every_request_is_not_asked_twice_each_time() {
    let server = RawServer::start([Act::Write(json("200 OK", ALLOW)), Act::WriteAndClose(Vec::new())]);
    let client = client(&server);
    client.validate(&key(), &device()).await.unwrap();
    for asked in [3, 4, 5] {
        let failure = client.validate(&key(), &device()).await.unwrap_err();
        assert!(matches!(failure, Failure::Interrupted(_)), "{failure:?}");
        assert_eq!(server.requests().len(), asked);
    }
}

#[test]
fn a_ca_file_must_hold_certificates() {
    let base_url = BaseUrl::parse("https://127.0.0.1:1", false).unwrap();
    for pem in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let options = Options {
            base_url: base_url.clone(),
            timeout: LONG,
            ca_pem: Some(pem.into()),
            user_agent: "test/1".to_owned(),
            authority_user: None,
        };
        assert!(AuthorityClient::new(options).is_err(), "{pem}");
    }
}
