//! What a key's holder says about another host's agents confirms nothing, silences nothing and rewrites nothing.

use machineid_org_key::sidecar::SidecarSecret;
use serde_json::{Value, json};

use super::keys::machineid;
use crate::harness::authority::{Authority, Org};
use crate::harness::http;

const RUN: &str = "0123456789abcdef0123456789abcdef";

/// A process that holds a key, and perhaps a secret of its own, and says what it likes.
struct Reporter<'a> {
    key: &'a Org<'a>,
    secret: Option<SidecarSecret>,
    /// The device that it calls its host.
    host: &'static str,
}

impl<'a> Reporter<'a> {
    fn new(key: &'a Org<'a>, secret: u8, host: &'static str) -> Self {
        Self { key, secret: Some(SidecarSecret::of([secret; 32])), host }
    }

    fn id(&self) -> String {
        self.secret.as_ref().map_or_else(|| "9".repeat(32), |secret| format!("{:032x}", secret.id_bits()))
    }

    fn post(&self, path: &str, body: &Value) -> http::Reply {
        let mut headers = vec![format!("x-org-key: {}", self.key.key), "content-type: application/json".to_owned()];
        headers.extend(self.secret.iter().map(|secret| format!("x-machineid-sidecar: {}", secret.expose())));
        let (to, body) = (self.key.authority.address(), body.to_string());
        http::request(to, "POST", &format!("/api/v1/devices/{path}"), &headers, body.as_bytes())
    }

    /// Validates the device, and returns the stamp of its revoke.
    fn validate(&self) -> Value {
        self.post("validate", &json!({"deviceId": "k8s:1"})).json()["revokedAt"].clone()
    }

    /// Reports as the sidecar of this id that so many agents run on the device, or none with the revoke of this stamp.
    fn report_as(&self, id: &str, sequence: u64, agents: u64, stamp: &Value) -> http::Reply {
        let standing = if stamp.is_null() { "allowed" } else { "denied" };
        let stop = json!({"deviceId": "k8s:1", "runId": RUN, "code": "DEVICE_REVOKED", "agoMs": 1_000, "tookMs": sequence,
            "signalled": 1, "killed": 0, "confirmed": agents == 0});
        self.post(
            "report",
            &json!({"sidecarId": id, "sequence": sequence, "version": "1", "hostDeviceId": self.host, "push": true,
                "stopBound": {"connectedMs": 0, "cutOffMs": 600_000}, "agents": agents, "stops": [stop],
                "devices": [{"deviceId": "k8s:1", "standing": standing, "revokedAt": stamp, "agents": agents,
                             "stopping": 0}]}),
        )
    }

    fn report(&self, sequence: u64, agents: u64, stamp: &Value) {
        let answer = self.report_as(&self.id(), sequence, agents, stamp);
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// How far the authority says this sidecar is with the stop, and how many agents run.
    fn progress(&self) -> (Value, Value, Value) {
        let fleet = self.key.authority.same_org(self.key).get("/org/fleet?deviceId=k8s:1").json();
        let mine = |sidecar: &&Value| sidecar["sidecarId"] == self.id();
        let sidecar = fleet["devices"][0]["sidecars"].as_array().unwrap().iter().find(mine).unwrap().clone();
        (sidecar["stop"]["state"].clone(), sidecar["stop"]["doubt"].clone(), sidecar["agents"].clone())
    }
}

#[test]
fn no_holder_of_a_key_confirms_silences_or_rewrites_the_stop_of_another_host() {
    let authority = Authority::start_with(&["--metrics-listen", "127.0.0.1:0"]);
    let org = authority.org("pro");
    org.register(&["k8s:1", "k8s:2"]);
    let reading = org.with_role(&["--role", "operate"]);
    let honest = Reporter::new(&reading, 1, "k8s:1");
    honest.validate();
    honest.report(5, 2, &Value::Null);
    assert_eq!(org.device("revoke", "k8s:1").status, 200);

    // As the host itself: without its secret, and with another one.
    let without = Reporter { secret: None, ..Reporter::new(&reading, 2, "k8s:1") };
    let other = Reporter::new(&reading, 2, "k8s:1");
    let stamp = without.validate();
    assert!(stamp.is_string());
    for forger in [&without, &other] {
        let refused = forger.report_as(&honest.id(), u64::MAX, 0, &stamp);
        assert_eq!((refused.status, &refused.json()["error"]), (403, &json!("not_this_sidecar")));
    }
    assert_eq!(honest.progress(), (json!("pending"), Value::Null, json!(2)));
    let metrics = http::request(authority.metrics(), "GET", "/metrics", &[], b"").text;
    assert!(metrics.contains("machineid_authority_reports_total{sender=\"foreign\"} 2"), "{metrics}");

    // As a sidecar that cannot prove itself, as those of earlier versions; and as one that has not validated.
    without.report(1, 0, &stamp);
    other.report(1, 0, &stamp);
    for unproven in [&without, &other] {
        assert_eq!(unproven.progress(), (json!("pending"), json!("unproven"), json!(0)));
    }
    let stops = || org.get("/org/stops?deviceId=k8s:1").json()["stops"].as_array().unwrap().clone();
    assert_eq!(stops().len(), 1, "{:?}", stops());

    // As one that has: it stands beside the host, which says otherwise once it is heard again.
    other.validate();
    other.report(2, 0, &stamp);
    honest.report(6, 2, &Value::Null);
    assert_eq!(other.progress(), (json!("pending"), json!("contradictory"), json!(0)));
    assert_eq!(honest.progress(), (json!("pending"), Value::Null, json!(2)));
    let of_honest = |stop: &&Value| stop["sidecarId"] == honest.id();
    let stops = stops();
    assert_eq!(stops.iter().find(of_honest).unwrap()["tookMs"], 6, "{stops:?}");
    let list = String::from_utf8(machineid(&org, &["list"]).stdout).unwrap();
    assert!(list.contains("contradictory"), "{list}");
    let waited = machineid(&org, &["revoke", "k8s:1", "--wait=1s", "--json"]);
    let told = String::from_utf8_lossy(&waited.stdout).into_owned();
    assert!(!waited.status.success() && told.contains(r#""state": "contradictory""#), "{waited:?}");

    // The host's own confirmation counts.
    let stamp = honest.validate();
    honest.report(7, 0, &stamp);
    other.validate();
    other.report(3, 0, &stamp);
    assert_eq!(honest.progress(), (json!("confirmed"), Value::Null, json!(0)));
    assert_eq!(other.progress(), (json!("confirmed"), Value::Null, json!(0)));
}
