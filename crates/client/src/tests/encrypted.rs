//! Tests of the certificates that the client trusts. The certificates beside this file are only for tests: their CA's
//! key was not kept.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use machineid_testing::certificates;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

pub(super) const CA: &[u8] = certificates::CA;
const CERTIFICATE: &[u8] = certificates::SERVER;
const SERVER_KEY: &[u8] = certificates::SERVER_KEY;
const OWN_CA: &[u8] = include_bytes!("../../../../tests/suite/harness/fault/stranger.pem");
const OWN_CA_KEY: &[u8] = include_bytes!("../../../../tests/suite/harness/fault/stranger.key.der");

/// A TLS server for `localhost` and 127.0.0.1 that answers one request a connection with an ALLOW.
pub(super) fn start() -> SocketAddr {
    start_with(CERTIFICATE, SERVER_KEY)
}

fn start_with(certificate: &[u8], key: &'static [u8]) -> SocketAddr {
    install_provider();
    let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
    let key = PrivateKeyDer::try_from(key).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((tcp, _)) = listener.accept() {
            let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
            let mut request = Vec::new();
            let mut part = [0; 4096];
            while !request.ends_with(b"\"}") {
                match stream.read(&mut part) {
                    Ok(length) if length > 0 => request.extend_from_slice(&part[..length]),
                    _ => break,
                }
            }
            let _ = stream.write_all(&json("200 OK", ALLOW));
        }
    });
    address
}

async fn validate_at(url: &str, ca_pem: Option<&[u8]>) -> Result<Decision, Failure> {
    let options = Options {
        base_url: BaseUrl::parse(url, false).unwrap(),
        timeout: LONG,
        ca_pem: ca_pem.map(<[u8]>::to_vec),
        user_agent: "test/1".to_owned(),
        authority_user: None,
    };
    AuthorityClient::new(options).unwrap().validate(&key(), &device()).await
}

#[tokio::test]
async fn a_named_ca_is_trusted_and_only_for_the_right_host() {
    let server = start();
    let decision = validate_at(&format!("https://{server}"), Some(CA)).await;
    assert!(matches!(decision, Ok(Decision::Allow { .. })), "{decision:?}");

    // 127.0.0.2 is the same server, but not a name in its certificate.
    let elsewhere = TcpListener::bind("127.0.0.2:0").unwrap();
    let address = elsewhere.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut near, _) = elsewhere.accept().unwrap();
        let mut far = std::net::TcpStream::connect(server).unwrap();
        let (mut near_again, mut far_again) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut near_again, &mut far_again));
        let _ = std::io::copy(&mut far, &mut near);
    });
    let failure = validate_at(&format!("https://{address}"), Some(CA)).await.unwrap_err();
    assert!(matches!(failure, Failure::Tls { fault: TlsFault::Untrusted, .. }), "{failure:?}");
}

#[tokio::test]
async fn a_certificate_that_no_authority_signed_is_not_trusted() {
    let server = start();
    let failure = validate_at(&format!("https://{server}"), None).await.unwrap_err();
    assert!(matches!(failure, Failure::Tls { fault: TlsFault::Untrusted, .. }), "{failure:?}");
    assert_eq!((failure.is_transient(), failure.fault()), (false, Fault::Configuration));
    assert!(say(&failure).starts_with("the authority's certificate is not trusted"));
}

#[tokio::test]
async fn the_certificate_of_a_ca_as_the_servers_own_is_named() {
    // A CA that signed itself, as `openssl req -x509` makes one.
    let server = start_with(OWN_CA, OWN_CA_KEY);
    let failure = validate_at(&format!("https://{server}"), Some(OWN_CA)).await.unwrap_err();
    assert!(matches!(failure, Failure::Tls { fault: TlsFault::CaAsServer, .. }), "{failure:?}");
    assert_eq!((failure.is_transient(), failure.fault()), (false, Fault::Configuration));
    assert!(say(&failure).contains("give it a server certificate that this CA has signed"));
}

#[tokio::test]
async fn a_port_without_tls_is_told_from_an_untrusted_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let received = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = [0; 4096];
        let length = stream.read(&mut received).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        received[..length].to_vec()
    });
    let failure = validate_at(&format!("https://{address}"), Some(CA)).await.unwrap_err();
    assert!(matches!(failure, Failure::Tls { fault: TlsFault::Plain, .. }), "{failure:?}");
    let said = say(&failure);
    assert!(said.contains("does not speak TLS") && said.contains("http://"), "{said}");
    assert!(!String::from_utf8_lossy(&received.join().unwrap()).contains("topsecret"));
}
