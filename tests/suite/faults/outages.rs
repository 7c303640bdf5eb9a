//! Every fault of the authority and of the way there, each from its beginning to its end.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use machineid_protocol::span;

use super::scene::{ENFORCEMENT, TIMEOUT, outage};
use crate::harness::authority::Authority;
use crate::harness::fault::{Answer, Fault, Injector};
use crate::harness::sidecar::Setup;
use crate::harness::wait::until;

/// A fault, its name, and what the operator is told about it.
type Case = (&'static str, Fault, &'static str);

const MEGABYTES: usize = 10 * 1024 * 1024;

/// All at once, each with a daemon, a proxy and an agent of its own.
fn each(cases: Vec<Case>, encrypted: bool) {
    let authority = Authority::start();
    let org = authority.org("max");
    std::thread::scope(|scope| {
        let running: Vec<_> = cases
            .into_iter()
            .enumerate()
            .map(|(number, (name, fault, says))| {
                let (authority, org) = (&authority, &org);
                scope.spawn(move || {
                    let injector = if encrypted {
                        Injector::encrypted(authority.address())
                    } else {
                        Injector::start(authority.address())
                    };
                    let mut setup = Setup::of(org, &injector.url(), &format!("host:{number}"));
                    setup.authority = format!("url = \"{}\"\ntimeout = \"{}\"", injector.url(), span::format(TIMEOUT));
                    if encrypted {
                        let ca = machineid_testing::certificates::CA_FILE;
                        setup.authority = format!("{}\nca_file = \"{ca}\"", setup.authority);
                    }
                    ENFORCEMENT.clone_into(&mut setup.enforcement);
                    let sidecar = setup.start();
                    outage(name, says, &sidecar, || injector.set(fault), || injector.set(Fault::None));
                })
            })
            .collect();
        let failed = running.into_iter().filter_map(|one| one.join().err()).count();
        assert_eq!(failed, 0, "of these faults; each says above what was wrong");
    });
}

#[test]
fn however_the_way_to_the_authority_breaks_agents_live_to_the_end_of_their_lease_and_it_recovers() {
    let lost = "no complete answer within";
    let torn = "ended before the authority's answer was complete";
    each(
        vec![
            ("refused", Fault::Refuse, "could not connect to the authority"),
            ("accepted and never answered", Fault::Silent, lost),
            ("a byte now and then", Fault::Drip(Duration::from_millis(50)), lost),
            ("reset in the head", Fault::ResetInHead, torn),
            ("reset in the body", Fault::ResetInBody, torn),
            ("truncated", Fault::Truncate, torn),
            ("later than it may be", Fault::Delay(TIMEOUT * 2), lost),
        ],
        false,
    );
}

#[test]
fn whatever_answers_in_the_authoritys_place_is_no_allow_and_no_deny() {
    let allow = || Answer::allow("200 OK");
    let json = |body: &str| Answer::new("200 OK").with("content-type", "application/json").saying(body);
    let replace = |answer: Answer| Fault::Replace(answer);
    each(
        vec![
            ("500", replace(Answer::new("500 Oops")), "answered HTTP 500"),
            ("500 with an ALLOW", replace(Answer::allow("500 Oops")), "answered HTTP 500"),
            ("429", replace(Answer::new("429 Slowly").with("retry-after", "1")), "answered HTTP 429 and asks"),
            ("401 without a word", replace(Answer::new("401 Who?")), "answered HTTP 401"),
            ("403 with an ALLOW", replace(Answer::allow("403 No")), "answered HTTP 403"),
            ("204", replace(Answer::new("204 Nothing")), "answered HTTP 204"),
            (
                "HTML",
                replace(Answer::new("200 OK").with("content-type", "text/html").saying("<h1>Log in</h1>")),
                "not JSON",
            ),
            ("half of the JSON", Fault::HalfJson, "not one complete JSON object"),
            ("10 MB", Fault::Inflate { bytes: MEGABYTES, announced: true }, "longer than 65536 bytes"),
            ("10 MB, not announced", Fault::Inflate { bytes: MEGABYTES, announced: false }, "longer than 65536 bytes"),
            ("a string", replace(json(r#"{"allowed":"true","code":"ALLOW"}"#)), "no boolean \"allowed\""),
            ("twice", replace(json(r#"{"allowed":false,"code":"ALLOW","allowed":true}"#)), "not one complete JSON"),
            ("from a cache", replace(allow().with("age", "7")), "from a cache"),
            ("compressed", replace(allow().with("content-encoding", "gzip")), "compressed"),
            ("of two kinds", replace(allow().with("content-type", "text/html")), "not JSON"),
            (
                "allowed, and why not",
                replace(json(r#"{"allowed":true,"code":"PLAN_NOT_ACTIVE"}"#)),
                "contradicts itself",
            ),
            ("no HTTP", Fault::Raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not speak HTTP"),
        ],
        false,
    );
}

#[test]
fn broken_tls_is_no_answer_and_a_mended_one_is_taken_again() {
    each(
        vec![
            ("another server's certificate", Fault::WrongCertificate, "the certificate of a CA as its own"),
            ("no TLS", Fault::NoTls, "does not speak TLS"),
            ("a handshake without an answer", Fault::SilentHandshake, "no complete answer within"),
        ],
        true,
    );
}

#[test]
fn a_redirect_to_another_host_is_not_followed_and_that_host_never_sees_the_key() {
    let elsewhere = TcpListener::bind("127.0.0.2:0").unwrap();
    let visits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&visits);
    let location = format!("http://{}/api/v1/devices/validate", elsewhere.local_addr().unwrap());
    std::thread::spawn(move || {
        while elsewhere.accept().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let to = |status: &str| Fault::Replace(Answer::allow(status).with("location", &location));
    each(
        vec![
            ("302", to("302 Found"), "redirects to http://127.0.0.2"),
            ("307", to("307 Temporary Redirect"), "redirects to http://127.0.0.2"),
        ],
        false,
    );
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[test]
fn a_name_that_cannot_be_resolved_is_said_so_and_nothing_starts() {
    let mut setup = Setup::new("https://authority.invalid", "org_key-of-nobody", "host:test");
    ENFORCEMENT.clone_into(&mut setup.enforcement);
    let sidecar = setup.start_unready();
    let answer = until("the name was looked up", || {
        let answer = sidecar.check();
        // A resolver that takes its time is met by the deadline first.
        (answer.code() == "AUTHORITY_UNREACHABLE").then_some(answer)
    });
    assert_eq!(answer.status, 503);
    let reason = answer.json()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("could not be resolved") || reason.contains("within"), "{reason}");
}
