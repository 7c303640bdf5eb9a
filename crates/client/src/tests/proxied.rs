//! Tests with an authority behind a proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use reqwest::{NoProxy, Proxy};

use super::*;

fn by_way_of(proxy: Proxy, url: &str, ca_pem: Option<&[u8]>) -> AuthorityClient {
    let base_url = BaseUrl::parse(url, true).unwrap();
    let options = Options {
        base_url,
        timeout: LONG,
        ca_pem: ca_pem.map(<[u8]>::to_vec),
        user_agent: "test/1".to_owned(),
        authority_user: None,
    };
    AuthorityClient::by_way_of(Proxies::Only(Box::new(proxy)), options).unwrap()
}

#[tokio::test]
async fn without_encryption_it_passes_requests_on() {
    let proxy = RawServer::start([Act::Write(json("200 OK", ALLOW))]);
    let by = Proxy::http(format!("http://who:what@{}", proxy.address)).unwrap();
    let client = by_way_of(by, "http://authority.test:8424/prefix", None);
    for _ in 0..2 {
        assert!(matches!(client.validate(&key(), &device()).await, Ok(Decision::Allow { .. })));
    }
    assert_eq!(proxy.connections(), 1);
    for request in proxy.requests() {
        let first = "POST http://authority.test:8424/prefix/api/v1/devices/validate HTTP/1.1\r\n";
        assert!(request.starts_with(first), "{request}");
        assert!(request.contains("\r\nhost: authority.test:8424\r\n"), "{request}");
        assert!(request.contains("\r\nproxy-authorization: Basic d2hvOndoYXQ=\r\n"), "{request}");
        assert!(request.contains("\r\nx-org-key: org_topsecret\r\n"), "{request}");
    }
}

#[tokio::test]
async fn what_is_exempt_goes_there_directly() {
    let proxy = RawServer::start([Act::Write(json("200 OK", ALLOW))]);
    let server = RawServer::start([Act::Write(json("200 OK", ALLOW))]);
    let by = Proxy::all(format!("http://{}", proxy.address)).unwrap().no_proxy(NoProxy::from_string("127.0.0.0/8"));
    let client = by_way_of(by, &format!("http://{}", server.address), None);
    client.validate(&key(), &device()).await.unwrap();
    assert_eq!((proxy.connections(), server.connections()), (0, 1));
    assert!(server.requests()[0].starts_with("POST /api/v1/devices/validate HTTP/1.1\r\n"));
}

/// A proxy that answers `CONNECT` with this, and after a 200 connects the client to `server`. Returns what it was sent.
fn tunnel(answer: &'static str, server: SocketAddr) -> (SocketAddr, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let told = std::thread::spawn(move || {
        let (mut near, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0; 1]);
        while !head.ends_with(b"\r\n\r\n") && near.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        near.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
        if answer.starts_with("200") {
            let mut far = TcpStream::connect(server).unwrap();
            let (mut near_again, mut far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut far_again, &mut near_again));
            std::thread::spawn(move || std::io::copy(&mut near, &mut far));
        }
        String::from_utf8(head).unwrap()
    });
    (address, told)
}

#[tokio::test]
async fn encrypted_it_passes_bytes_on_and_sees_no_key() {
    let (proxy, told) = tunnel("200 Connection established", encrypted::start());
    let by = Proxy::https(format!("http://who:what@{proxy}")).unwrap();
    let client = by_way_of(by, "https://localhost:8424", Some(encrypted::CA));
    assert!(matches!(client.validate(&key(), &device()).await, Ok(Decision::Allow { .. })));
    let told = told.join().unwrap();
    assert!(told.starts_with("CONNECT localhost:8424 HTTP/1.1\r\n"), "{told}");
    assert!(told.to_lowercase().contains("\r\nproxy-authorization: basic d2hvondoyxq=\r\n"), "{told}");
    assert!(told.contains("\r\nuser-agent: test/1\r\n"), "{told}");
    assert!(!told.contains("topsecret"), "{told}");
    assert!(!format!("{client:?}").contains("what"), "{client:?}");
}

#[tokio::test]
async fn encrypted_it_cannot_stand_in_for_the_authority() {
    let (proxy, _) = tunnel("200 Connection established", encrypted::start());
    let by = Proxy::all(format!("http://{proxy}")).unwrap();
    let client = by_way_of(by, "https://authority.test", Some(encrypted::CA));
    let failure = client.validate(&key(), &device()).await.unwrap_err();
    assert!(matches!(failure, Failure::Tls { fault: TlsFault::Untrusted, .. }), "{failure:?}");
}

#[tokio::test]
async fn one_that_does_not_let_us_through_is_no_authority() {
    for answer in ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"] {
        let (proxy, told) = tunnel(answer, "127.0.0.1:1".parse().unwrap());
        let by = Proxy::all(format!("http://{proxy}")).unwrap();
        let client = by_way_of(by, "https://authority.test", Some(encrypted::CA));
        let failure = client.validate(&key(), &device()).await.unwrap_err();
        assert!(matches!(failure, Failure::Connect(_)), "{answer}: {failure:?}");
        assert!(say(&failure).starts_with("could not connect to the authority: "), "{failure}");
        assert!(!told.join().unwrap().contains("topsecret"));
    }
    let by = Proxy::all("socks5://127.0.0.1:1").unwrap();
    let failure = by_way_of(by, "http://authority.test", None).validate(&key(), &device()).await.unwrap_err();
    assert!(matches!(failure, Failure::Connect(_)), "{failure:?}");
    assert!(say(&failure).contains("unsupported scheme socks5"), "{failure}");
}
