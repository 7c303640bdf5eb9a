//! Links, metrics, codes and settings that the pages name: each must exist.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::page::{folder, pages};
use crate::harness::authority::Authority;
use crate::harness::place::skipped;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::Setup;

/// The targets of a page's links.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://")).map(|target| target.split('#').next().unwrap()).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all: Vec<_> = pages().into_iter().map(|(name, text)| (folder(), name, text)).collect();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        all.push((root.to_owned(), name.to_owned(), std::fs::read_to_string(root.join(name)).unwrap()));
    }
    for (place, name, text) in all {
        for link in links(&text) {
            assert!(link.is_empty() || place.join(link).exists(), "{name} links to {link}, which is not there");
        }
    }
}

/// The metrics that a text names, without what histograms and counters add.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("machineid_sidecar_"));
    words
        .map(|word| ["_bucket", "_sum", "_count"].iter().fold(word, |word, end| word.trim_end_matches(end)).to_owned())
        .collect()
}

#[test]
fn every_metric_that_is_written_about_is_measured() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:test");
    "[metrics]\nlisten = \"127.0.0.1:0\"".clone_into(&mut setup.local);
    let sidecar = setup.start();
    // Some are there only once there is something to tell.
    org.admin("rotate-key", &[]);
    sidecar.check();
    let mut agent = Wrapped::start(sidecar.wrap(&[], &["sh", "-c", "echo up; exec sleep 600"]));
    agent.line_with("up");
    let stopped = sidecar.machineid(&["stop", "--all", "--yes"]);
    assert!(stopped.status.success(), "{stopped:?}");
    agent.exit_code();
    let page = sidecar.get("/metrics").unwrap().body;
    let measured = metrics(&page);
    let operations = pages().remove("operations.md").unwrap();
    let table: Vec<&str> = operations
        .lines()
        .skip_while(|line| *line != "## Metrics")
        .take_while(|line| !line.starts_with("[Alert"))
        .collect();
    let mut named = metrics(&std::fs::read_to_string(folder().join("prometheus/alerts.yml")).unwrap());
    for row in table.iter().filter_map(|line| line.strip_prefix("| `")) {
        let first = row.split(" | ").next().unwrap();
        for name in first.split("`, `") {
            let name = name.trim_matches('`').split('{').next().unwrap();
            named.insert(format!("machineid_sidecar_{name}"));
        }
    }
    let typed: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    let known = |name: &String| {
        measured.contains(name) || typed.contains(name) || typed.contains(name.trim_end_matches("_total"))
    };
    let missing: Vec<_> = named.iter().filter(|name| !known(name)).collect();
    assert!(missing.is_empty(), "{missing:?} are in the documentation and not in\n{page}");
    let unsaid: Vec<_> = typed
        .iter()
        .filter(|name| !named.iter().any(|said| said.trim_end_matches("_total") == name.trim_end_matches("_total")))
        .collect();
    assert!(unsaid.is_empty(), "{unsaid:?} are measured and not documented");
}

#[test]
fn the_alert_rules_are_understood_by_prometheus() {
    let rules = folder().join("prometheus/alerts.yml");
    match Command::new("promtool").args(["check", "rules"]).arg(rules).output() {
        Err(error) => {
            #[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
            let in_ci = std::env::var_os("CI").is_some();
            assert!(!in_ci, "promtool: {error}");
            skipped("the alert rules", &format!("promtool: {error}"));
        }
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn every_code_that_is_made_here_is_documented() {
    let http = pages().remove("http.md").unwrap();
    for code in [
        "LOCAL_KILL",
        "LOCAL_STOP",
        "DEVICE_LIMIT_REACHED",
        "DEVICE_NOT_PERMITTED",
        "PID_NOT_PERMITTED",
        "REMOTE_REFUSED",
        "AUTHORITY_UNREACHABLE",
        "STARTING",
        "CHECK_TIMEOUT",
        "LEASE_EXPIRED",
        "OVERLOADED",
        "BAD_REQUEST",
    ] {
        assert!(http.contains(&format!("`{code}`")), "{code}");
    }
}
