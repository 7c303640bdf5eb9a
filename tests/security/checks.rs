//! What a user who may only open the local socket can do to the plan.

use crate::daemon::agents::{Agent, OBEDIENT};
use crate::harness::authority::Authority;
use crate::harness::sidecar::{Setup, exchange};

#[test]
fn a_check_registers_nothing_however_many_names_it_has_and_a_start_registers_its_own() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), "host:1");
    setup.devices = "allow = [\"agent:*\"]".to_owned();
    let sidecar = setup.start();
    for number in 0..40 {
        let answer = sidecar.get(&format!("/v1/check?device=agent:{number}")).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (403, "DEVICE_NOT_FOUND"), "{number}");
        let body = format!("{{\"deviceId\":\"agent:{number}\"}}");
        let head = format!("POST /api/v1/devices/register HTTP/1.0\r\nHost: h\r\ncontent-length: {}", body.len());
        assert_ne!(exchange(&sidecar.socket(), &format!("{head}\r\n\r\n{body}")).unwrap().status, 200);
    }
    assert_eq!(org.get("/usage").json()["devicesUsed"], 1, "the host");
    let agent = Agent::start(&sidecar, &["--device", "agent:7"], OBEDIENT);
    assert_eq!(org.get("/usage").json()["devicesUsed"], 2);
    assert_eq!(sidecar.get("/v1/check?device=agent:7").unwrap().status, 200);
    assert!(agent.is_alive());
}
