//! How the authority and the key are named, and what is said when either is wrong.

use std::os::unix::fs::PermissionsExt;

use super::fixture::{Authority, RunToEnd, Scripted, file, machineid, response};

#[test]
fn the_key_may_come_from_a_file_that_only_its_owner_can_read() {
    let authority = Authority::start("free");
    let (_directory, path) = file(&format!("{}\n", authority.key));
    let path = path.to_str().unwrap();
    let with_file = || machineid(&["usage", "--org-key-file", path, "--url", &authority.url]).ran();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    let ran = with_file();
    assert!(ran.code == 2 && ran.err.contains(&format!("chmod 600 {path}")), "{ran:?}");
    assert!(!ran.err.contains(&authority.key));
    for mode in [0o600, 0o640] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(with_file().code, 0);
    }
    // The flag beats the environment.
    let ran =
        machineid(&["usage", "--org-key-file", path, "--url", &authority.url]).env("MACHINEID_ORG_KEY", "org_no").ran();
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_key_that_is_none_is_refused_without_being_shown() {
    let long = "x".repeat(5_000);
    for content in ["", "topsecret", "org_", "org_top secret\n", &long] {
        let (_directory, path) = file(content);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let ran = machineid(&["usage", "--org-key-file", path.to_str().unwrap()]).ran();
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(!ran.err.contains("topsecret") && !ran.err.contains("top secret"), "{ran:?}");
        let ran = machineid(&["usage"]).env("MACHINEID_ORG_KEY", content).ran();
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("MACHINEID_ORG_KEY") && !ran.err.contains("topsecret"), "{ran:?}");
    }
    let ran = machineid(&["usage"]).ran();
    assert!(ran.code == 2 && ran.err.contains("--org-key-file") && ran.err.contains("MACHINEID_ORG_KEY"), "{ran:?}");
    for path in ["/nonexistent/key", "/"] {
        let ran = machineid(&["usage", "--org-key-file", path]).ran();
        assert!(ran.code == 2 && ran.err.contains(path), "{ran:?}");
    }
    assert_eq!(machineid(&["usage", "--org-key", "org_x"]).ran().code, 2, "there is no such flag");
}

#[test]
fn a_wrong_url_says_what_would_be_right() {
    for (url, says) in [
        ("machineid.io", "https://"),
        ("http://machineid.io", "--allow-http"),
        ("https://user:topsecret@machineid.io", "leave them out"),
        ("https://machineid.io/api/v1", "leave /api/v1 out"),
        ("https://machineid.io/?x", "query"),
    ] {
        let ran = machineid(&["usage", "--url", url]).env("MACHINEID_ORG_KEY", "org_x").ran();
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("--url: ") && ran.err.contains(says) && !ran.err.contains("topsecret"), "{ran:?}");
        let ran = machineid(&["usage"]).env("MACHINEID_BASE_URL", url).env("MACHINEID_ORG_KEY", "org_x").ran();
        assert!(ran.code == 2 && ran.err.contains("MACHINEID_BASE_URL: "), "{ran:?}");
    }
}

#[test]
fn no_key_goes_to_the_service_unless_the_command_says_so() {
    for args in [&["list"][..], &["usage"], &["validate", "a"], &["revoke", "a", "--yes"], &["org", "create"]] {
        let ran = machineid(args).env("MACHINEID_ORG_KEY", "org_topsecret").ran();
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.err.contains("--url") && ran.err.contains("https://machineid.io"), "{args:?}: {ran:?}");
    }
}

