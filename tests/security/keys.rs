//! Keys with roles: what each opens, and what no key of a host's undoes.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::agents::{Agent, OBEDIENT};
use crate::harness::authority::{Authority, Org};
use crate::harness::sidecar::Setup;
use crate::harness::wait::let_time_pass;
use crate::harness::{eventually, http};

/// Every request that needs a key, with the roles that it is open to.
const REQUESTS: [(&str, &str, &str, &[&str]); 25] = [
    ("POST", "/devices/register", r#"{"deviceId":"a"}"#, &["host", "operate", "admin"]),
    ("POST", "/devices/watch", r#"{"deviceIds":["a"]}"#, &["host", "operate", "admin"]),
    ("GET", "/devices/watch?deviceId=a", "", &["host", "operate", "admin"]),
    ("POST", "/devices/report", "{}", &["host", "operate", "admin"]),
    ("POST", "/devices/remove", r#"{"deviceId":"b","ifActive":true}"#, &["host", "operate", "admin"]),
    ("POST", "/devices/revoke", r#"{"deviceId":"b"}"#, &["stop", "operate", "admin"]),
    ("POST", "/devices/revoke_batch", r#"{"deviceIds":["b"]}"#, &["stop", "operate", "admin"]),
    ("GET", "/devices/list", "", &["stop", "read", "operate", "admin"]),
    ("GET", "/usage", "", &["stop", "read", "operate", "admin"]),
    ("GET", "/org/audit", "", &["stop", "read", "operate", "admin"]),
    ("GET", "/org/fleet", "", &["stop", "read", "operate", "admin"]),
    ("GET", "/org/stops?deviceId=a", "", &["stop", "read", "operate", "admin"]),
    ("GET", "/org/timeline?deviceId=a", "", &["stop", "read", "operate", "admin"]),
    ("POST", "/devices/unrevoke", r#"{"deviceId":"b"}"#, &["operate", "admin"]),
    ("POST", "/devices/unrevoke_batch", r#"{"deviceIds":["b"]}"#, &["operate", "admin"]),
    ("POST", "/billing/checkout", r#"{"plan":"max"}"#, &["operate", "admin"]),
    ("GET", "/org/approvals", "", &["stop", "read", "operate", "admin"]),
    ("POST", "/org/approvals/approve", r#"{"approval":"none"}"#, &["operate", "admin"]),
    ("POST", "/org/approvals/reject", r#"{"approval":"none"}"#, &["stop", "operate", "admin"]),
    ("POST", "/org/disable", "{}", &["stop", "operate", "admin"]),
    ("POST", "/org/enable", "{}", &["admin"]),
    ("GET", "/org/keys", "", &["admin"]),
    ("POST", "/org/keys/create", r#"{"role":"read"}"#, &["admin"]),
    ("POST", "/org/keys/revoke", r#"{"key":"nothing"}"#, &["admin"]),
    ("POST", "/org/keys/rotate", r#"{"key":"nothing"}"#, &["admin"]),
];

/// The head of the answer: a stream has no end.
fn head(org: &Org<'_>, method: &str, path: &str, body: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(org.authority.address()).unwrap();
    let headers = ["content-type: application/json".to_owned(), format!("x-org-key: {}", org.key)];
    let path = format!("/api/v1{path}");
    stream.write_all(&http::message(org.authority.address(), method, &path, &headers, body.as_bytes())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut read = Vec::new();
    let mut some = [0; 4096];
    while !read.windows(4).any(|four| four == b"\r\n\r\n") {
        let count = stream.read(&mut some).unwrap();
        assert!(count > 0, "{method} {path}");
        read.extend_from_slice(&some[..count]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[test]
fn a_key_opens_the_routes_of_its_role_and_no_other() {
    let authority = Authority::start_with(&["--management-per-minute", "0"]);
    let org = authority.org("max");
    org.register(&["a", "b"]);
    for role in ["host", "stop", "read", "operate", "admin"] {
        let key = org.with_role(&["--role", role]);
        for (method, path, body, roles) in REQUESTS {
            let answer = head(&key, method, path, body);
            let status = answer.split(' ').nth(1).unwrap();
            assert_eq!(status != "403" && status != "401", roles.contains(&role), "{role} {method} {path}: {answer}");
        }
    }
    let refused = org.with_role(&["--role", "read"]).device("unrevoke", "a");
    let body = refused.json();
    assert_eq!((refused.status, &body["status"], &body["error"]), (403, &json!("error"), &json!("not_permitted")));
    assert_eq!((&body["role"], &body["needs"]), (&json!("read"), &json!("give back")));
}

#[test]
fn a_validation_with_a_key_that_may_not_is_a_deny() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["k8s:1", "vm:1"]);
    for (flags, device, code) in [
        (&["--role", "host"][..], "vm:1", "ALLOW"),
        (&["--role", "host", "--devices", "k8s:*"], "k8s:1", "ALLOW"),
        (&["--role", "host", "--devices", "k8s:*"], "vm:1", "INVALID_ORG_KEY"),
        (&["--role", "stop"], "vm:1", "INVALID_ORG_KEY"),
        (&["--role", "read"], "vm:1", "INVALID_ORG_KEY"),
        (&["--role", "operate"], "vm:1", "ALLOW"),
    ] {
        let answer = org.with_role(flags).device("validate", device);
        let body = answer.json();
        assert_eq!((&body["code"], &body["allowed"]), (&json!(code), &json!(code == "ALLOW")), "{flags:?} {device}");
        assert_eq!(answer.header("x-machineid-key-role"), Some(flags[1]));
        if code != "ALLOW" {
            assert_eq!((answer.status, &body["error"]), (403, &json!("not_permitted")));
        }
    }
}

#[test]
fn a_hosts_key_works_for_the_devices_that_it_names() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["vm:1"]);
    let host = org.with_role(&["--role", "host", "--devices", "k8s:*"]);
    assert_eq!(host.device("register", "k8s:1").status, 200);
    for (verb, body) in [
        ("register", json!({"deviceId": "vm:2"})),
        ("remove", json!({"deviceId": "vm:1", "ifActive": true})),
        ("watch", json!({"deviceIds": ["vm:1", "vm:2"]})),
    ] {
        let answer = host.post(&format!("/devices/{verb}"), &body);
        assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("not_permitted")), "{verb}");
    }
    assert_eq!(org.code("vm:1"), "ALLOW");
    assert_eq!(org.code("vm:2"), "DEVICE_NOT_FOUND");
}

fn report(sidecar: &str, sequence: u64, devices: &[&str], others: &[&str]) -> Value {
    let device =
        |id: &&str| json!({"deviceId": id, "standing": "allowed", "leaseLeftMs": 60_000, "agents": 0, "stopping": 0});
    let stop = |id: &&str| {
        json!({"deviceId": id, "runId": "0123456789abcdef0123456789abcdef", "code": "DEVICE_REVOKED", "agoMs": 1_000,
               "tookMs": 1, "signalled": 1, "killed": 0, "confirmed": true})
    };
    json!({"sidecarId": sidecar, "sequence": sequence, "version": "0.1.0", "hostDeviceId": "k8s:1",
           "stopBound": {"connectedMs": 21_000, "cutOffMs": 41_000}, "push": true, "agents": 0,
           "devices": devices.iter().map(device).collect::<Vec<_>>(),
           "stops": others.iter().map(stop).collect::<Vec<_>>(), "events": []})
}

#[test]
fn a_hosts_key_reports_about_its_own_devices_and_takes_no_other_hosts_report_away() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["k8s:1", "vm:9"]);
    let host = org.with_role(&["--role", "host", "--devices", "k8s:*"]);
    let (own, other) = ("00000000000000000000000000000001", "00000000000000000000000000000002");
    let told = org.post("/devices/report", &report(other, 1, &["vm:9"], &[]));
    assert_eq!(told.status, 200, "{}", told.text);
    // About its own, and about a foreign one beside it.
    assert_eq!(host.post("/devices/report", &report(own, 1, &["k8s:1", "vm:9"], &["k8s:1", "vm:9"])).status, 200);
    // As the other sidecar, which then would hold nothing.
    assert_eq!(host.post("/devices/report", &report(other, 2, &[], &[])).status, 200);
    let sidecars = |device: &str| {
        let fleet = org.get(&format!("/org/fleet?deviceId={device}")).json();
        let sidecars = fleet["devices"][0]["sidecars"].as_array().cloned().unwrap_or_default();
        sidecars.iter().map(|sidecar| sidecar["sidecarId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("what the host says is kept", || sidecars("k8s:1") == [own]);
    assert_eq!(sidecars("vm:9"), [other]);
    let stops =
        |device: &str| org.get(&format!("/org/stops?deviceId={device}")).json()["stops"].as_array().unwrap().len();
    assert_eq!((stops("k8s:1"), stops("vm:9")), (1, 0));
}

#[test]
fn a_key_that_ends_makes_none_that_outlives_it() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let renewed = org.admin("rotate-key", &["--overlap", "1h"]);
    // The old key is still an admin key. It makes nothing any more.
    for (path, body) in
        [("/org/keys/create", json!({"role": "admin"})), ("/org/keys/rotate", json!({"key": "nothing"}))]
    {
        let answer = org.post(path, &body);
        assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("old_key")), "{path}");
    }
    let new = Org { authority: &authority, id: org.id.clone(), key: renewed["orgApiKey"].as_str().unwrap().to_owned() };
    let brief = new.with_role(&["--role", "admin", "--expires", "1h", "--name", "brief"]);
    let ends = |answer: http::Reply| answer.json()["key"]["ends"].as_str().unwrap().to_owned();
    let own_end = new.get("/org/keys").json()["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["name"] == "brief")
        .unwrap()["ends"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(ends(brief.post("/org/keys/create", &json!({"role": "admin"}))), own_end);
    assert_eq!(ends(brief.post("/org/keys/create", &json!({"role": "stop", "expiresInSeconds": 86_400}))), own_end);
    assert_eq!(ends(brief.post("/org/keys/rotate", &json!({"key": "brief"}))), own_end);
}

#[test]
fn a_request_that_stalls_until_its_key_is_revoked_does_nothing() {
    use std::io::{Read, Write};
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    org.device("revoke", "a");
    let operate = org.with_role(&["--role", "operate", "--name", "operator"]);
    let body = r#"{"deviceId":"a"}"#;
    let headers = [format!("x-org-key: {}", operate.key)];
    let whole = http::message(authority.address(), "POST", "/api/v1/devices/unrevoke", &headers, body.as_bytes());
    let mut stream = std::net::TcpStream::connect(authority.address()).unwrap();
    let (head, tail) = whole.split_at(whole.len() - 3);
    stream.write_all(head).unwrap();
    // The head is read by now, as another request on another connection has been.
    assert_eq!(operate.get("/usage").status, 200);
    authority.admin_json(&["key", "revoke", &org.id, "operator"]);
    stream.write_all(tail).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    assert_eq!(org.code("a"), "DEVICE_REVOKED");
}

#[test]
fn a_hosts_key_cannot_lift_the_hosts_own_revoke() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let host = org.with_role(&["--role", "host", "--devices", "host:*", "--name", "hosts"]);
    let sidecar = Setup::new(&authority.url(), &host.key, "host:1").start();
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    let stop = org.with_role(&["--role", "stop", "--name", "oncall"]);
    assert_eq!(stop.device("revoke", "host:1").status, 200);
    eventually("the agent is stopped", || !agent.is_alive());
    // All that the host could try with what it holds.
    assert_eq!(host.device("unrevoke", "host:1").status, 403);
    assert_eq!(host.device("remove", "host:1").status, 403);
    let removal = host.post("/devices/remove", &json!({"deviceId": "host:1", "ifActive": true}));
    assert_eq!(removal.json()["error"], "device_revoked");
    assert_eq!(host.device("register", "host:1").json()["status"], "revoked");
    assert_eq!(host.post("/org/keys/create", &json!({"role": "admin"})).status, 403);
    assert_eq!(host.code("host:1"), "DEVICE_REVOKED");
    // What the on-call's key cannot, either.
    assert_eq!(stop.device("unrevoke", "host:1").status, 403);
    assert_eq!(sidecar.check().status, 403);
    // The audit names both keys.
    let audit = org.get("/org/audit").json();
    let actors: Vec<&str> =
        audit["entries"].as_array().unwrap().iter().map(|it| it["actor"].as_str().unwrap()).collect();
    assert!(actors.iter().any(|actor| actor.starts_with("key:") && actor.ends_with(":oncall")), "{actors:?}");
    assert!(actors.iter().any(|actor| actor.ends_with(":hosts")), "{actors:?}");
    assert!(!audit.to_string().contains(&host.key) && !audit.to_string().contains(&stop.key));
}

#[test]
fn a_daemon_says_when_its_key_may_do_more_than_a_host_needs() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let told = |key: &str, device: &str| {
        let sidecar = Setup::new(&authority.url(), key, device).start();
        eventually("the role is known", || !sidecar.status()["authority"]["key_role"].is_null());
        let text = |verb: &str| String::from_utf8(sidecar.machineid(&[verb]).stdout).unwrap();
        let metrics = sidecar.get("/metrics").unwrap();
        (sidecar.log(), text("status"), text("doctor"), metrics.body)
    };
    let (log, status, doctor, metrics) = told(&org.key, "host:1");
    assert!(log.contains("may do more than a host needs"), "{log}");
    assert!(status.contains("has the role admin: give this host a key of the role host"), "{status}");
    assert!(doctor.contains("its role is admin") && doctor.contains("machineid key create --role host"), "{doctor}");
    assert!(metrics.contains(r#"machineid_sidecar_org_key_role{role="admin"} 1"#), "{metrics}");
    let (log, status, doctor, metrics) = told(&org.with_role(&["--role", "host"]).key, "host:2");
    assert!(!log.contains("more than a host needs") && !status.contains("has the role"), "{log}{status}");
    assert!(!doctor.contains("its role is"), "{doctor}");
    assert!(metrics.contains(r#"machineid_sidecar_org_key_role{role="host"} 1"#), "{metrics}");
    // One that may do less is of no use here, and that is said instead.
    let sidecar = Setup::new(&authority.url(), &org.with_role(&["--role", "read"]).key, "host:1").start_unready();
    eventually("the role is told", || sidecar.log().contains("may not validate, so this host is denied"));
    assert!(!sidecar.log().contains("more than a host needs"), "{}", sidecar.log());
}

#[test]
fn a_key_is_refused_from_its_end_on_and_from_its_revocation_on() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    let brief = org.with_role(&["--role", "host", "--expires", "2s"]);
    assert_eq!(brief.code("a"), "ALLOW");
    assert!(brief.device("validate", "a").header("x-machineid-key-ends").is_some(), "its end comes soon");
    eventually("the key ends", || brief.device("validate", "a").json()["code"] == "INVALID_ORG_KEY");
    let host = org.with_role(&["--role", "host", "--name", "hosts"]);
    assert_eq!(host.device("validate", "a").header("x-machineid-key-ends"), None);
    org.authority.admin_json(&["key", "revoke", &org.id, "hosts"]);
    assert_eq!(host.device("validate", "a").json()["code"], "INVALID_ORG_KEY");
    assert_eq!(host.device("register", "a").status, 401);
    let listed = org.authority.admin_json(&["key", "list", &org.id]);
    let states: Vec<&Value> = listed.as_array().unwrap().iter().map(|key| &key["state"]).collect();
    assert_eq!(states, ["valid", "ended", "ended"]);
}

#[test]
fn no_agent_stops_while_a_hosts_key_is_rotated_within_its_overlap() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let host = org.with_role(&["--role", "host", "--name", "hosts"]);
    let sidecar = Setup::new(&authority.url(), &host.key, "host:1").start();
    let agent = Agent::start(&sidecar, &[], OBEDIENT);
    let rotated = authority.admin_json(&["key", "rotate", &org.id, "hosts", "--overlap", "1h"]);
    eventually("the daemon knows that its key ends", || !sidecar.status()["authority"]["key_ends"].is_null());
    crate::daemon::reload::put(&sidecar.key_file(), &format!("{}\n", rotated["orgApiKey"].as_str().unwrap()));
    eventually("the daemon uses the new key", || sidecar.status()["authority"]["key_ends"].is_null());
    let old = host.authority.admin_json(&["key", "list", &org.id]);
    let old = old.as_array().unwrap().iter().find(|key| key["state"] == "old").unwrap();
    authority.admin_json(&["key", "revoke", &org.id, old["fingerprint"].as_str().unwrap()]);
    let_time_pass(Duration::from_millis(500));
    assert!(agent.is_alive() && agent.terms() == 0, "{}", sidecar.log());
    assert_eq!(sidecar.check().status, 200);
}

pub(super) fn machineid(org: &Org<'_>, arguments: &[&str]) -> std::process::Output {
    Command::new(crate::harness::programs::program(env!("CARGO_BIN_EXE_machineid")))
        .args(arguments)
        .env("MACHINEID_BASE_URL", org.authority.url())
        .env("MACHINEID_ORG_KEY", &org.key)
        .output()
        .unwrap()
}

#[test]
fn a_key_that_is_made_on_the_authoritys_machine_goes_into_a_file_as_it_is() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["a"]);
    let made = authority.admin(&["key", "create", &org.id, "--role", "host"]);
    assert!(made.status.success(), "{made:?}");
    let of = |text: &str| Org { authority: &authority, id: org.id.clone(), key: text.trim_end().to_owned() };
    let key = String::from_utf8(made.stdout).unwrap();
    assert_eq!((key.lines().count(), of(&key).code("a")), (1, "ALLOW".to_owned()));
    assert!(String::from_utf8_lossy(&made.stderr).contains("Role          host"));
    let path = authority.directory().join("host-key");
    let into_file = ["key", "create", &org.id, "--role", "host", "--key-file", path.to_str().unwrap()];
    let made = authority.admin(&into_file);
    assert!(made.status.success() && made.stdout.is_empty(), "{made:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(of(&std::fs::read_to_string(&path).unwrap()).code("a"), "ALLOW");
    let keys = authority.admin_json(&["key", "list", &org.id]);
    assert_eq!(authority.admin(&into_file).status.code(), Some(2), "a file that exists is not written over");
    assert_eq!(authority.admin_json(&["key", "list", &org.id]), keys, "and no key was made");
}

#[test]
fn keys_are_made_listed_rotated_and_revoked_with_an_admin_key_and_with_no_other() {
    let authority = Authority::start();
    let org = authority.org("pro");
    org.register(&["k8s:1"]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let made = machineid(
        &org,
        &["key", "create", "--role", "host", "--devices", "k8s:*", "--name", "cluster", "--expires", "720h"],
    );
    assert!(made.status.success(), "{made:?}");
    let (key, note) = (text(made.stdout), text(made.stderr));
    let first = Org { authority: &authority, id: org.id.clone(), key: key.trim().to_owned() };
    assert!(note.contains("role host") && note.contains("k8s:*") && !note.contains(key.trim()), "{note}");
    assert_eq!(first.code("k8s:1"), "ALLOW");
    let rotated = machineid(&org, &["key", "rotate", "cluster", "--overlap", "1h", "--json"]);
    let rotated: Value = serde_json::from_slice(&rotated.stdout).unwrap();
    let second =
        Org { authority: &authority, id: org.id.clone(), key: rotated["orgApiKey"].as_str().unwrap().to_owned() };
    assert_eq!((first.code("k8s:1"), second.code("k8s:1")), ("ALLOW".to_owned(), "ALLOW".to_owned()));
    // The name means both: a key that was stolen must not live on because it was rotated.
    assert_eq!(machineid(&org, &["key", "revoke", "cluster"]).status.code(), Some(0));
    let invalid = || "INVALID_ORG_KEY".to_owned();
    assert_eq!((first.code("k8s:1"), second.code("k8s:1")), (invalid(), invalid()));
    eventually("the uses are written", || {
        let listed = text(machineid(&org, &["key", "list"]).stdout);
        listed.contains("cluster") && listed.contains("(own key)") && listed.contains("ended")
    });
    // The others are told what they lack.
    let read = org.with_role(&["--role", "read"]);
    let refused = machineid(&read, &["revoke", "k8s:1"]);
    let said = text(refused.stderr) + &text(refused.stdout);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("not_permitted") && said.contains("role read may not do that"), "{said}");
    assert_eq!(machineid(&read, &["key", "list"]).status.code(), Some(1));
    assert_eq!(org.code("k8s:1"), "ALLOW");
}
