//! The server's metrics, for Prometheus. Every label has few values, regardless of what clients send.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use machineid_metrics as text;
use machineid_protocol::Code;
use machineid_protocol::api::path;
use machineid_protocol::report::Doubt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::connections::ConnectionCounts;
use super::health::{Concern, Health};
use super::store::OldKey;

/// The buckets of request durations, from half a millisecond to the longest request, in seconds.
const BUCKETS: [f64; 12] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    /// The class of the status, such as `2xx`.
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConcernLabels {
    concern: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeptIn {
    /// `reserve` for the reserve file, which a restart reads, or `memory`.
    kept: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Doubted {
    doubt: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReportSender {
    sender: &'static str,
}

/// The label of an organisation whose key was rotated: operators begin the overlaps, so there are few values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Organisation {
    org: String,
}

/// All metrics.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<Endpoint, Histogram>,
    decisions: Family<CodeLabels, Counter>,
    limited: Family<Endpoint, Counter>,
    reports: Family<ReportSender, Counter>,
    doubtful_stops: Family<Doubted, Gauge>,
    approvals_waiting: Gauge,
    problems: Family<ConcernLabels, Gauge>,
    written: Gauge,
    unwritten_stops: Family<KeptIn, Gauge>,
    old_key_devices: Family<Organisation, Gauge>,
    old_key_ends: Family<Organisation, Gauge<f64, AtomicU64>>,
    pub(super) connections: Gauge,
    bound: Gauge,
    anonymous: Gauge,
    accepted: Counter,
    refused: Counter,
    closed: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("machineid_authority");
        let requests = Family::default();
        registry.register("requests", "Answered requests", requests.clone());
        let durations: Family<Endpoint, Histogram> = Family::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register("request_duration_seconds", "From a request's head to its answer", durations.clone());
        let decisions = Family::default();
        registry.register("decisions", "Answered validations", decisions.clone());
        let limited = Family::default();
        registry.register("rate_limited", "Requests refused with 429", limited.clone());
        let reports = Family::default();
        registry.register("reports", "Reports, by whether the sender proved which sidecar it is", reports.clone());
        let doubtful_stops = Family::default();
        let help = "Devices revoked within the last hour with a confirmation that does not count, by the reason";
        registry.register("doubtful_stops", help, doubtful_stops.clone());
        let approvals_waiting = Gauge::default();
        let help = "Restores that wait for a second key";
        registry.register("approvals_waiting", help, approvals_waiting.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let (bound, anonymous) = (Gauge::default(), Gauge::default());
        registry.register("connections_bound", "How many connections of clients may be open", bound.clone());
        let help = "Open connections of clients that have presented no valid key";
        registry.register("connections_anonymous", help, anonymous.clone());
        let (accepted, refused, closed) = (Counter::default(), Counter::default(), Counter::default());
        registry.register("connections_accepted", "Connections of clients that got a place", accepted.clone());
        let help = "New connections that were closed because nothing could be closed for them";
        registry.register("connections_refused", help, refused.clone());
        registry.register("connections_evicted", "Connections that were closed for a new one", closed.clone());
        let problems = Family::default();
        registry.register("problem", "1 while this concern has a problem; /readyz says which", problems.clone());
        let written = Gauge::default();
        let help = "When a change or a test write last succeeded, in seconds since 1970";
        registry.register("last_write_timestamp_seconds", help, written.clone());
        let unwritten_stops = Family::default();
        let help = "Stops that are in force at this server and not in the database";
        registry.register("unwritten_stops", help, unwritten_stops.clone());
        let old_key_devices = Family::default();
        let devices = "Devices whose last request used the old org key, while that is valid";
        registry.register("old_key_devices", devices, old_key_devices.clone());
        let old_key_ends = Family::default();
        let ends = "When the old org key ends, while it is valid";
        registry.register("old_key_ends_timestamp_seconds", ends, old_key_ends.clone());
        Self {
            registry,
            requests,
            durations,
            decisions,
            limited,
            reports,
            doubtful_stops,
            approvals_waiting,
            problems,
            written,
            unwritten_stops,
            old_key_devices,
            old_key_ends,
            connections,
            bound,
            anonymous,
            accepted,
            refused,
            closed,
        }
    }

    /// Records an answered request.
    pub(super) fn answered(&self, path: &str, status: u16, code: Option<&Code>, took: Duration) {
        let endpoint = endpoint(path);
        let status_class = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&RequestLabels { endpoint, status: status_class }).inc();
        self.durations.get_or_create(&Endpoint { endpoint }).observe(took.as_secs_f64());
        if status == 429 {
            self.limited.get_or_create(&Endpoint { endpoint }).inc();
        }
        // The codes are our own, never a client's.
        if let (path::VALIDATE, Some(code)) = (path, code) {
            self.decisions.get_or_create(&CodeLabels { code: code.as_str().to_owned() }).inc();
        }
    }

    /// Records a report: `proven`, `unproven`, or `foreign`, which is refused.
    pub(super) fn reported(&self, sender: &'static str) {
        self.reports.get_or_create(&ReportSender { sender }).inc();
    }

    /// Sets how many revoked devices have a confirmation that does not count, for each reason.
    pub(super) fn doubtful_stops(&self, doubts: &[Doubt]) {
        for doubt in Doubt::ALL {
            let devices = doubts.iter().filter(|one| **one == doubt).count();
            let label = Doubted { doubt: doubt.as_str() };
            self.doubtful_stops.get_or_create(&label).set(i64::try_from(devices).unwrap_or(i64::MAX));
        }
    }

    /// Sets how many restores wait for a second key.
    pub(super) fn approvals_waiting(&self, requests: u64) {
        self.approvals_waiting.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// Sets the valid old keys; others are removed.
    pub(super) fn old_keys(&self, valid: &[OldKey]) {
        self.old_key_devices.clear();
        self.old_key_ends.clear();
        for old in valid {
            let org = Organisation { org: old.org.to_string() };
            self.old_key_devices.get_or_create(&org).set(i64::try_from(old.devices).unwrap_or(i64::MAX));
            self.old_key_ends.get_or_create(&org).set(old.ends.as_duration().as_secs_f64());
        }
    }

    /// The metrics in the format of Prometheus.
    pub(super) fn text(
        &self,
        health: &Health,
        connections: ConnectionCounts,
        (in_reserve, in_memory): (usize, usize),
    ) -> String {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.bound.set(number(connections.bound));
        self.anonymous.set(number(connections.anonymous));
        for (kept, stops) in [("reserve", in_reserve), ("memory", in_memory)] {
            self.unwritten_stops.get_or_create(&KeptIn { kept }).set(number(stops));
        }
        for (counter, count) in [
            (&self.accepted, connections.accepted),
            (&self.refused, connections.refused),
            (&self.closed, connections.closed),
        ] {
            // Counted where a connection is accepted; this only copies.
            counter.inner().store(count, Ordering::Relaxed);
        }
        for (kept, stops) in [("reserve", in_reserve), ("memory", in_memory)] {
            self.unwritten_stops.get_or_create(&KeptIn { kept }).set(number(stops));
        }
        for concern in Concern::ALL {
            let about = ConcernLabels { concern: concern.as_str() };
            self.problems.get_or_create(&about).set(i64::from(health.is_wrong(concern)));
        }
        self.written.set(health.written_at().map_or(0, jiff::Timestamp::as_second));
        text::page(&self.registry)
    }
}

/// The endpoint of a path: one of few values.
fn endpoint(path: &str) -> &'static str {
    if path.starts_with("/console") {
        return "console";
    }
    let known = path::SERVED.into_iter().find(|known| *known == path);
    known.and_then(|known| known.strip_prefix("/api/v1/")).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_clients_ask_for_the_labels_are_few() {
        let metrics = Metrics::new();
        let took = Duration::from_millis(1);
        let counts = ConnectionCounts { bound: 9, anonymous: 1, accepted: 7, refused: 3, closed: 2 };
        for number in 0..100 {
            metrics.answered(&format!("/api/v1/made-up/{number}"), 404, None, took);
            metrics.answered(&format!("/console/org/{number}"), 200, None, took);
        }
        metrics.answered(path::VALIDATE, 200, Some(&Code::DeviceRevoked), took);
        metrics.answered(path::REVOKE, 429, None, took);
        metrics.doubtful_stops(&[Doubt::Contradictory, Doubt::Contradictory]);
        metrics.approvals_waiting(3);
        let text = metrics.text(&Health::default(), counts, (2, 1));
        assert!(text.contains(r#"machineid_authority_doubtful_stops{doubt="contradictory"} 2"#), "{text}");
        assert!(text.contains(r#"machineid_authority_doubtful_stops{doubt="unproven"} 0"#), "{text}");
        assert!(text.contains("machineid_authority_approvals_waiting 3"), "{text}");
        assert!(text.contains(r#"machineid_authority_problem{concern="writes"} 0"#), "{text}");
        assert!(text.contains(r#"machineid_authority_requests_total{endpoint="other",status="4xx"} 100"#), "{text}");
        assert!(text.contains(r#"machineid_authority_requests_total{endpoint="console",status="2xx"} 100"#), "{text}");
        assert!(text.contains(r#"machineid_authority_decisions_total{code="DEVICE_REVOKED"} 1"#), "{text}");
        assert!(text.contains(r#"machineid_authority_rate_limited_total{endpoint="devices/revoke"} 1"#), "{text}");
        assert!(text.contains("machineid_authority_connections_bound 9"), "{text}");
        assert!(text.contains("machineid_authority_connections_refused_total 3"), "{text}");
        assert!(text.contains("machineid_authority_connections_evicted_total 2"), "{text}");
        assert!(text.contains(r#"machineid_authority_unwritten_stops{kept="reserve"} 2"#), "{text}");
        assert!(!text.contains("made-up"), "{text}");
    }
}