#[test]
fn an_authority_that_cannot_be_reached_is_named_with_the_way_it_failed() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}");
    for (args, code) in [(["usage"].as_slice(), 1), (&["validate", "a"], 75), (&["revoke", "a"], 1), (&["list"], 1)] {
        let ran = machineid(args).env("MACHINEID_BASE_URL", &closed).env("MACHINEID_ORG_KEY", "org_topsecret").ran();
        assert_eq!(ran.code, code, "{ran:?}");
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains(&closed) && said.contains("Connection refused") && said.contains("--url"), "{said}");
        assert!(!said.contains("topsecret"));
    }
    let ran = machineid(&["usage", "--url", "https://no-such-host.invalid"]).env("MACHINEID_ORG_KEY", "org_x").ran();
    assert!(ran.code == 1 && ran.err.contains("could not be resolved"), "{ran:?}");
}

#[test]
fn a_silent_authority_is_given_up_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let ran =
        machineid(&["validate", "a", "--url", &url, "--timeout", "200ms"]).env("MACHINEID_ORG_KEY", "org_x").ran();
    assert_eq!(ran.code, 75, "{ran:?}");
    assert!(
        ran.out.contains("could not find out") && ran.out.contains("200ms") && ran.out.contains("--timeout"),
        "{ran:?}"
    );
    for wrong in ["0s", "10", "fast"] {
        let ran = machineid(&["usage", "--timeout", wrong]).env("MACHINEID_ORG_KEY", "org_x").ran();
        assert!(ran.code == 2 && ran.err.contains("--timeout"), "{ran:?}");
    }
}

#[test]
fn a_wrong_key_says_where_it_came_from() {
    let authority = Authority::start("free");
    let ran = authority.machineid(&["usage"]).env("MACHINEID_ORG_KEY", "org_topsecret").ran();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("INVALID_ORG_KEY") && ran.err.contains("org key from MACHINEID_ORG_KEY"), "{ran:?}");
    assert!(!ran.err.contains("topsecret"));
    let ran = authority.machineid(&["validate", "a"]).env("MACHINEID_ORG_KEY", "org_wrong").ran();
    assert!(ran.code == 77 && ran.out.contains("INVALID_ORG_KEY"), "{ran:?}");
}

#[test]
fn no_decision_is_75_and_never_an_allow() {
    let allow = r#"{"allowed":true,"code":"ALLOW","deviceId":"a"}"#;
    for answer in [
        response("500 Internal Server Error", allow),
        response("200 OK", r#"{"allowed":"true","code":"ALLOW"}"#),
        response("200 OK", r#"{"allowed":true,"code":"DEVICE_REVOKED"}"#),
        response("200 OK", "<html>"),
        response("503 Service Unavailable", r#"{"allowed":false,"code":"SYSTEM_UNAVAILABLE"}"#),
        response("503 Service Unavailable", r#"{"allowed":false,"code":"SYSTEM_UNAVAILABLE"}"#)
            .replace("content-type", "x-machineid-undecided: 1\r\ncontent-type"),
        response("200 OK", allow).replace("application/json", "text/html"),
        format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n{allow}"),
    ] {
        let (server, address) = Scripted::tcp(std::slice::from_ref(&answer));
        let ran = machineid(&["validate", "a", "--json", "--url", &format!("http://{address}")])
            .env("MACHINEID_ORG_KEY", "org_x")
            .ran();
        assert_eq!(ran.code, 75, "{answer}: {ran:?}");
        assert_eq!(ran.json()["results"][0]["allowed"], false);
        // Scripts read the code, whether or not the authority marks its answer as no decision.
        if answer.contains("SYSTEM_UNAVAILABLE") {
            assert_eq!(ran.json()["results"][0]["code"], "SYSTEM_UNAVAILABLE", "{ran:?}");
        }
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_ca_file_that_is_none_is_named() {
    let (_directory, path) = file("no certificate");
    for path in [path.to_str().unwrap(), "/nonexistent/ca.pem"] {
        let ran = machineid(&["usage", "--url", "https://127.0.0.1:1", "--ca-file", path])
            .env("MACHINEID_ORG_KEY", "org_x")
            .ran();
        assert!(ran.code == 2 && ran.err.contains("--ca-file") && ran.err.contains(path), "{ran:?}");
    }
}
