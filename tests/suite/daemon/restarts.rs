//! Restarts in a row lose no agent and let none in unasked.

use rustix::process::Signal;

use super::agents::{Agent, OBEDIENT, agents};
use crate::harness::authority::Authority;
use crate::harness::process::Wrapped;
use crate::harness::sidecar::Setup;
use crate::harness::wait::until;

const HOST: &str = "restarted-host:1";
const ROUNDS: usize = 20;

#[test]
fn twenty_restarts_in_a_row_lose_no_agent_and_let_none_in_unasked() {
    let authority = Authority::start();
    let org = authority.org("pro");
    let mut setup = Setup::of(&org, &authority.url(), HOST);
    setup.devices = String::from("allow = [\"agent-*\"]");
    setup.enforcement = String::from("interval = \"500ms\"\nlease = \"30s\"\nstop_grace = \"3s\"");
    let mut sidecar = setup.start();
    let mut living: Vec<_> =
        ["agent-1", "agent-2", HOST].map(|device| Agent::start(&sidecar, &["--device", device], OBEDIENT)).into();
    living.push(Agent::start(&sidecar, &[], OBEDIENT));
    org.register(&["agent-denied"]);
    org.device("revoke", "agent-denied");
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            sidecar.kill();
        } else {
            assert_eq!(sidecar.terminate().code(), Some(0));
        }
        // One asks while no daemon is there, and one at the first moment that one is.
        let unasked = sidecar.directory().join("unasked");
        let touch = ["touch", unasked.to_str().unwrap()];
        let mut nobody_there = Wrapped::start(sidecar.wrap(&["--device", "agent-denied"], &touch));
        assert_eq!(nobody_there.exit_code(), 75, "round {round}");
        sidecar.start_again();
        let mut denied = Wrapped::start(sidecar.wrap(&["--device", "agent-denied"], &touch));
        assert_eq!(denied.exit_code(), 77, "round {round}: {}", denied.stderr());
        assert!(!unasked.exists(), "round {round}");
        let came_back = || sidecar.log().matches("the agent's wrapper reconnected").count();
        until("every wrapper comes back", || (came_back() == living.len() * (round + 1)).then_some(()));
        assert_eq!(agents(&sidecar).len(), living.len(), "round {round}");
        for agent in &living {
            assert!(agent.is_alive() && agent.terms() == 0, "round {round}");
        }
    }
    org.device("revoke", "agent-1");
    let first = living.remove(0);
    let mut first = first;
    assert_eq!(first.wrapped.exit_code(), 77);
    assert!(living.iter().all(|agent| agent.is_alive() && agent.terms() == 0), "only its own device's");
    org.device("revoke", HOST);
    for agent in &mut living {
        assert_eq!(agent.wrapped.exit_code(), 77);
        assert_eq!(agent.terms(), 1);
    }
    sidecar.signal(Signal::TERM);
}
