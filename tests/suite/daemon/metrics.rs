//! `GET /metrics`: on the socket, and where `metrics.listen` says.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::json;

use super::agents::{Agent, OBEDIENT, post};
use crate::harness::authority::Authority;
use crate::harness::http;
use crate::harness::place::skipped;
use crate::harness::sidecar::{Setup, Sidecar};
use crate::harness::wait::eventually;

/// The contract's list.
const METRICS: [(&str, &str); 21] = [
    ("decisions_total", "counter"),
    ("authority_requests_total", "counter"),
    ("authority_request_duration_seconds", "histogram"),
    ("last_allow_timestamp_seconds", "gauge"),
    ("allowed", "gauge"),
    ("state", "gauge"),
    ("agents", "gauge"),
    ("stops_total", "counter"),
    ("stop_duration_seconds", "histogram"),
    ("stop_bound_seconds", "gauge"),
    ("org_key_role", "gauge"),
    ("checks_total", "counter"),
    ("check_duration_seconds", "histogram"),
    ("peers_rejected_total", "counter"),
    ("reloads_total", "counter"),
    ("audit_dropped_total", "counter"),
    ("unrecorded_starts_total", "counter"),
    ("files_restored_total", "counter"),
    ("runtime_problem", "gauge"),
    ("panics_total", "counter"),
    ("build_info", "gauge"),
];

fn page(sidecar: &Sidecar) -> String {
    let answer = sidecar.get("/metrics").unwrap();
    assert!(answer.status == 200 && answer.head.contains("content-type: text/plain; version=0.0.4"), "{answer:?}");
    answer.body
}

/// The value of the series with this name and labels, as they are written.
fn value(page: &str, series: &str) -> Option<f64> {
    let line =
        page.lines().find(|line| line.strip_prefix("machineid_sidecar_").is_some_and(|it| it.starts_with(series)));
    line?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn the_page_has_the_metrics_of_the_contract_and_no_other() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let sidecar = Setup::of(&org, &authority.url(), "metrics-host:1").start();
    let mut agent = Agent::start(&sidecar, &["--name", "worker"], OBEDIENT);
    let before = page(&sidecar);
    assert_eq!(value(&before, "agents{state=\"running\",killer=\"daemon\"}"), Some(1.0), "{before}");
    assert_eq!((value(&before, "allowed "), value(&before, "state{state=\"allowed\"}")), (Some(1.0), Some(1.0)));
    sidecar.check();
    sidecar.get("/v1/check?nonsense=1");
    post(&sidecar.socket(), "/v1/stop", &json!({"all": true}));
    agent.wrapped.exit_code();
    org.device("revoke", "metrics-host:1");
    eventually("the stop is counted", || {
        value(&page(&sidecar), "stops_total{cause=\"LOCAL_STOP\",outcome=\"confirmed\"}") == Some(1.0)
            && value(&page(&sidecar), "state{state=\"denied\"}") == Some(1.0)
    });
    let text = page(&sidecar);
    for (series, expected) in [
        ("stops_total{cause=\"LOCAL_STOP\",outcome=\"requested\"}", 1.0),
        ("stop_duration_seconds_count", 1.0),
        ("checks_total{result=\"allowed\"}", 1.0),
        ("checks_total{result=\"malformed\"}", 1.0),
        ("check_duration_seconds_count", 2.0),
        ("authority_requests_total{endpoint=\"register\",outcome=\"ok\"}", 1.0),
        ("allowed ", 0.0),
        ("stop_bound_seconds{case=\"cut_off\"}", 9.0),
        ("audit_dropped_total", 0.0),
        ("panics_total", 0.0),
        ("build_info{version=", 1.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
    }
    assert!(value(&text, "last_allow_timestamp_seconds") > Some(1.7e9), "{text}");
    assert!(value(&text, "decisions_total{code=\"DEVICE_REVOKED\",source=\"authority\"}") >= Some(1.0), "{text}");
    let mut found: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE machineid_sidecar_")?.split_once(' ')).collect();
    let mut expected = METRICS.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for secret in [org.key.as_str(), "metrics-host:1"] {
        assert!(!text.contains(secret), "{secret}");
    }
    promtool(&text);
}

fn promtool(page: &str) {
    let checker =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut checker) = checker else {
        skipped("a check of the page by promtool", "it is not installed (apt-get install prometheus)");
        return;
    };
    checker.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}\n{page}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn the_port_serves_the_page_and_nothing_else() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "metrics-host:1");
    let address = free_address();
    setup.local = format!("[metrics]\nlisten = \"{address}\"");
    let sidecar = setup.start();
    let reply = http::request(address, "GET", "/metrics", &[], b"");
    assert!(reply.status == 200 && reply.text.contains("machineid_sidecar_allowed 1"), "{reply:?}");
    for path in ["/", "/v1/check", "/v1/status", "/v1/supervise", "/api/v1/devices/validate"] {
        assert_eq!(http::request(address, "GET", path, &[], b"").status, 404, "{path}");
    }
    assert_eq!(http::request(address, "POST", "/metrics", &[], b"").status, 405);
    // Who connects and says nothing holds up neither the socket nor, beyond its own place, the others.
    let silent: Vec<TcpStream> = (0..15).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(http::request(address, "GET", "/metrics", &[], b"").status, 200);
    assert_eq!(sidecar.check().status, 200);
    drop(silent);
}

#[test]
fn an_address_without_a_port_is_an_error_of_the_configuration() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "metrics-host:1");
    "[metrics]\nlisten = \"9464\"".clone_into(&mut setup.local);
    let output = setup.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let names = said.contains("metrics.listen") && said.contains("write it as in");
    assert!(output.status.code() == Some(2) && names, "{said}");
}
