//! The authority inside another program.

use std::process::Command;

use machineid_authority::{Embedded, EmbeddedError, PlanTier};
use tempfile::TempDir;

use crate::harness::authority::{BINARY, database_flag};
use crate::harness::http;

#[test]
fn an_embedded_authority_decides_and_is_administered_like_any_other() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = TempDir::new().unwrap();
    let start = Embedded::start("127.0.0.1:0".parse().unwrap(), directory.path(), "dev", PlanTier::Max);
    let embedded = runtime.block_on(start).unwrap();
    let address = embedded.url.strip_prefix("http://").unwrap().parse().unwrap();
    let post = |verb: &str| {
        let key = [format!("x-org-key: {}", embedded.org_key.expose())];
        http::request(address, "POST", &format!("/api/v1/devices/{verb}"), &key, br#"{"deviceId":"a"}"#).json()
    };
    assert_eq!(post("register")["limit"], 1000);
    assert_eq!(post("validate")["code"], "ALLOW");
    let disabled = Command::new(BINARY)
        .args(["org", "disable", &embedded.org_id.to_string(), "--database", &database_flag(directory.path())])
        .output()
        .unwrap();
    assert!(disabled.status.success(), "{}", String::from_utf8_lossy(&disabled.stderr));
    assert_eq!(post("validate")["code"], "ORG_DISABLED");
    runtime.block_on(embedded.end());
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn an_embedded_authority_stays_on_loopback() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = TempDir::new().unwrap();
    let start = Embedded::start("0.0.0.0:0".parse().unwrap(), directory.path(), "dev", PlanTier::Free);
    assert!(matches!(runtime.block_on(start), Err(EmbeddedError::NotLoopback(_))));
}
